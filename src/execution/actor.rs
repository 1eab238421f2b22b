//! Execution as an actor: asks `work::next` after every commit, price and wake-up, and commits what it says, one batch
//! at a time. Its panic ends the process; the same question at the next start is the recovery.

pub mod desk;

use std::{cell::Cell, collections::VecDeque, rc::Rc};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Recipient, ResponseFuture, SpawnHandle,
    WrapFuture,
};
use tokio::sync::oneshot;

use super::{
    Violation, intent,
    remote::{RemoteVenue, Talks},
    restart::Gap,
    venue::{PaperVenue, Venue},
    work::{self, Desk, Next, Ticks, Work},
};
use crate::{
    model::{
        Clock, CoordinatorState, DecisionEnd, DecisionId, DegradationLevel, EmergencyKey, Event, ExitCause, PositionId,
        PriceTick, Qty, RiskCode, RiskRefusal, Symbol, TradeKey, Ts,
    },
    risk::{RiskRules, actor::Mark, board::Prices},
    runtime::{clock::LogicalClock, failpoint, post::post},
    settings::Settings,
    store::{
        GAP_FROM, META,
        actor::{AuxRow, AuxWrite, Commit, StoreActor},
        batch::{Batch, CommitResult, Expectation},
        view::StateView,
    },
};

/// Commit nothing more: the program stops. What is under way goes on at the next start.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Stop;

/// A new price.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Tick(pub PriceTick);

/// Something durable changed that execution may have to act on (a plan, a state, a level).
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct LookAgain;

/// Logical time jumped ahead of timers that were set before.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct ClockMoved;

/// Makes the entry of an approved decision. The events of the decision are part of the intent's commit.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Placed, String>")]
pub struct Place {
    /// What to order.
    pub order: intent::EntryOrder,
    /// `Sized`, `RiskApproved`.
    pub events: Vec<Event>,
}

/// What became of a `Place`.
#[derive(Clone, PartialEq, Debug)]
pub enum Placed {
    /// The intent is durable.
    Intent(TradeKey),
    /// Not made, with the end that was recorded.
    Ended(DecisionEnd),
}

/// Closes or reduces a position.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<TradeKey, String>")]
pub struct Exit {
    /// Which position.
    pub position: PositionId,
    /// Base units; the whole position when absent.
    pub quantity: Option<Qty>,
    /// What for.
    pub purpose: Purpose,
    /// The decision it ends, with what was recorded for it so far.
    pub decision: Option<(DecisionId, Vec<Event>)>,
}

/// What an exit is made for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// A signal.
    Signal,
    /// A step of an emergency, with its attempt.
    Emergency(EmergencyKey, u32),
}

/// Cancels the resting entries of a symbol; answered when it is durable.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct CancelEntries {
    /// Which symbol.
    pub symbol: Symbol,
    /// Why.
    pub reason: String,
}

enum Request {
    Cancel(CancelEntries, oneshot::Sender<()>),
    Place(Box<Place>, oneshot::Sender<Result<Placed, String>>),
    Exit(Box<Exit>, oneshot::Sender<Result<TradeKey, String>>),
}

enum Waiting {
    Cancel(oneshot::Sender<()>),
    Place(oneshot::Sender<Result<Placed, String>>, Placed),
    Exit(oneshot::Sender<Result<TradeKey, String>>, TradeKey),
}

/// Everything execution is made of.
pub struct Parts {
    /// What the program is told.
    pub settings: Rc<Settings>,
    /// Logical time.
    pub clock: LogicalClock,
    /// Newest durable state.
    pub view: StateView,
    /// Newest prices.
    pub prices: Prices,
    /// The only writer.
    pub store: Addr<StoreActor>,
    /// Cooldowns, streaks and limits of a close.
    pub rules: Rc<RiskRules>,
    /// The global degradation level, written by the coordinator.
    pub level: Rc<Cell<DegradationLevel>>,
    /// Name of the feed, the first part of price ids.
    pub feed: String,
    /// Where orders are executed; the paper venue when absent.
    pub venue: Option<Box<dyn Venue>>,
    /// Who is asked over a wire instead; nothing in any mode of this release.
    pub remote: Option<Rc<dyn RemoteVenue>>,
    /// Who marks the account.
    pub risk: Recipient<Mark>,
    /// What the feed showed while the process was down.
    pub gap: Gap,
    /// Called for a broken invariant.
    pub on_fatal: Rc<dyn Fn(String)>,
    /// The store takes nothing: nothing is carried out, because nothing could be recorded.
    pub read_only: bool,
}

