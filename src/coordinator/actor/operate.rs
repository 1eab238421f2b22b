//! Operator commands: checked, journaled with their effect in one batch, answered after that batch is durable, and
//! idempotent by their key for a day (operations §1).

use std::{cell::RefCell, rc::Rc};

use actix::{Context, Handler, MailboxError, ResponseFuture};
use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::{
    Coordinator,
    command_desk::CommandAnswered,
    emergency::{self, numbered},
    messages::{Operate, Operated},
    schedule::Input,
    states,
};
use crate::{
    agents::portfolio_rebalance::plan_id,
    bus::{
        Payload,
        actor::{Deliver, HandlingFailed},
    },
    coordinator::obstacles,
    execution::{legs, manual, settle},
    model::{
        Clock, Command, CommandAnswer, Event, Leg, ManualFill, ManualOutcome, ManualResolution, Plan, PlanState,
        RunKey, Side, SlotId, State, TaskName, Trade, TradeKey, TradeKind, TradeState,
    },
    risk::{AccountMode, PeakKeeper, breakers, view},
    runtime::post::post,
    store::{Batch, CommitResult, HaltReason, batch::Expectation},
};

/// The answer to a command that is on its way to the disk.
pub(super) type Answering = Shared<LocalBoxFuture<'static, Operated>>;

/// What a command does, before it is durable.
struct Prepared {
    events: Vec<Event>,
    answer: CommandAnswer,
}

fn refused(code: &str, reason: impl Into<String>) -> Prepared {
    Prepared { events: Vec::new(), answer: CommandAnswer::Refused { code: code.to_owned(), reason: reason.into() } }
}

fn done(events: Vec<Event>, result: serde_json::Value) -> Prepared {
    Prepared { events, answer: CommandAnswer::Ok { result } }
}

/// SHA-256 of the command's canonical JSON, hex.
pub fn body_hash(command: &Command) -> String {
    let text = serde_json::to_vec(command).unwrap_or_default();
    hex::encode(Sha256::digest(text))
}

impl Coordinator {
    fn prepare(&mut self, operate: &Operate, ctx: &mut Context<Self>) -> Prepared {
        let now = self.clock.now();
        match &operate.command {
            Command::Pause { .. } => {
                let state = self.view.read();
                let events = states::pause(&state.coordinator, states::OPERATOR);
                let halted = state.coordinator.state == crate::model::CoordinatorState::Halted;
                let now_in = if halted { "HALTED; after `reset` it is PAUSED until `resume`" } else { "PAUSED" };
                let stopped = "decisions, new entries, rebalance legs";
                done(
                    events,
                    json!({"state": now_in, "stopped": stopped, "going_on": "data, analysis, stops, targets, exits"}),
                )
            }
            Command::Resume {} => {
                let state = self.view.read();
                let auto_clear = self.settings.degradation.auto_clear_pause;
                match states::resume(&state.coordinator, &state.risk.latched, auto_clear) {
                    Ok(resumed) => {
                        let latched: Vec<&str> = state.risk.latched.keys().map(|kind| kind.name()).collect();
                        let result = json!({"state": resumed.state.name(), "remaining": resumed.remaining,
                            "latched_breakers": latched});
                        done(resumed.events, result)
                    }
                    Err(refusal) => refused(refusal.code, refusal.reason),
                }
            }
            Command::Halt { reason } => {
                let state = self.view.read();
                let reason = if reason.is_empty() { "operator" } else { reason };
                let event = states::halt(&state.coordinator, reason, &operate.source, now);
                let id = match &event {
                    Event::StateChanged { halt: Some(halt), .. } => Some(halt.id.clone()),
                    _ => None,
                };
                done(
                    vec![event],
                    json!({"halt_id": id, "stopped": "analysis, decisions, entries (resting ones are cancelled), rebalance legs",
                    "going_on": "data, stops, targets, exits"}),
                )
            }
            Command::Reset { halt_id } => self.prepare_reset(halt_id),
            Command::RunTask { task, symbol } => self.prepare_run(&operate.key, task, symbol, ctx),
            Command::CloseAll { .. } => {
                let state = self.view.read();
                let events = emergency::start_close_all(&state, &self.settings.market.symbol, &operate.key, now);
                let mut answer = json!({"positions_to_close": state.positions.len()});
                let stuck = obstacles::to_closing(&state, &self.settings, &self.prices.read(), now);
                if let Some(fields) = answer.as_object_mut().filter(|_| !stuck.is_empty()) {
                    fields.insert("cannot_be_closed_now".to_owned(), json!(stuck));
                }
                done(events, answer)
            }
            Command::EnableTask { task } => self.prepare_switch(task, true),
            Command::DisableTask { task } => self.prepare_switch(task, false),
            Command::CancelScheduled { id } => self.prepare_cancel(id),
            Command::Release { task, symbol } => self.prepare_release(task, symbol, ctx),
            Command::ClockAck {} => self.prepare_clock_ack(),
            Command::RunScheduled { id } => self.prepare_run_scheduled(id),
            Command::ResolveManual { trade, outcome, quantity, price, fee, evidence } => {
                let fill = match (outcome, quantity, price) {
                    (ManualOutcome::Expired, None, None) if fee.is_none() => None,
                    (ManualOutcome::Filled, Some(quantity), Some(price)) => {
                        Some(ManualFill { quantity: *quantity, price: *price, fee: fee.unwrap_or_default() })
                    }
                    (ManualOutcome::Filled, ..) => {
                        return refused(
                            "incomplete",
                            "`filled` needs quantity and price, and the fee when there was one",
                        );
                    }
                    (ManualOutcome::Expired, ..) => {
                        return refused(
                            "contradiction",
                            "`expired` means that nothing was executed: no quantity, price or fee",
                        );
                    }
                };
                let resolution = ManualResolution { fill, evidence: evidence.clone(), source: operate.key.clone() };
                self.prepare_resolve(trade, resolution)
            }
            Command::AdoptStore { store } => self.prepare_adopt(store),
        }
    }

