//! The coordinator: feeds the pure scheduler with ticks and answers, carries out what it says, and accepts results.
//!
//! It never waits for an agent, a disk or the network: everything comes back as a message. Its panic ends the process.

mod accept;
pub mod announce;
mod audit;
pub mod command_desk;
mod guard;
pub mod heartbeat;
mod lane;
pub mod messages;
mod money;
pub mod notes;
pub mod operate;
mod pipeline;
mod report;
pub mod resolver;
pub mod runs;
pub mod timekeeper;
pub mod watch;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, Recipient};
use actix_rt::task::JoinHandle;
use tokio::{sync::watch::Receiver, task::AbortHandle};

use self::{
    command_desk::CommandAnswered,
    notes::Notes,
    resolver::Resolve,
    runs::{Arrived, Reply},
    timekeeper::{Outside, Timekeeper},
};
use super::{
    consensus, decision,
    degradation::Degradation,
    describe, disputed, emergency,
    feed_watch::FeedWatch,
    invariants,
    opinions::{self, Opinions},
    resolution,
    schedule::{self, Effect, Gates, Input, RunRequest, Scheduler},
    states, status, watchdog,
};
use crate::{
    agents::{
        actor::{RunPortfolio, RunRegime, RunSentiment, RunTechnical, RunTrading},
        worst_case,
    },
    bus::{Payload, actor::Publisher},
    execution::actor::ExecutionActor,
    llm::{actor::ReadModels, rations::WorstCases},
    market::actor::{MarketActor, ReadSnapshot},
    model::{
        Capability, Clock, DecisionId, DegradationLevel, EmergencyKey, Event, PositionId, Recovered, RunId, RunKey,
        RunOutcome, SkipReason, Symbol, TaskName, TradeKey, Ts,
    },
    risk::{
        RiskRules,
        actor::{Reserve, RiskActor},
        board::Prices,
    },
    runtime::{
        alarm::{self, Alarm, Alarmed},
        clock::LogicalClock,
        failpoint, task,
    },
    settings::Settings,
    store::{
        actor::{Commit, StoreActor},
        view::StateView,
    },
};

/// Addresses of everyone the coordinator talks to.
#[derive(Clone)]
pub struct Links {
    /// The only writer.
    pub store: Addr<StoreActor>,
    /// Snapshots.
    pub market: Addr<MarketActor>,
    /// Checks and reservations.
    pub risk: Addr<RiskActor>,
    /// Orders.
    pub execution: Addr<ExecutionActor>,
    /// Topics.
    pub bus: Publisher,
    /// The market once more, as the one who answers with snapshots.
    pub snapshots: Recipient<ReadSnapshot>,
    /// Risk once more, as the one who reserves.
    pub reserve: Recipient<Reserve>,
    /// Agent.
    pub technical: Recipient<RunTechnical>,
    /// Agent.
    pub regime: Recipient<RunRegime>,
    /// Agent.
    pub sentiment: Recipient<RunSentiment>,
    /// Agent.
    pub trading: Recipient<RunTrading>,
    /// Agent.
    pub portfolio: Recipient<RunPortfolio>,
    /// Settles conflicts.
    pub resolver: Recipient<Resolve>,
    /// Hears the answers to commands.
    pub answers: Recipient<CommandAnswered>,
    /// Whether risk has the account state: not between a panic and the end of its rebuilding.
    pub risk_ready: Receiver<bool>,
    /// Called for a panic in a future that belongs to no actor.
    pub on_fatal: fn(&str),
}

impl Links {
    /// Spawns what the coordinator asked for and does not wait for; its panic ends the process like the coordinator's.
    pub(super) fn spawn<F: Future<Output = ()> + 'static>(&self, what: &'static str, future: F) -> JoinHandle<()> {
        task::guarded(what, self.on_fatal, future)
    }
}

/// Everything the coordinator is made of.
pub struct Parts {
    /// What the program is told.
    pub settings: Rc<Settings>,
    /// Logical time.
    pub clock: LogicalClock,
    /// Newest durable state.
    pub view: StateView,
    /// Newest prices.
    pub prices: Prices,
    /// Who to talk to.
    pub links: Links,
    /// Parsed rules.
    pub risk_rules: Rc<RiskRules>,
    /// Restored from the state and the data beside it.
    pub scheduler: Scheduler,
    /// What restoring asks for.
    pub effects: Vec<Effect>,
    /// Restored from the data beside the state.
    pub opinions: Opinions,
    /// What this boot found.
    pub recovered: Recovered,
    /// The store is a copy, or was moved or restored, and is not adopted yet.
    pub moved: bool,
    /// The global degradation level, read by execution.
    pub level: Rc<Cell<DegradationLevel>>,
    /// Wall clock and free space.
    pub outside: Outside,
    /// Nothing outlives the process (backtest): no notes beside the truth are written.
    pub volatile: bool,
    /// Who knows how the providers of models are; absent when no chain is configured.
    pub models: Option<Recipient<ReadModels>>,
    /// Called for a broken invariant the process must not go on with.
    pub on_fatal: fn(&str),
}