/// The execution actor.
pub struct ExecutionActor {
    parts: Parts,
    venue: Box<dyn Venue>,
    ticks: Ticks,
    requests: VecDeque<Request>,
    busy: bool,
    stopped: bool,
    alarm: Option<(Ts, SpawnHandle)>,
}

impl ExecutionActor {
    /// Puts the parts together.
    pub fn new(mut parts: Parts) -> ExecutionActor {
        let venue: Box<dyn Venue> = match (parts.venue.take(), &parts.remote) {
            (_, Some(_)) => Box::new(Talks::default()),
            (Some(venue), None) => venue,
            (None, None) => Box::new(PaperVenue::new(&parts.settings, parts.feed.clone())),
        };
        ExecutionActor {
            stopped: parts.read_only,
            parts,
            venue,
            ticks: Ticks::default(),
            requests: VecDeque::new(),
            busy: false,
            alarm: None,
        }
    }

    fn drive(&mut self, ctx: &mut Context<Self>) {
        while !self.busy && !self.stopped {
            match self.work_off_gap() {
                Ok(None) => {}
                Ok(Some(work)) => {
                    self.commit(work, None, ctx);
                    continue;
                }
                Err(Violation(what)) => return (self.parts.on_fatal)(format!("execution: {what}")),
            }
            if let Some(request) = self.requests.pop_front() {
                self.serve(request, ctx);
                continue;
            }
            let now = self.parts.clock.now();
            let next = {
                let board = self.parts.prices.read();
                let desk = Desk {
                    settings: &self.parts.settings,
                    rules: &self.parts.rules,
                    board: &board,
                    level: self.parts.level.get(),
                    now,
                };
                work::next(&self.parts.view.read(), &mut self.ticks, self.venue.as_mut(), &desk)
            };
            self.make_calls(ctx);
            match next {
                Ok(Next::Commit(work)) => self.commit(work, None, ctx),
                Ok(Next::Idle(until)) => {
                    self.arm(until, ctx);
                    return;
                }
                Err(Violation(what)) => {
                    (self.parts.on_fatal)(format!("execution: {what}"));
                    return;
                }
            }
        }
    }

    /// The downtime comes first; when it is worked off, the note of where it began goes.
    fn work_off_gap(&mut self) -> Result<Option<Work>, Violation> {
        if self.parts.gap.is_over() {
            return Ok(None);
        }
        let board = self.parts.prices.read();
        let desk = Desk {
            settings: &self.parts.settings,
            rules: &self.parts.rules,
            board: &board,
            level: self.parts.level.get(),
            now: self.parts.clock.now(),
        };
        let work = self.parts.gap.next(&self.parts.view.read(), self.venue.as_mut(), &desk)?;
        if work.is_none() && self.parts.gap.is_over() {
            let row = AuxRow::remove(META, GAP_FROM.to_owned());
            post("store", &self.parts.store, AuxWrite(vec![row]));
        }
        Ok(work)
    }

    fn commit(&mut self, work: Work, waiting: Option<Waiting>, ctx: &mut Context<Self>) {
        self.busy = true;
        let fill = work.events.iter().any(|event| matches!(event, Event::TradeFill { .. }));
        let claimed = work::claimed_legs(&self.parts.view.read(), &work.events);
        let mut batch = Batch::new("execution", work.corr, work.cause, self.parts.clock.now(), work.events);
        let planned = claimed.into_iter().map(|(plan, leg)| Expectation::LegPlanned(plan, leg));
        // A pause or halt may be on its way to the store: then nothing is sent, and the next look sees it.
        let gated = work::needs_running(&self.parts.view.read(), &batch.events);
        let gate = gated.then_some(Expectation::CoordinatorState(CoordinatorState::Running));
        let expected: Vec<Expectation> = planned.chain(gate).collect();
        let contested = !expected.is_empty();
        if contested {
            batch = batch.expecting(Expectation::All(expected));
        }
        failpoint::effect("commit.execution", "");
        let request = self.parts.store.send(Commit(batch));
        ctx.spawn(request.into_actor(self).map(move |answer, actor, ctx| {
            actor.busy = false;
            actor.committed(answer, fill, contested, waiting);
            actor.drive(ctx);
        }));
    }