    /// A moved store counts again: PAUSED, so that a person looks at it before it trades. The store checks all of
    /// itself before it takes the event.
    fn prepare_adopt(&self, named: &str) -> Prepared {
        let state = self.view.read();
        let store = state.meta.store;
        if !self.moved {
            return refused("not_moved", format!("store {store} was not moved or copied; there is nothing to adopt"));
        }
        if named != store.to_string() {
            return refused("wrong_store", format!("this is store {store}, not `{named}`"));
        }
        let mut events = vec![Event::StoreAdopted { store }];
        let held = state.coordinator.halt.as_ref();
        let halt = held.map(|halt| halt.id.clone()).unwrap_or_default();
        if held.is_some_and(|halt| HaltReason::tells_loss(&halt.reason)) {
            // That it may be used here says nothing about what it lost.
            return done(events, json!({"store": store, "state": "HALTED", "next": format!("reset {halt}")}));
        }
        match states::reset(&state.coordinator, &halt) {
            Ok(reset) => events.extend(reset),
            Err(refusal) => return refused(refusal.code, refusal.reason),
        }
        done(events, json!({"store": store, "state": "PAUSED", "next": "resume"}))
    }

    fn prepare_reset(&self, halt_id: &str) -> Prepared {
        let state = self.view.read();
        if self.moved {
            let store = state.meta.store;
            let reason = format!("the store is a copy or was moved; `adopt-store {store}` comes before any reset");
            return refused("store_moved", reason);
        }
        match states::reset(&state.coordinator, halt_id) {
            Ok(mut events) => {
                let now = self.clock.now();
                let valued = view::equity(&state, &self.prices.read().book, AccountMode::Spot);
                let Some((equity, _)) = valued else {
                    return refused(
                        "no_price",
                        "the account cannot be valued now, so the peak cannot be re-based; try again",
                    );
                };
                let mut keeper = PeakKeeper::new(&state.risk, now);
                events.extend(breakers::reset_drawdown(&state.risk, &mut keeper, equity, now));
                done(events, json!({"state": "PAUSED", "next": "resume"}))
            }
            Err(refusal) => refused(refusal.code, refusal.reason),
        }
    }

    fn prepare_run(&mut self, key: &str, task: &str, symbol: &str, ctx: &mut Context<Self>) -> Prepared {
        let id = self.unused_slot(key);
        let slot = SlotId::Manual(id.clone()).to_string();
        let force = Input::Force { command_id: id, task: task.to_owned(), symbol: symbol.to_owned() };
        self.forced = None;
        self.step(force, ctx);
        match self.forced.take() {
            Some(Ok(())) => done(Vec::new(), json!({"started": format!("{task} {symbol}"), "slot": slot})),
            Some(Err((code, reason))) => {
                let why = &self.view.read().coordinator.pause_reasons;
                if why.is_empty() {
                    return refused(code, reason);
                }
                let why: Vec<&str> = why.iter().map(String::as_str).collect();
                refused(code, format!("{reason} (paused: {})", why.join(", ")))
            }
            None => refused("unknown", "the scheduler gave no answer"),
        }
    }