/// A cancelled run is listened to for so long, milliseconds.
const LISTEN_MS: i64 = 60_000;

/// The coordinator actor.
pub struct Coordinator {
    pub(super) settings: Rc<Settings>,
    pub(super) clock: LogicalClock,
    pub(super) view: StateView,
    pub(super) prices: Prices,
    pub(super) links: Rc<Links>,
    pub(super) risk_rules: Rc<RiskRules>,
    pub(super) scheduler: Scheduler,
    pub(super) opinions: Opinions,
    pub(super) recovered: Recovered,
    pub(super) degradation: Degradation,
    pub(super) level_cell: Rc<Cell<DegradationLevel>>,
    pub(super) feeds: FeedWatch,
    pub(super) last_probe: Option<Ts>,
    pub(super) marking: BTreeSet<DecisionId>,
    pub(super) forced: Option<Result<(), (&'static str, String)>>,
    pub(super) draining: bool,
    /// The store is not adopted yet: nothing leads out of HALTED but adopting it.
    pub(super) moved: bool,
    lane: lane::Lane,
    pub(super) switches: BTreeMap<TaskName, bool>,
    /// Emergency trades under way, by position.
    pub(super) closing: BTreeMap<PositionId, (EmergencyKey, Option<TradeKey>)>,
    /// Positions whose last emergency step is being recorded; until it is durable nothing new is ordered for them.
    pub(super) stepping: BTreeSet<PositionId>,
    /// Emergencies whose end is being recorded.
    pub(super) finishing: BTreeSet<String>,
    /// Commands that are not durable yet, by key: hash of the body and the answer to come.
    pub(super) operating: BTreeMap<String, (String, operate::Answering)>,
    pub(super) started_real: std::time::Instant,
    pub(super) volatile: bool,
    pub(super) models: Option<Recipient<ReadModels>>,
    time: Timekeeper,
    effects: Vec<Effect>,
    /// The reply whose report is being stepped right now.
    arrived: Option<(RunId, Reply)>,
    running: BTreeMap<RunId, AbortHandle>,
    alarm: Alarm,
    heartbeat: Option<heartbeat::Heartbeat>,
    guard: guard::Guard,
    /// Notes beside the truth not handed to the store yet.
    pub(super) notes: Notes,
    last_gates: Option<Gates>,
    worst_cases: WorstCases,
    /// Actors that are gone until the next start.
    given_up: BTreeSet<&'static str>,
    /// Day on which it was told that a task is not paid.
    told_unpaid: BTreeMap<TaskName, i64>,
    /// Newest skip reason by key, for `status`.
    pub(super) last_skip: BTreeMap<RunKey, SkipReason>,
    /// Newest outcome by key, for `status`.
    pub(super) last_outcome: BTreeMap<RunKey, &'static str>,
}

impl Coordinator {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Coordinator {
        let stored = parts.view.read().coordinator.degradation.clone();
        let mut capabilities = vec![Capability::MarketData, Capability::Venue];
        // A capability without a provider does not exist.
        capabilities.extend((!parts.settings.chains.is_empty()).then_some(Capability::Llm));
        let degradation = Degradation::new(&capabilities, &stored, &parts.settings.degradation, parts.clock.now());
        parts.level.set(degradation.global());
        let guard = guard::Guard::new(parts.view.read().coordinator.state, parts.on_fatal);
        let notes = Notes::knowing(parts.scheduler.pasts());
        let worst_cases = worst_case::of(&parts.settings);
        Coordinator {
            settings: parts.settings,
            clock: parts.clock,
            view: parts.view,
            prices: parts.prices,
            links: Rc::new(parts.links),
            risk_rules: parts.risk_rules,
            scheduler: parts.scheduler,
            opinions: parts.opinions,
            recovered: parts.recovered,
            degradation,
            level_cell: parts.level,
            feeds: FeedWatch::default(),
            last_probe: None,
            marking: BTreeSet::new(),
            forced: None,
            draining: false,
            moved: parts.moved,
            lane: lane::Lane::default(),
            switches: BTreeMap::new(),
            closing: BTreeMap::new(),
            stepping: BTreeSet::new(),
            finishing: BTreeSet::new(),
            operating: BTreeMap::new(),
            started_real: std::time::Instant::now(),
            volatile: parts.volatile,
            models: parts.models,
            time: Timekeeper::new(parts.outside),
            effects: parts.effects,
            arrived: None,
            running: BTreeMap::new(),
            alarm: Alarm::default(),
            notes,
            heartbeat: None,
            guard,
            last_gates: None,
            worst_cases,
            given_up: BTreeSet::new(),
            told_unpaid: BTreeMap::new(),
            last_skip: BTreeMap::new(),
            last_outcome: BTreeMap::new(),
        }
    }