    fn committed(
        &mut self,
        answer: Result<CommitResult, actix::MailboxError>,
        fill: bool,
        contested: bool,
        waiting: Option<Waiting>,
    ) {
        if contested && matches!(answer, Ok(Err(_))) {
            // The operator or a decision was faster with a leg: the next look sees what is left.
            return;
        }
        let failure = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(refused)) => Some(refused.to_string()),
            Err(_) => Some("the store does not answer".to_owned()),
        };
        if let Some(reason) = &failure {
            // Execution alone owns trades, so a refusal means that two owners exist. Nothing is tried again.
            self.stopped = true;
            (self.parts.on_fatal)(format!("execution: {reason}"));
        } else if fill {
            post("risk", &self.parts.risk, Mark { tick: None });
        }
        // A caller that went away does not need the answer; what is durable stays durable.
        match waiting {
            Some(Waiting::Place(sender, placed)) => drop(sender.send(failure.map_or(Ok(placed), Err))),
            Some(Waiting::Exit(sender, key)) => drop(sender.send(failure.map_or(Ok(key), Err))),
            Some(Waiting::Cancel(sender)) => {
                let _ = sender.send(());
            }
            None => {}
        }
    }

    fn arm(&mut self, until: Option<Ts>, ctx: &mut Context<Self>) {
        if self.alarm.as_ref().map(|(at, _)| *at) == until {
            return;
        }
        if let Some((_, handle)) = self.alarm.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = until {
            let handle = ctx.run_later(self.parts.clock.until(at), |actor, ctx| {
                actor.alarm = None;
                actor.drive(ctx);
            });
            self.alarm = Some((at, handle));
        }
    }

    fn serve(&mut self, request: Request, ctx: &mut Context<Self>) {
        match request {
            Request::Cancel(cancel, sender) => {
                let events = intent::cancel_entries(&self.parts.view.read(), Some(cancel.symbol), &cancel.reason);
                if events.is_empty() {
                    let _ = sender.send(());
                } else {
                    let work = Work { events, corr: cancel.symbol.to_string(), cause: "cancel".into() };
                    self.commit(work, Some(Waiting::Cancel(sender)), ctx);
                }
            }
            Request::Place(place, sender) => match self.place(*place) {
                Ok((work, placed)) => self.commit(work, Some(Waiting::Place(sender, placed)), ctx),
                Err(reason) => drop(sender.send(Err(reason))),
            },
            Request::Exit(exit, sender) => match self.exit(*exit) {
                Ok((work, key)) => self.commit(work, Some(Waiting::Exit(sender, key)), ctx),
                Err(reason) => drop(sender.send(Err(reason))),
            },
        }
    }

    /// The intent of an entry with the events of its decision; the gate is read once more, with nothing in between.
    fn place(&self, place: Place) -> Result<(Work, Placed), String> {
        let now = self.parts.clock.now();
        let state = self.parts.view.read();
        let order = &place.order;
        let decision = order.decision;
        let mut events = place.events;
        let gate = intent::gate(&state, order.symbol, self.parts.level.get());
        let end = match gate {
            Some(reason) => DecisionEnd::Suppressed(reason.to_owned()),
            None => {
                let rules = self.parts.settings.market.symbol.get(&order.symbol);
                let rules = rules.ok_or_else(|| format!("{} has no rounding rules", order.symbol))?;
                let execution = &self.parts.settings.execution;
                let trade =
                    intent::entry(state.meta.store, order, rules, execution, now).map_err(|violation| violation.0)?;
                let key = trade.key;
                // A leg may have taken funds since risk looked; the lock must fit what is free now.
                if let Some(measured) = intent::unaffordable(&state, &trade, rules) {
                    let limit = "what is free at the intent".to_owned();
                    DecisionEnd::Refused(RiskRefusal { code: RiskCode::InsufficientFunds, measured, limit })
                } else {
                    events.extend(intent::cancel_entries(&state, Some(order.symbol), "replaced by a newer signal"));
                    match intent::insert(&state, trade) {
                        intent::Insertion::New(intent) => {
                            events.push(*intent);
                            DecisionEnd::Traded(key)
                        }
                        intent::Insertion::Existing(_) => {
                            // The first trade of this key holds what it needs already.
                            events.retain(|event| !matches!(event, Event::RiskApproved { .. }));
                            DecisionEnd::Traded(key)
                        }
                        intent::Insertion::Conflict(alert) => {
                            events = vec![*alert];
                            DecisionEnd::NothingToDo("the trade key exists with another body".to_owned())
                        }
                    }
                }
            }
        };
        let placed = match &end {
            DecisionEnd::Traded(key) => Placed::Intent(*key),
            other => {
                // Nothing is held for a trade that is not made.
                events.retain(|event| !matches!(event, Event::RiskApproved { .. }));
                Placed::Ended(other.clone())
            }
        };
        events.push(Event::DecisionEnded { decision, end, reason: None });
        Ok((Work { events, corr: decision.to_string(), cause: "decision".into() }, placed))
    }

    fn exit(&self, exit: Exit) -> Result<(Work, TradeKey), String> {
        let now = self.parts.clock.now();
        let state = self.parts.view.read();
        let position = state.positions.get(&exit.position);
        let position = position.ok_or_else(|| format!("position {} is not open any more", exit.position))?;
        if let Some(under_way) = position.exiting {
            return Err(format!("position {} is being closed by {}", exit.position, under_way.short()));
        }
        let rules = self.parts.settings.market.symbol.get(&position.symbol);
        let rules = rules.ok_or_else(|| format!("{} has no rounding rules", position.symbol))?;
        let quantity = exit.quantity.unwrap_or(position.quantity);
        let purpose = match exit.purpose {
            Purpose::Signal => intent::ExitFor::Cause(ExitCause::Signal),
            Purpose::Emergency(key, attempt) => intent::ExitFor::Emergency(key, attempt),
        };
        let mut trade =
            intent::exit(state.meta.store, position, purpose, quantity, rules, now).map_err(|violation| violation.0)?;
        let (decision, mut events) = exit.decision.map_or((None, Vec::new()), |(id, events)| (Some(id), events));
        trade.decision = decision;
        let key = trade.key;
        match intent::insert(&state, trade) {
            intent::Insertion::New(intent) => events.push(*intent),
            intent::Insertion::Existing(_) => {}
            intent::Insertion::Conflict(alert) => events.push(*alert),
        }
        if let Some(decision) = decision {
            events.push(Event::DecisionEnded { decision, end: DecisionEnd::Traded(key), reason: None });
        }
        let corr = decision.map_or_else(|| exit.position.to_string(), |decision| decision.to_string());
        Ok((Work { events, corr, cause: exit.position.to_string() }, key))
    }
}