    /// A key that was used before its memory ended names other trades: by the slot of old, theirs would be taken for
    /// repetitions and not be made.
    fn unused_slot(&self, key: &str) -> String {
        let state = self.view.read();
        let store = state.meta.store;
        let is_used = |id: &str| {
            let slot = SlotId::Manual(id.to_owned()).to_string();
            let plan = plan_id(store, &slot).to_string();
            self.settings.symbols.iter().any(|symbol| {
                let decided = format!("{}:{symbol}:{slot}", TaskName::TradingDecision);
                let leg = format!("0:{}", symbol.base);
                [Side::Buy, Side::Sell].into_iter().any(|side| {
                    let key = |kind, plan: &str, leg: &str| TradeKey::derive(store, kind, plan, leg, *symbol, side);
                    state.trade_index.contains_key(&key(TradeKind::Decision, &decided, "0"))
                        || state.trade_index.contains_key(&key(TradeKind::Rebalance, &plan, &leg))
                })
            })
        };
        numbered(key, is_used)
    }

    fn prepare_release(&mut self, task: &str, symbol: &str, ctx: &mut Context<Self>) -> Prepared {
        let Some(name) = TaskName::parse(task) else { return refused("unknown_task", unknown_task(task)) };
        let key = symbol.parse().ok().map(|symbol| RunKey { task: name, symbol });
        let out = key.filter(|key| self.view.read().coordinator.quarantine.contains_key(key));
        let Some(key) = out else {
            return refused("not_quarantined", format!("{name} {symbol} is not quarantined"));
        };
        // Its end is recorded by the scheduler's own effect, ahead of this command in the store's mailbox.
        self.step(Input::Release { key }, ctx);
        done(Vec::new(), json!({"released": key.to_string()}))
    }

    fn prepare_clock_ack(&mut self) -> Prepared {
        let held = self.view.read().coordinator.pause_reasons.contains(states::CLOCK);
        if !held {
            return refused("not_paused", "the program is not paused for its clock");
        }
        self.trust_clock();
        let state = self.view.read();
        let remaining: Vec<&String> = state.coordinator.pause_reasons.iter().filter(|r| *r != states::CLOCK).collect();
        done(states::clear(&state.coordinator, states::CLOCK), json!({"remaining": remaining}))
    }

    fn prepare_switch(&mut self, name: &str, enabled: bool) -> Prepared {
        let Some(task) = TaskName::parse(name) else { return refused("unknown_task", unknown_task(name)) };
        let asks = self.settings.agents.sentiment_analysis.has_provider();
        if enabled && task == TaskName::SentimentAnalysis && !asks {
            let why = "sentiment_analysis needs somebody to ask: set agents.sentiment_analysis.social or .news";
            return refused("no_provider", why);
        }
        let needs = |(other, settings): (&TaskName, &crate::settings::TaskSettings)| {
            let required = settings.depends_on.iter().any(|dependency| dependency.task == task && dependency.required);
            (required && settings.enabled).then_some(*other)
        };
        if !enabled && let Some(dependent) = self.settings.tasks.iter().find_map(needs) {
            return refused("required", format!("{dependent} requires {task}; disable {dependent} first"));
        }
        done(vec![Event::TaskSwitched { task, enabled }], json!({"task": task.name(), "enabled": enabled}))
    }

    /// The legs move to where a respread would put them: the first at once, none closer to another than allowed.
    fn prepare_run_scheduled(&self, id: &str) -> Prepared {
        let state = self.view.read();
        let plan = match named_legs(&state, id) {
            Ok((plan, _)) => plan,
            Err(refusal) => return refusal,
        };
        let now = self.clock.now();
        let is_late = |leg: &Leg| leg.state == TradeState::Planned && leg.due_at <= now;
        let due = legs::respread(plan, now, &self.settings.legs);
        if due.is_empty() || !plan.legs.iter().any(is_late) {
            return refused("not_late", format!("no leg of plan {} is late; it goes on by itself", plan.id));
        }
        let (first, moved) = (due.values().min().copied().unwrap_or(now), due.len());
        let event = Event::LegsRespread { plan: plan.id, due };
        done(vec![event], json!({"moved_legs": moved, "next_due_at": first}))
    }

