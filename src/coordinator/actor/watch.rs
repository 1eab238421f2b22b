//! What the coordinator does when something became durable: emergencies of tripped breakers, the venue as a capability,
//! operator switches. Also the first look after a boot, which is the same question.

use std::collections::BTreeMap;

use actix::{AsyncContext, Context, Handler};

use super::{
    Coordinator, LookAgain,
    describe::GIVEN_UP,
    emergency::{self, EmergencyOrder, ReduceOrder},
    schedule::Input,
};
use crate::{
    execution::actor::{Exit, Purpose},
    model::{
        Capability, Clock, EmergencyAction, EmergencyKey, Event, Latch, PositionId, TaskName, TradeKey, TradeState, Ts,
    },
    runtime::post::post,
    store::actor::CommittedBatch,
};

impl Handler<CommittedBatch> for Coordinator {
    type Result = ();

    fn handle(&mut self, CommittedBatch(records): CommittedBatch, ctx: &mut Context<Self>) {
        let mut look = false;
        self.guard_records(&records, ctx);
        for record in records.iter() {
            match &record.event {
                Event::BreakerTripped { latch, action } => {
                    self.start_emergency(latch.clone(), *action, ctx);
                }
                Event::StoreAdopted { .. } => self.moved = false,
                Event::TradeNotExecuted { .. } => self.outcome(Capability::Venue, Err("order"), ctx),
                Event::TradeUnknown { .. } => self.outcome(Capability::Venue, Err("unanswered"), ctx),
                Event::TradeFill { .. } | Event::TradeAcked { .. } => {
                    self.outcome(Capability::Venue, Ok(()), ctx);
                }
                Event::EmergencyStep { position, .. } => {
                    self.stepping.remove(position);
                    self.closing.remove(position);
                    look = true;
                }
                Event::EmergencyStarted { .. }
                | Event::PositionClosed { .. }
                | Event::TradeCancelled { .. }
                | Event::TradeExpired { .. }
                | Event::TradeRejected { .. }
                | Event::TradeSettled { .. }
                | Event::StateChanged { .. }
                | Event::TaskSwitched { .. } => look = true,
                _ => {}
            }
        }
        if look {
            self.look_again(ctx);
        }
    }
}

impl Coordinator {
    /// Carries on whatever the durable state says is under way.
    pub(super) fn look_again(&mut self, ctx: &mut Context<Self>) {
        let switches: BTreeMap<TaskName, bool> = self.view.read().coordinator.task_switches.clone();
        if switches != self.switches {
            for (task, enabled) in &switches {
                if self.switches.get(task) != Some(enabled) {
                    self.step(Input::Switch { task: *task, enabled: Some(*enabled) }, ctx);
                }
            }
            self.switches = switches;
        }
        self.drive_emergencies(ctx);
        post("execution", &self.links.execution, crate::execution::actor::LookAgain);
        self.step(Input::Tick, ctx);
    }

    pub(super) fn drive_emergencies(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if self.view.read().emergencies.values().all(|emergency| emergency.done) {
            return;
        }
        self.record_finished_steps(now);
        let orders = {
            let state = self.view.read();
            emergency::next_steps(&state, &self.settings.market.symbol, &self.settings.emergency, now)
        };
        for order in orders {
            match order {
                // Execution cancels resting entries by itself while HALTED, and looks again when the state changes.
                EmergencyOrder::CancelResting { .. } => {}
                EmergencyOrder::Reduce(order) => self.reduce(order, ctx),
                EmergencyOrder::Finish { emergency, .. } => {
                    if self.finishing.insert(emergency.to_string()) {
                        self.finish_emergency(emergency, ctx);
                    }
                }
            }
        }
    }

    /// The action of a tripped breaker, once per instance.
    fn start_emergency(&mut self, latch: Latch, action: EmergencyAction, ctx: &mut Context<Self>) {
        let make = move |actor: &mut Coordinator| {
            let state = actor.view.read();
            let symbols = &actor.settings.market.symbol;
            emergency::start(&state, &latch, action, symbols, &actor.settings.emergency, actor.clock.now())
        };
        self.change_state("emergency".to_owned(), make, ctx);
    }

    /// Every target is reached; what follows (a pause) is read from the state of its own turn.
    fn finish_emergency(&mut self, finished: EmergencyKey, ctx: &mut Context<Self>) {
        let corr = finished.to_string();
        let make = move |actor: &mut Coordinator| {
            let state = actor.view.read();
            let symbols = &actor.settings.market.symbol;
            let orders = emergency::next_steps(&state, symbols, &actor.settings.emergency, actor.clock.now());
            let mut ends = orders.into_iter().filter_map(|order| match order {
                EmergencyOrder::Finish { emergency, events } if emergency == finished => Some(events),
                _ => None,
            });
            ends.next().unwrap_or_default()
        };
        self.change_state(corr, make, ctx);
    }