impl Actor for ExecutionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.drive(ctx);
    }
}

impl Handler<Tick> for ExecutionActor {
    type Result = ();
    fn handle(&mut self, tick: Tick, ctx: &mut Context<Self>) {
        if self.stopped {
            return;
        }
        self.ticks.push(tick.0);
        self.drive(ctx);
        post("risk", &self.parts.risk, Mark { tick: Some(tick.0) });
    }
}

impl Handler<LookAgain> for ExecutionActor {
    type Result = ();
    fn handle(&mut self, _: LookAgain, ctx: &mut Context<Self>) {
        self.drive(ctx);
    }
}

impl Handler<ClockMoved> for ExecutionActor {
    type Result = ();
    fn handle(&mut self, _: ClockMoved, ctx: &mut Context<Self>) {
        if let Some((_, handle)) = self.alarm.take() {
            ctx.cancel_future(handle);
        }
        self.drive(ctx);
    }
}

impl Handler<Place> for ExecutionActor {
    type Result = ResponseFuture<Result<Placed, String>>;
    fn handle(&mut self, place: Place, ctx: &mut Context<Self>) -> Self::Result {
        let (sender, answer) = oneshot::channel();
        self.requests.push_back(Request::Place(Box::new(place), sender));
        self.drive(ctx);
        Box::pin(async { answer.await.unwrap_or_else(|_| Err("execution stopped".to_owned())) })
    }
}

impl Handler<Exit> for ExecutionActor {
    type Result = ResponseFuture<Result<TradeKey, String>>;
    fn handle(&mut self, exit: Exit, ctx: &mut Context<Self>) -> Self::Result {
        let (sender, answer) = oneshot::channel();
        self.requests.push_back(Request::Exit(Box::new(exit), sender));
        self.drive(ctx);
        Box::pin(async { answer.await.unwrap_or_else(|_| Err("execution stopped".to_owned())) })
    }
}

impl Handler<CancelEntries> for ExecutionActor {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, cancel: CancelEntries, ctx: &mut Context<Self>) -> Self::Result {
        let (sender, done) = oneshot::channel();
        self.requests.push_back(Request::Cancel(cancel, sender));
        self.drive(ctx);
        // Execution that stopped has nothing resting any more that could fill.
        Box::pin(async { done.await.unwrap_or_default() })
    }
}

impl Handler<Stop> for ExecutionActor {
    type Result = ();
    fn handle(&mut self, _: Stop, _: &mut Context<Self>) {
        self.stopped = true;
    }
}
