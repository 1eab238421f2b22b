//! What the coordinator watches outside of program time: the wall clock, the free space of the store's disk, and how
//! far program time has got. Readings come in through [`Outside`], so a test can make them up; rules are elsewhere.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use actix::{AsyncContext, Context};
use tokio::{sync::oneshot, time::Instant};

use super::{Coordinator, announce::Notifier, schedule::Input, states};
use crate::{
    coordinator::clock::{ClockStep, LogicalClock, Reading},
    execution,
    market::{
        self,
        feed::kraken::view::{LinkView, Shared, Trouble},
    },
    model::{Clock, Event, Symbol, Ts},
    runtime::post::post,
    store::{Audit, AuxRow, AuxWrite, LEFT_WALL, LOGICAL_TIME, META},
};

/// The wall is compared with program time this often, real time (resilience §7).
const OBSERVE: Duration = Duration::from_secs(1);
/// Program time is noted this often, real time (resilience §7 asks for ten seconds; an accelerated clock would lose
/// ten program minutes with each kill).
const PERSIST: Duration = Duration::from_secs(1);
/// Free space is read this often, real time (durability §13).
const SPACE: Duration = Duration::from_secs(60);
/// Program time this close to the wall is left alone: a correction per reading would only be jitter.
const TOLERANCE_MS: i64 = 100;
const MIB: u64 = 1 << 20;

/// Reads the wall clock.
pub type WallSource = Rc<dyn Fn() -> Ts>;
/// Reads the free bytes of the store's disk; absent when they cannot be told.
pub type SpaceSource = Rc<dyn Fn() -> Option<u64>>;

/// Starts a check of the whole journal and gives its answer later.
pub type AuditSource = Rc<dyn Fn() -> oneshot::Receiver<Audit>>;

/// What is read outside of program time. Nothing by default: backtests have no outside.
#[derive(Clone, Default)]
pub struct Outside {
    /// The wall; absent when program time does not follow it (virtual or accelerated).
    pub wall: Option<WallSource>,
    /// Free space; absent when nothing is kept on disk.
    pub free_space: Option<SpaceSource>,
    /// Checks the whole journal; absent when nothing is kept on disk.
    pub audit: Option<AuditSource>,
    /// Program time of the last such check that found nothing wrong.
    pub verified_at: Option<Ts>,
    /// What the link to a live venue shows of itself; absent without one.
    pub venue: Option<Shared>,
    /// Where notifications are posted; absent when nowhere.
    pub notifier: Option<Notifier>,
    /// Highest program time of earlier processes.
    pub persisted: Ts,
    /// The wall is read and program time noted so many times less often; 0 as 1. For simulations of years.
    pub seldom: u32,
}

/// The coordinator's part.
pub(super) struct Timekeeper {
    pub(super) outside: Outside,
    began: Instant,
    rule: Option<LogicalClock>,
    /// Little space has been told.
    told_space: bool,
    /// What the venue's trouble was when it was last looked at; absent before the first look.
    trouble: Option<Option<Trouble>>,
    /// What was told of each symbol: silences, stops of its candles, and candles nobody can give.
    told_of: BTreeMap<Symbol, [u64; 3]>,
    /// A check of the journal is under way.
    pub(super) auditing: bool,
}

impl Timekeeper {
    pub(super) fn new(outside: Outside) -> Timekeeper {
        let (rule, told_space, trouble, auditing) = (None, false, None, false);
        let (began, told_of) = (Instant::now(), BTreeMap::new());
        Timekeeper { outside, began, rule, told_space, trouble, told_of, auditing }
    }

    fn reading(&self) -> Option<Reading> {
        let wall = self.outside.wall.as_ref()?();
        let monotonic_ms = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let offset_ms = self.link().and_then(|link| link.offset_ms(wall));
        Some(Reading { wall, monotonic_ms, venue: offset_ms.map(|offset_ms| wall.plus_ms(offset_ms)) })
    }

    /// The link to a live venue as it is now.
    pub(super) fn link(&self) -> Option<LinkView> {
        self.outside.venue.as_ref().map(Shared::read)
    }
}

impl Coordinator {
    /// First readings, and timers for the others.
    pub(super) fn begin_watching(&mut self, ctx: &mut Context<Self>) {
        if self.volatile {
            return;
        }
        let held = self.view.read().coordinator.pause_reasons.contains(states::CLOCK);
        if let Some(reading) = self.time.reading() {
            let (mut rule, step) = LogicalClock::boot(&self.settings.clock, reading, self.time.outside.persisted);
            if held {
                // The reason outlived the process; it ends like any other, after a minute of agreement.
                rule.distrust();
            }
            self.time.rule = Some(rule);
            post("store", &self.links.store, AuxWrite(vec![AuxRow::remove(META, LEFT_WALL.to_owned())]));
            self.obey(step, reading.wall, ctx);
            ctx.run_interval(OBSERVE * self.time.outside.seldom.max(1), Self::observe_clock);
        } else {
            self.put_meta(LEFT_WALL, 1);
            if held {
                self.pause_for_clock(false, ctx);
            }
        }
        if self.time.outside.free_space.is_some() {
            self.look_at_space(ctx);
            ctx.run_interval(SPACE, |actor, ctx| actor.look_at_space(ctx));
        }
        self.begin_auditing(ctx);
        ctx.run_interval(PERSIST * self.time.outside.seldom.max(1), |actor, _| actor.note_time());
    }

    /// The operator's word for the clock: what was distrusted so far counts no more; a new jump pauses again.
    pub(super) fn trust_clock(&mut self) {
        if let Some(rule) = self.time.rule.as_mut() {
            rule.acknowledge();
        }
    }