    /// The record of every emergency trade that has ended since.
    fn record_finished_steps(&mut self, now: Ts) {
        let mut events = Vec::new();
        {
            let state = self.view.read();
            for (position, (key, trade)) in &self.closing {
                if self.stepping.contains(position) {
                    continue;
                }
                let ended = trade.and_then(|trade| state.trade_index.get(&trade)).map(|stub| stub.state);
                let Some(ended) = ended.filter(|state| state.is_terminal()) else { continue };
                let word = format!("{ended:?}").to_lowercase();
                let outcome = if ended == TradeState::Settled { Ok(word.as_str()) } else { Err(word.as_str()) };
                let step = emergency::record_step(&state, key, *position, outcome, &self.settings.emergency, now);
                self.stepping.insert(*position);
                events.push(step);
            }
        }
        self.record("emergency", events);
    }

    fn reduce(&mut self, order: ReduceOrder, ctx: &mut Context<Self>) {
        if self.closing.contains_key(&order.position) {
            return;
        }
        self.closing.insert(order.position, (order.emergency.clone(), None));
        let attempt = order.leg.split_once(':').and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
        let exit = Exit {
            position: order.position,
            quantity: Some(order.quantity),
            purpose: Purpose::Emergency(order.emergency.clone(), attempt),
            decision: None,
        };
        let request = self.links.execution.send(exit);
        let me = ctx.address();
        self.links.spawn("coordinator.reduce", async move {
            let answer = request.await.unwrap_or_else(|_| Err("execution does not answer".to_owned()));
            post("coordinator", &me, Ordered { position: order.position, answer });
        });
    }

    /// The first look after a boot: breakers that tripped before their action was recorded, emergencies under way,
    /// decisions that had not reached a trade.
    pub(super) fn after_boot(&mut self, ctx: &mut Context<Self>) {
        let (mut events, mut unstarted) = (Vec::new(), Vec::new());
        {
            let state = self.view.read();
            for decision in state.decisions.keys() {
                let end = crate::model::DecisionEnd::Interrupted;
                events.push(Event::DecisionEnded { decision: *decision, end, reason: None });
            }
            for latch in state.risk.latched.values() {
                let breach = self.settings.emergency.breach.get(&latch.breaker);
                unstarted.push((latch.clone(), crate::risk::rules::action_for(latch.breaker, breach)));
            }
            self.switches = state.coordinator.task_switches.clone();
        }
        self.record("boot", events);
        for (latch, action) in unstarted {
            self.start_emergency(latch, action, ctx);
        }
        let me = ctx.address();
        post("coordinator", &me, LookAgain);
    }
}

/// Execution took an emergency order, or not.
#[derive(actix::Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct Ordered {
    /// Which position.
    pub position: PositionId,
    /// Its trade, or why there is none.
    pub answer: Result<TradeKey, String>,
}

impl Handler<Ordered> for Coordinator {
    type Result = ();
    fn handle(&mut self, ordered: Ordered, ctx: &mut Context<Self>) {
        match ordered.answer {
            Ok(trade) => {
                if let Some((_, known)) = self.closing.get_mut(&ordered.position) {
                    *known = Some(trade);
                }
            }
            Err(reason) => {
                if let Some((key, _)) = self.closing.get(&ordered.position).cloned()
                    && self.stepping.insert(ordered.position)
                {
                    let step = {
                        let state = self.view.read();
                        let settings = &self.settings.emergency;
                        emergency::record_step(&state, &key, ordered.position, Err(&reason), settings, self.clock.now())
                    };
                    self.record("emergency", vec![step]);
                }
            }
        }
        self.look_again(ctx);
    }
}

/// Name of the actor that asks models.
pub const MODELS: &str = "models";

/// An actor the program can do without panicked too often; its address is dead until the next start.
#[derive(actix::Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct AgentGone {
    /// Its name; an agent's is that of its task.
    pub actor: &'static str,
}

impl Handler<AgentGone> for Coordinator {
    type Result = ();
    fn handle(&mut self, AgentGone { actor }: AgentGone, ctx: &mut Context<Self>) {
        self.note(self.clock.now(), GIVEN_UP, [("actor", actor.to_owned())]);
        self.given_up.insert(actor);
        if let Some(task) = TaskName::parse(actor) {
            self.step(Input::GiveUp { task }, ctx);
        } else if actor == MODELS {
            // Every call from now on is answered by its fallback.
            let (settings, now) = (&self.settings.degradation, self.clock.now());
            let changed = self.degradation.strained(Capability::Llm, true, settings, now);
            self.follow_level(changed, ctx);
        }
        // Conflicts are settled by their fallback; nothing of the resolver's is waited for.
    }
}