    /// Only checked and recorded here; execution, which owns the trades, books it.
    fn prepare_resolve(&self, named: &str, resolution: ManualResolution) -> Prepared {
        let state = self.view.read();
        let waiting = state.trades.values().filter(|trade| trade.state == TradeState::Manual);
        let mut found = waiting.filter(|trade| named.len() >= 6 && trade.key.to_string().starts_with(named));
        let (Some(trade), None) = (found.next(), found.next()) else {
            let all = state.trades.values().filter(|trade| trade.state == TradeState::Manual);
            let all: Vec<String> = all.map(|trade| trade.key.to_string()).collect();
            let known =
                if all.is_empty() { "no trade is".to_owned() } else { format!("these are: {}", all.join(", ")) };
            return refused("not_manual", format!("`{named}` names no trade that is left to the operator; {known}"));
        };
        if trade.resolution.is_some() {
            let reason = format!("trade {} was resolved a moment ago and is being booked", trade.key);
            return refused("resolved_already", reason);
        }
        if resolution.evidence.trim().is_empty() {
            return refused("no_evidence", "say where you know it from: it is kept with the trade");
        }
        let symbol = trade.body.symbol;
        let Some(rate) = self.prices.read().book.usd(symbol.quote).map(|rate| rate.price) else {
            return refused("no_price", format!("{} cannot be valued now; try again", symbol.quote));
        };
        let (execution, rules) = (&self.settings.execution, self.risk_rules.as_ref());
        let desk = settle::Desk { execution, rules, quote_rate: rate, now: self.clock.now() };
        let resolved = Trade { resolution: Some(resolution.clone()), ..trade.clone() };
        if let Err(violation) = manual::booked(&state, &resolved, &resolution, &desk) {
            return refused("does_not_fit", violation.0);
        }
        let (trade_key, said) = (trade.key, resolution.to_string());
        done(vec![Event::TradeResolved { trade_key, resolution }], json!({"trade": trade_key, "booked": said}))
    }

    fn prepare_cancel(&self, id: &str) -> Prepared {
        let state = self.view.read();
        let (plan, legs) = match named_legs(&state, id) {
            Ok(named) => named,
            Err(refusal) => return refusal,
        };
        let count = legs.len();
        let event = Event::LegsCancelled { plan: plan.id, legs, reason: "operator".to_owned() };
        done(vec![event], json!({"cancelled_legs": count}))
    }
}

/// The active plan and those of its planned legs that `id` names: all of them by the plan's id, one by its key.
fn named_legs<'a>(state: &'a State, id: &str) -> Result<(&'a Plan, Vec<TradeKey>), Prepared> {
    let Some(plan) = state.plans.values().find(|plan| plan.state == PlanState::Active) else {
        return Err(refused("no_plan", "no plan is active"));
    };
    let whole = plan.id.to_string() == id;
    let pending = plan.legs.iter().filter(|leg| leg.state == TradeState::Planned);
    let named = pending.filter(|leg| whole || leg.key.to_string().starts_with(id) && id.len() >= 6);
    let legs: Vec<TradeKey> = named.map(|leg| leg.key).collect();
    if legs.is_empty() {
        let reason = format!("`{id}` is neither the active plan {} nor one of its planned legs", plan.id);
        return Err(refused("unknown", reason));
    }
    Ok((plan, legs))
}

/// The text for a task that does not exist, with the nearest name.
pub fn unknown_task(name: &str) -> String {
    let nearest = TaskName::ALL.into_iter().max_by(|a, b| {
        let near = |task: &TaskName| strsim::jaro_winkler(name, task.name());
        near(a).total_cmp(&near(b))
    });
    let nearest = nearest.map_or("", TaskName::name);
    format!("unknown task `{name}`; did you mean `{nearest}`?")
}

impl Coordinator {
    /// A command with its effect and its answer: one batch.
    fn command_batch(&self, operate: &Operate, body_hash: String, prepared: &Prepared) -> Batch {
        let key = operate.key.clone();
        let mut events = vec![Event::CommandReceived { key: key.clone(), command: operate.command.clone(), body_hash }];
        events.extend(prepared.events.iter().cloned());
        events.push(match &prepared.answer {
            CommandAnswer::Ok { result } => Event::CommandDone { key: key.clone(), result: result.clone() },
            CommandAnswer::Refused { code, reason } => {
                Event::CommandRefused { key: key.clone(), code: code.clone(), reason: reason.clone() }
            }
        });
        let mut expected = vec![Expectation::CommandAbsent(key.clone(), self.clock.now())];
        // Execution owns the legs: what it has claimed since is neither cancelled nor moved any more.
        for event in &prepared.events {
            match event {
                Event::LegsCancelled { plan, legs, .. } => {
                    expected.extend(legs.iter().map(|leg| Expectation::LegPlanned(*plan, *leg)));
                }
                Event::TradeResolved { trade_key, .. } => {
                    expected.push(Expectation::TradeState(*trade_key, TradeState::Manual));
                }
                Event::LegsRespread { plan, due } => {
                    expected.extend(due.keys().map(|leg| Expectation::LegPlanned(*plan, *leg)));
                }
                _ => {}
            }
        }
        let mut batch = self.batch("operator", key, events);
        batch.actor = format!("operator:{}", operate.source).into();
        batch.expecting(Expectation::All(expected))
    }

