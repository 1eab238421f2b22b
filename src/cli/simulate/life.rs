//! One process of a simulation: the whole program assembled on the simulated disk, market, wall and operator, until it is
//! killed, loses its power, stops, or dies of its disk.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    time::Duration,
};

use actix::{Actor, Context, Handler};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    agents,
    feed::FaultyFeed,
    history::History,
    monitor::Monitor,
    operator::Operator,
    plan::{Fault, Plan},
    venue::FaultyPaper,
};
use crate::{
    cli::{
        run::try_drain,
        system::{self, Ingredients, Seams, System},
    },
    coordinator::{messages::GetStats, timekeeper::Outside},
    market::{Feed, actor::FeedEnded},
    model::{Clock, State, Ts, time::HOUR_MS, time::MINUTE_MS},
    runtime::placement::Place,
    settings::Loaded,
    store::{Opened, Store},
};

/// How a process ended.
#[derive(Clone, Debug)]
pub enum End {
    /// The simulated time is over; the state then.
    Over(Box<State>),
    /// It was killed: the operating system keeps what was written.
    Killed,
    /// The power went: what was not synced is lost.
    PowerCut,
    /// It stopped cleanly.
    Stopped,
    /// It ended itself because its store failed.
    Died,
    /// The monitor ended the run.
    Halted,
}

struct Signals {
    fatal: Rc<RefCell<Vec<String>>>,
    wake: Rc<Notify>,
    due: Rc<Notify>,
}

thread_local! {
    static SIGNALS: Signals = Signals { fatal: Rc::default(), wake: Rc::default(), due: Rc::default() };
}

/// What a caller says that is ended because its process has ended.
pub const ENDED: &str = "the simulated process has ended";

/// A broken invariant or a failed store: live, the process ends here. The simulated one ends when the driver comes to
/// it; a caller that goes on until then and calls again is ended by a panic, as it may well go on for ever.
pub fn fatal(what: &str) {
    let first = SIGNALS.with(|signals| {
        let mut fatal = signals.fatal.borrow_mut();
        fatal.push(what.to_owned());
        fatal.len() == 1
    });
    wake();
    if !first {
        std::panic::panic_any(ENDED);
    }
}

/// Makes the driver of this thread look up.
pub fn wake() {
    SIGNALS.with(|signals| {
        signals.wake.notify_one();
        signals.due.notify_one();
    });
}

/// What the process said when it ended itself.
pub fn take_fatal() -> Vec<String> {
    SIGNALS.with(|signals| std::mem::take(&mut *signals.fatal.borrow_mut()))
}

/// Waits for the first of a fatal error, a stop of the monitor, or `work`.
async fn unless_ended<T>(monitor: &Monitor, work: impl Future<Output = T>) -> Option<T> {
    let (over, woken) = SIGNALS.with(|signals| (Rc::clone(&signals.fatal), Rc::clone(&signals.wake)));
    let ended = async {
        while !monitor.stopped() && over.borrow().is_empty() {
            // A permit that is left over only means one look more.
            woken.notified().await;
        }
    };
    tokio::select! {
        biased;
        () = ended => None,
        done = work => Some(done),
    }
}

/// Waits for the commit after which the process ends, and then for the turns it still has.
async fn after_commit(monitor: &Monitor) -> End {
    let woken = SIGNALS.with(|signals| Rc::clone(&signals.due));
    loop {
        if let Some(after) = monitor.due() {
            for _ in 0..after.turns {
                tokio::task::yield_now().await;
            }
            return if after.power { End::PowerCut } else { End::Killed };
        }
        woken.notified().await;
    }
}

struct Silent;
impl Actor for Silent {
    type Context = Context<Self>;
}
impl Handler<FeedEnded> for Silent {
    type Result = ();
    fn handle(&mut self, ended: FeedEnded, _: &mut Context<Self>) {
        fatal(&format!("the simulated market ended: {:?}", ended.error));
    }
}

/// Everything one process needs.
pub struct Life<'a> {
    /// What the seed says.
    pub plan: &'a Plan,
    /// Counted from 1.
    pub number: u32,
    /// Settings of the seed.
    pub loaded: &'a Loaded,
    /// Sees every record.
    pub monitor: &'a Monitor,
    /// True time at its start.
    pub begins: Ts,
    /// True time at which the simulation is over.
    pub horizon: Ts,
    /// Wall against true time, milliseconds.
    pub wall_offset: &'a Rc<Cell<i64>>,
    /// The operator, who outlives processes.
    pub operator: &'a RefCell<Operator>,
    /// The market's history, which outlives processes.
    pub history: &'a RefCell<History>,
}