    /// The global degradation level.
    pub(super) fn level(&self) -> DegradationLevel {
        self.degradation.global()
    }

    /// One step of the scheduler and everything it asks for.
    pub(super) fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        let gates = self.gates();
        if self.last_gates != Some(gates) {
            self.last_gates = Some(gates);
            self.scheduler.step(now, Input::Gates(gates), &mut effects);
        }
        self.scheduler.step(now, input, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(effect, now, ctx);
        }
        self.effects = effects;
        self.arm();
    }

    fn carry_out(&mut self, effect: Effect, now: Ts, ctx: &mut Context<Self>) {
        match effect {
            Effect::Start(request) => self.start_run(request, ctx),
            Effect::Cancel { key, run_id } => {
                if let Some(handle) = self.running.remove(&run_id) {
                    self.let_go(key, run_id, handle, ctx);
                }
            }
            Effect::Ended { key, run_id, outcome, inputs, tags, .. } => {
                self.running.remove(&run_id);
                self.last_outcome.insert(key, outcome_name(&outcome));
                let reply = self.arrived.take_if(|(arrived, _)| *arrived == run_id).map(|(_, reply)| reply);
                if let RunOutcome::Failed(cause) = &outcome {
                    self.note(now, "task_error", [("task", key.to_string()), ("cause", cause.message.clone())]);
                } else if let RunOutcome::TimedOut(which) = &outcome {
                    self.note(
                        now,
                        "task_error",
                        [("task", key.to_string()), ("cause", format!("timeout of the {which}"))],
                    );
                }
                self.ended(key, run_id, outcome, &inputs, tags, reply, ctx);
            }
            Effect::Skip { key, reason, .. } => self.skipped(key, reason),
            Effect::Missed { key, count } => {
                self.note(now, "missed", [("task", key.to_string()), ("slots", count.to_string())]);
            }
            Effect::Starved { key, recovered } => {
                let what = if recovered { "task_recovered" } else { "task_starved" };
                self.note(now, what, [("task", key.to_string()), ("symbol", key.symbol.to_string())]);
            }
            Effect::IntervalTooShort { key, overlaps } => {
                self.note(now, "interval_too_short", [("task", key.to_string()), ("overlaps", overlaps.to_string())]);
            }
            Effect::Blocked { key, dependency, reason } => {
                let facts =
                    [("task", key.to_string()), ("by", dependency.to_string()), ("why", reason.name().to_owned())];
                self.note(now, "blocked", facts);
            }
            Effect::Quarantined { key, until, reason, count } => {
                self.record("coordinator", vec![Event::Quarantined { key, until, reason, count }]);
            }
            Effect::QuarantineEnded { key } => self.record("coordinator", vec![Event::QuarantineEnded { key }]),
            Effect::LateResult { .. } | Effect::Retry { .. } | Effect::Pulled { .. } | Effect::Unblocked { .. } => {}
            Effect::ForcedAccepted { .. } => self.answered_force(Ok(())),
            Effect::ForcedRefused { code, reason, .. } => self.answered_force(Err((code, reason))),
            Effect::ForcedEnded { .. } => {}
        }
    }