    /// Carries a command out; the answer comes when it is durable.
    fn operate(&mut self, operate: Operate, ctx: &mut Context<Self>) -> ResponseFuture<Operated> {
        let hash = body_hash(&operate.command);
        if let Some(known) = self.view.read().command(&operate.key, self.clock.now()) {
            let same = known.body_hash == hash;
            let answer = known.answer.clone().filter(|_| same);
            let answered = answer.map_or(Operated::KeyReused, Operated::Answered);
            return Box::pin(async { answered });
        }
        // A repetition that arrives before the first is durable waits for the same answer; it prepares nothing.
        self.operating.retain(|_, (_, answer)| answer.peek().is_none());
        if let Some((body, answer)) = self.operating.get(&operate.key) {
            let same = (*body == hash).then(|| answer.clone());
            return Box::pin(async { if let Some(answer) = same { answer.await } else { Operated::KeyReused } });
        }
        let (sender, answered) = oneshot::channel();
        let (key, body) = (operate.key.clone(), hash.clone());
        let (given, taken) = (Rc::new(RefCell::new(None)), operate);
        let answer_of = Rc::clone(&given);
        let prepare = move |actor: &mut Coordinator, ctx: &mut Context<Coordinator>| {
            let prepared = actor.prepare(&taken, ctx);
            let batch = actor.command_batch(&taken, hash, &prepared);
            *given.borrow_mut() = Some(prepared.answer);
            batch
        };
        let done =
            move |actor: &mut Coordinator, answer: Result<CommitResult, MailboxError>, ctx: &mut Context<Self>| {
                let operated = match (answer, answer_of.borrow_mut().take()) {
                    (Ok(Ok(_)), Some(prepared)) => {
                        actor.look_again(ctx);
                        Operated::Answered(prepared)
                    }
                    (Ok(Err(refused)), _) if refused.is_read_only() => Operated::Unavailable(format!(
                        "the store is read-only, no command can be recorded: {}; restore journal/ from a backup",
                        refused.found
                    )),
                    (Ok(Err(refused)), _) => Operated::Unavailable(format!("{refused}; ask again")),
                    _ => Operated::Unavailable("the store does not answer".to_owned()),
                };
                // Whoever asked may have gone; the effect holds.
                let _ = sender.send(operated);
            };
        let gone = || Operated::Unavailable("the coordinator stopped".to_owned());
        let answer = async move { answered.await.unwrap_or_else(|_| gone()) };
        let answer = answer.boxed_local().shared();
        self.operating.insert(key, (body, answer.clone()));
        self.in_turn(prepare, done, ctx);
        Box::pin(answer)
    }
}

impl Handler<Operate> for Coordinator {
    type Result = ResponseFuture<Operated>;

    fn handle(&mut self, operate: Operate, ctx: &mut Context<Self>) -> Self::Result {
        self.operate(operate, ctx)
    }
}

/// A command over the bus. The next message need not wait for its answer: the store keeps the order.
impl Handler<Deliver> for Coordinator {
    type Result = Result<(), HandlingFailed>;

    fn handle(&mut self, Deliver(envelope): Deliver, ctx: &mut Context<Self>) -> Self::Result {
        let Payload::Command(request) = envelope.payload() else {
            return Err(HandlingFailed(format!("`{}` is not a topic of commands", envelope.topic())));
        };
        let answer: ResponseFuture<Operated> = if envelope.is_visible(self.clock.now()) {
            let (key, source) = (request.key.to_string(), request.operator.to_string());
            self.operate(Operate { key, command: request.command.clone(), source }, ctx)
        } else {
            Box::pin(async { Operated::Unavailable("the command expired on its way; nothing happened".to_owned()) })
        };
        let (desk, correlation, request) = (self.links.answers.clone(), envelope.correlation().clone(), envelope.id());
        self.links.spawn("coordinator.command", async move {
            let operated = answer.await;
            post("command_desk", &desk, CommandAnswered { correlation, request, operated });
        });
        Ok(())
    }
}