    /// A venue that is not in service, or whose prices have all stopped, takes no entries: the pause says why, and ends
    /// with its cause.
    fn observe_venue(&mut self, ctx: &mut Context<Self>) {
        let Some(link) = self.time.link() else { return };
        self.tell_of_symbols(&link);
        let trouble = link.trouble();
        // A pause of an earlier process ends by what the venue says, not by its silence.
        let nothing_yet = trouble.is_none() && !link.has_heard();
        if nothing_yet || self.time.trouble.as_ref() == Some(&trouble) {
            return;
        }
        self.time.trouble = Some(trouble.clone());
        match &trouble {
            Some(Trouble::Engine(word)) => {
                self.note(self.clock.now(), "venue_not_in_service", [("system", word.clone())]);
            }
            Some(Trouble::Frozen) => {
                let seconds = self.settings.market.silence_seconds.to_string();
                self.note(self.clock.now(), "feed_frozen", [("no_price_for_seconds", seconds)]);
            }
            None => {}
        }
        let make = move |actor: &mut Coordinator| {
            let state = actor.view.read();
            let held = state.coordinator.pause_reasons.contains(states::VENUE);
            match trouble {
                Some(_) if !held => states::pause(&state.coordinator, states::VENUE),
                None if held && actor.settings.degradation.auto_clear_pause => {
                    states::clear(&state.coordinator, states::VENUE)
                }
                _ => Vec::new(),
            }
        };
        self.change_state("venue".to_owned(), make, ctx);
    }

    /// Each silence of a symbol, each stop of its candles and each hole in them is noted once; what it forbids is said by the
    /// board of prices.
    fn tell_of_symbols(&mut self, link: &LinkView) {
        for (symbol, line) in &link.symbols {
            let now_known = [line.silences, line.candle_freezes, line.unfilled_candles];
            let [silences, freezes, unfilled] = self.time.told_of.insert(*symbol, now_known).unwrap_or_default();
            let name = || ("symbol", symbol.to_string());
            if silences < line.silences {
                let seconds = self.settings.market.silence_seconds.to_string();
                self.note(self.clock.now(), "feed_silent", [name(), ("no_price_for_seconds", seconds)]);
            }
            if freezes < line.candle_freezes {
                self.note(self.clock.now(), "candles_frozen", [name()]);
            }
            if let Some((from, to)) = line.last_gap.filter(|_| unfilled < line.unfilled_candles) {
                let candles = ("candles", (line.unfilled_candles - unfilled).to_string());
                let (from, to) = (("from", from.to_string()), ("to", to.to_string()));
                self.note(self.clock.now(), "candles_missing", [name(), candles, from, to]);
            }
        }
    }

    fn observe_clock(&mut self, ctx: &mut Context<Self>) {
        self.observe_venue(ctx);
        let Some(reading) = self.time.reading() else { return };
        if let Some(step) = self.time.rule.as_mut().map(|rule| rule.observe(reading)) {
            self.obey(step, reading.wall, ctx);
        }
    }

    fn obey(&mut self, step: ClockStep, wall: Ts, ctx: &mut Context<Self>) {
        let off_ms = wall.since_ms(self.clock.now());
        if off_ms.abs() > TOLERANCE_MS {
            self.clock.follow_wall(wall, self.settings.clock.backward_rate);
        }
        if let Some(jump_ms) = step.jump_ms {
            self.record("clock", vec![Event::ClockJump { jump_ms }]);
        }
        if let Some(pause) = step.pause {
            self.pause_for_clock(pause, ctx);
        }
        if off_ms > i64::from(self.settings.clock.jump_seconds) * 1_000 {
            // The process was not there: everyone who set a timer looks at the clock again.
            self.scheduler.slept_until(self.clock.now());
            post("market", &self.links.market, market::actor::ClockMoved);
            post("execution", &self.links.execution, execution::actor::ClockMoved);
            self.alarm.set(None, &self.clock);
            self.housekeeping(ctx);
            self.step(Input::Tick, ctx);
        }
    }

    fn pause_for_clock(&mut self, pause: bool, ctx: &mut Context<Self>) {
        let make = move |actor: &mut Coordinator| {
            let state = actor.view.read();
            match pause {
                true => states::pause(&state.coordinator, states::CLOCK),
                false if actor.settings.degradation.auto_clear_pause => {
                    states::clear(&state.coordinator, states::CLOCK)
                }
                false => Vec::new(),
            }
        };
        self.change_state("clock".to_owned(), make, ctx);
    }

    /// After a kill, program time goes on from here when nothing was committed since.
    pub(super) fn note_time(&mut self) {
        // While draining the store may be closed already, and the clean stop carries the time.
        if !self.volatile && !self.draining {
            self.put_meta(LOGICAL_TIME, self.clock.now().0);
        }
    }

    pub(super) fn put_meta(&self, key: &str, value: i64) {
        post("store", &self.links.store, AuxWrite(vec![AuxRow::put(META, key.to_owned(), value)]));
    }

    fn look_at_space(&mut self, ctx: &mut Context<Self>) {
        let Some(free) = self.time.outside.free_space.as_ref().and_then(|read| read()) else { return };
        let free_mib = free / MIB;
        let limits = &self.settings.store.free_space;
        let (alert_mib, pause_mib) = (u64::from(limits.alert_mib), u64::from(limits.pause_mib));
        let told = std::mem::replace(&mut self.time.told_space, free_mib < alert_mib);
        if free_mib < alert_mib && !told {
            let facts = [("free_mib", free_mib.to_string()), ("alert_mib", alert_mib.to_string())];
            self.note(self.clock.now(), "disk_low", facts);
        }
        if free_mib < pause_mib {
            let make =
                |actor: &mut Coordinator| states::pause(&actor.view.read().coordinator, &states::boot_reason("disk"));
            self.change_state("disk".to_owned(), make, ctx);
        }
    }
}