    /// Claims durably where money may follow, then asks the agent.
    fn start_run(&mut self, request: RunRequest, ctx: &mut Context<Self>) {
        let claim = if request.key.task.is_money_relevant() {
            let events = vec![Event::RunClaimed { marker: request.marker() }];
            failpoint::effect("commit.claim", "");
            // On its way before anything can end the run: a clock that jumps now must not put the end in front of it.
            Some(Box::pin(self.links.store.send(Commit(self.batch("coordinator", request.run_id.to_string(), events)))))
        } else {
            if !self.volatile {
                self.notes.began(request.marker(), self.clock.now());
            }
            None
        };
        let run_id = request.run_id;
        let supply = self.supply(request.key.symbol);
        let work = runs::perform(request, claim, Rc::clone(&self.links), supply, ctx.address());
        self.running.insert(run_id, self.links.spawn("coordinator.run", work).abort_handle());
    }

    /// Nobody waits for a cancelled run any more, but what it says within a while is counted as late (B7). Agents have
    /// no side effects, so ending it in the middle is safe.
    fn let_go(&self, key: RunKey, run_id: RunId, handle: AbortHandle, ctx: &mut Context<Self>) {
        if self.draining {
            return handle.abort();
        }
        let until = self.clock.now().plus_ms(LISTEN_MS);
        ctx.run_later(self.clock.until(until), move |actor, ctx| {
            handle.abort();
            if let Some(id) = actor.scheduler.key_id(key) {
                actor.step(Input::Cancelled { id, run_id }, ctx);
            }
        });
    }

    /// Wakes at the earliest instant anything can change.
    pub(super) fn arm(&mut self) {
        let next = [self.scheduler.next_wakeup(), self.own_wakeup()].into_iter().flatten().min();
        if next.is_some() {
            self.alarm.set(next, &self.clock);
        }
    }

    /// Records an event without effect on the state.
    pub(super) fn note<const N: usize>(&mut self, _now: Ts, what: &str, facts: [(&str, String); N]) {
        let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.record("coordinator", vec![Event::Noted { what: what.to_owned(), facts }]);
    }

    /// Publishes on the bus.
    pub(super) fn publish(&self, symbol: Option<Symbol>, payload: Payload) {
        self.links.bus.publish("coordinator", symbol, payload);
    }

    /// The accepted inputs a run is given, by value.
    fn supply(&self, symbol: Symbol) -> runs::Supply {
        runs::Supply {
            settings: Rc::clone(&self.settings),
            clock: self.clock.clone(),
            view: self.view.clone(),
            prices: self.prices.clone(),
            level: self.level(),
            ta: self.opinions.ta.get(&symbol).cloned(),
            regime: self.opinions.regime.get(&symbol).cloned(),
            sentiment: self.opinions.sentiment.get(&symbol).cloned(),
        }
    }

    /// Remembers what the scheduler said to a forced run, for the command that asked.
    fn answered_force(&mut self, answer: Result<(), (&'static str, String)>) {
        self.forced = Some(answer);
    }
}

/// The word `status` shows for an outcome.
pub(super) const fn outcome_name(outcome: &RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Succeeded => "succeeded",
        RunOutcome::Abstained(_) => "abstained",
        RunOutcome::Failed(_) => "failed",
        RunOutcome::TimedOut(_) => "timed_out",
        RunOutcome::Interrupted => "interrupted",
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        alarm::install(ctx);
        let now = self.clock.now();
        for effect in std::mem::take(&mut self.effects) {
            self.carry_out(effect, now, ctx);
        }
        self.after_boot(ctx);
        self.begin_watching(ctx);
        self.housekeeping(ctx);
        self.step(Input::Tick, ctx);
    }
}

impl Alarmed for Coordinator {
    fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    fn rung(&mut self, ctx: &mut Context<Self>) {
        self.housekeeping(ctx);
        self.step(Input::Tick, ctx);
    }
}

impl Handler<Arrived> for Coordinator {
    type Result = ();
    fn handle(&mut self, arrived: Arrived, ctx: &mut Context<Self>) {
        if let Some(reply) = arrived.reply {
            self.arrived = Some((arrived.report.run_id, reply));
        }
        self.step(Input::Finished(arrived.report), ctx);
        self.arrived = None;
    }
}

/// Stop admitting, cancel analysis; answered when nothing runs any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

impl Handler<Drain> for Coordinator {
    type Result = ();
    fn handle(&mut self, _: Drain, ctx: &mut Context<Self>) {
        self.note_time();
        self.draining = true;
        self.step(Input::Drain, ctx);
        self.flush_notes();
    }
}

/// Something durable changed that the coordinator may have to act on.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct LookAgain;

impl Handler<LookAgain> for Coordinator {
    type Result = ();
    fn handle(&mut self, _: LookAgain, ctx: &mut Context<Self>) {
        self.look_again(ctx);
    }
}