impl Life<'_> {
    /// Runs the process; how it ended and when, in true time.
    pub async fn run(self, place: Place, store: Store, opened: Opened) -> (End, Ts) {
        let began = Instant::now();
        let true_now = move |begins: Ts| begins.plus_ms(began.elapsed().as_millis() as i64);
        let end = tokio::select! {
            biased;
            end = after_commit(self.monitor) => Some(end),
            end = self.inner(began, place, store, opened) => end,
        };
        let end = if self.monitor.stopped() { End::Halted } else { end.unwrap_or(End::Died) };
        (end, true_now(self.begins))
    }

    async fn inner(&self, began: Instant, place: Place, store: Store, opened: Opened) -> Option<End> {
        let mut rng = self.plan.stream("life", self.number);
        let system = match unless_ended(self.monitor, self.assemble(began, place, store, opened)).await? {
            Ok(system) => system,
            Err(error) => {
                fatal(&format!("the program cannot start: {error:#}"));
                return None;
            }
        };
        let (end, length_ms) = self.fate(&mut rng);
        let over = began + Duration::from_millis(length_ms);
        let mut clock_rng = self.plan.stream("clock", self.number);
        let jumps = self.plan.faults.has(Fault::Clock);
        let mut next_jump = began + Duration::from_millis(clock_rng.random_range(MINUTE..12 * HOUR));
        let mut next_look = began + Duration::from_millis(rng.random_range(MINUTE..HOUR));
        loop {
            let next = if jumps { next_jump.min(next_look) } else { next_look }.min(over);
            unless_ended(self.monitor, sleep_until(next)).await?;
            self.monitor.compare(&system.view.read());
            if next == over {
                break;
            }
            if jumps && next == next_jump {
                self.jump(&mut clock_rng);
                next_jump = next + Duration::from_millis(clock_rng.random_range(MINUTE..24 * HOUR));
            }
            if next == next_look {
                self.look(&system).await?;
                let pause_ms = self.operator.borrow_mut().act(&system, self.plan, self.monitor);
                next_look = next + Duration::from_millis(pause_ms);
            }
        }
        match end {
            End::Over(_) => {
                self.look(&system).await?;
                let state = system.view.read().clone();
                self.monitor.compare(&state);
                Some(End::Over(Box::new(state)))
            }
            End::Stopped => {
                let drained = unless_ended(self.monitor, try_drain(&system)).await?;
                if let Err(error) = drained {
                    self.monitor.fail(format!("a clean stop failed: {error:#}"));
                }
                Some(End::Stopped)
            }
            end => {
                // Not only between instants: somewhere within the chain of messages of this one.
                for _ in 0..rng.random_range(0..60) {
                    tokio::task::yield_now().await;
                }
                Some(end)
            }
        }
    }

    /// The counters of the scheduler must agree with each other.
    async fn look(&self, system: &System) -> Option<()> {
        let stats = unless_ended(self.monitor, system.coordinator.send(GetStats)).await?;
        match stats.map(|stats| stats.checked) {
            Ok(Ok(())) => {}
            Ok(Err(what)) => self.monitor.fail(format!("the scheduler's counters: {what}")),
            Err(error) => self.monitor.fail(format!("the coordinator does not answer: {error}")),
        }
        self.monitor.compare(&system.view.read());
        Some(())
    }

    /// How and after how many milliseconds this process ends.
    fn fate(&self, rng: &mut ChaCha8Rng) -> (End, u64) {
        let left = self.horizon.since_ms(self.begins).max(0).unsigned_abs();
        if !self.plan.faults.has(Fault::Crash) {
            return (End::Over(Box::default()), left);
        }
        let length = match rng.random_range(0..10) {
            0 => rng.random_range(0..10_000),
            1 | 2 => rng.random_range(0..HOUR),
            _ => rng.random_range(HOUR..48 * HOUR),
        };
        let end = match rng.random_range(0..10) {
            0..4 => End::Killed,
            4..8 => End::PowerCut,
            _ => End::Stopped,
        };
        if length >= left { (End::Over(Box::default()), left) } else { (end, length) }
    }

    fn jump(&self, rng: &mut ChaCha8Rng) {
        let size = match rng.random_range(0..4) {
            0 => rng.random_range(0..5_000),
            1 => rng.random_range(0..10 * MINUTE_MS),
            2 => rng.random_range(0..3 * HOUR_MS),
            // Somebody sets the clock right.
            _ => return self.wall_offset.set(0),
        };
        self.wall_offset.set(if rng.random_bool(0.5) { size } else { -size });
    }

    async fn assemble(&self, began: Instant, place: Place, store: Store, opened: Opened) -> anyhow::Result<System> {
        let settings = Rc::new(self.loaded.settings.clone());
        let (offset, begins) = (Rc::clone(self.wall_offset), self.begins);
        let wall = move || begins.plus_ms(began.elapsed().as_millis() as i64 + offset.get());
        let outside = Outside {
            notifier: None,
            wall: self.plan.faults.has(Fault::Clock).then(|| Rc::new(wall) as Rc<dyn Fn() -> Ts>),
            free_space: None,
            audit: None,
            venue: None,
            verified_at: None,
            persisted: opened.last_logical_time,
            // Timers of a second would be most of what a simulated year is spent on; some seeds keep them.
            seldom: self.plan.seldom(),
        };
        let state = store.state();
        let (of, now) = ((state.meta.seed, state.meta.created_at), place.clock.now());
        let (market, feed) = self.history.borrow_mut().begin(self.plan, &settings, of, opened.gap_from, now)?;
        let feed: Box<dyn Feed> = if self.plan.faults.has(Fault::Feed) {
            Box::new(FaultyFeed::new(feed, self.plan.stream("feed", self.number)))
        } else {
            Box::new(feed)
        };
        let (plan, number) = (self.plan.clone(), self.number);
        let venue = FaultyPaper::new(&settings, feed.name(), &plan, number);
        let links = move |links| agents::install(links, &plan, number);
        let ingredients = Ingredients {
            settings,
            config_hash: self.loaded.hash.clone(),
            place,
            store,
            opened,
            feed,
            outside,
            volatile: false,
            on_end: Silent.start().recipient(),
            on_fatal: fatal,
            seams: Seams {
                venue: Some(Box::new(venue)),
                links: Some(Box::new(links)),
                market: Some(market),
                ..Seams::default()
            },
        };
        system::assemble(ingredients).await
    }
}

const MINUTE: u64 = MINUTE_MS.unsigned_abs();
const HOUR: u64 = HOUR_MS.unsigned_abs();
