//! What happens when a run is over and the scheduler has accepted or refused it: one commit, then the bus.

use std::{collections::BTreeMap, sync::Arc};

use actix::{AsyncContext, Context, Handler};

use super::{
    Coordinator,
    opinions::StoredOpinion,
    runs::Reply,
    schedule::{Input, Inputs, RunTags},
    states,
};
use crate::{
    agents::{leaderboard, portfolio_rebalance::PortfolioOutput},
    bus::Payload,
    execution::actor::LookAgain,
    llm::actor::ModelOutcome,
    market::actor::{FeedsSampled, SampleFeeds},
    model::{Capability, Clock, DegradationLevel, Event, RegimeOutput, RunId, RunKey, RunOutcome, TaskName, Ts},
    runtime::{failpoint, post::post},
    store::{AuxWrite, actor::Commit, batch::Batch},
};

/// A degraded venue is probed this often, milliseconds (resilience §2).
const PROBE_MS: i64 = 30_000;

impl Coordinator {
    /// A run is over: opinions go beside the truth, everything money may follow from goes into the journal.
    #[expect(clippy::too_many_arguments, reason = "the fields of one effect, taken apart once")]
    pub(super) fn ended(
        &mut self,
        key: RunKey,
        run_id: RunId,
        outcome: RunOutcome,
        inputs: &Inputs,
        tags: RunTags,
        reply: Option<Reply>,
        ctx: &mut Context<Self>,
    ) {
        let (accepted, ballots) = match (&outcome, reply) {
            (RunOutcome::Abstained(_), Some(Reply::NoVotes(ballots))) => (None, ballots),
            (RunOutcome::Succeeded, reply) => (reply, Vec::new()),
            _ => (None, Vec::new()),
        };
        if !key.task.is_money_relevant() {
            if !self.volatile {
                self.notes.ended(key, self.clock.now());
            }
            match accepted {
                Some(Reply::Technical(output)) => {
                    self.publish(Some(key.symbol), Payload::Ta(Arc::clone(&output)));
                    self.accept_opinion(StoredOpinion::Ta(output));
                }
                Some(Reply::Regime(output)) => {
                    self.publish(Some(key.symbol), Payload::Regime(Arc::clone(&output)));
                    self.say_regime(&output);
                    self.accept_opinion(StoredOpinion::Regime(output));
                }
                Some(Reply::Sentiment(output)) => {
                    self.publish(Some(key.symbol), Payload::Sentiment(Arc::clone(&output)));
                    self.accept_opinion(StoredOpinion::Sentiment(output));
                }
                _ => {}
            }
            return;
        }
        if outcome != RunOutcome::Succeeded && !self.volatile {
            self.notes.failed(self.clock.now());
        }
        let consumed: BTreeMap<TaskName, Ts> = inputs.iter().map(|input| (input.task, input.as_of)).collect();
        let finished = Event::RunFinished { key, run_id, outcome, consumed, ballots };
        match accepted {
            Some(Reply::Signal(signal, snapshot)) => self.decide(*signal, &snapshot, finished, tags, ctx),
            Some(Reply::Portfolio(output)) => self.plan(*output, run_id, finished),
            _ => self.record(&run_id.to_string(), vec![finished]),
        }
    }

    /// A change of regime is the one opinion worth a line of its own; a backtest's report has no use for lines.
    fn say_regime(&self, output: &RegimeOutput) {
        let before = self.opinions.regime.get(&output.head.symbol).map(|known| known.regime);
        if before != Some(output.regime) && !self.volatile {
            let before = before.map_or("first look", |regime| regime.name());
            let (symbol, regime, confidence) = (output.head.symbol, output.regime, output.head.confidence);
            tracing::info!(at = %output.head.as_of, "regime of {symbol}: {before} -> {regime}, confidence {confidence}");
        }
    }

    fn accept_opinion(&mut self, opinion: StoredOpinion) {
        if !self.volatile {
            self.notes.opinion(opinion.clone(), self.clock.now());
        }
        self.opinions.accept(opinion);
    }

    /// A plan and the end of its run are one commit, before any leg is executed (D50).
    fn plan(&mut self, output: PortfolioOutput, run_id: RunId, finished: Event) {
        let mut events = vec![finished];
        let warn = output.deviation_pct >= self.settings.portfolio.warn_pct;
        if warn {
            let level = if output.deviation_pct >= self.settings.portfolio.alert_pct { "alert" } else { "warning" };
            let facts = [
                ("level", level.to_owned()),
                ("points", output.deviation_pct.to_string()),
                ("result", output.reason.to_string()),
            ];
            let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            events.push(Event::Noted { what: "deviation".to_owned(), facts });
        }
        let planned = output.plan.is_some();
        events.extend(output.plan.map(|plan| Event::PlanCreated { plan: Box::new(plan) }));
        failpoint::effect("commit.plan", "");
        let request = self.links.store.send(Commit(self.batch("coordinator", run_id.to_string(), events)));
        let execution = self.links.execution.clone();
        self.links.spawn("coordinator.plan", async move {
            if matches!(request.await, Ok(Ok(_))) && planned {
                post("execution", &execution, LookAgain);
            }
        });
    }

    /// A batch of this actor.
    pub(super) fn batch(&self, actor: &'static str, corr: String, events: Vec<Event>) -> Batch {
        Batch::new(actor, corr, "coordinator", self.clock.now(), events)
    }

    /// Commits events nobody waits for. A refusal is impossible without an expectation; a failed store ends the process.
    pub(super) fn record(&self, corr: &str, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        failpoint::effect("commit.record", "");
        let request = self.links.store.send(Commit(self.batch("coordinator", corr.to_owned(), events)));
        self.links.spawn("coordinator.record", async move { drop(request.await) });
    }

    /// Hands the notes beside the truth to the store.
    pub(super) fn flush_notes(&mut self) {
        if self.volatile {
            return;
        }
        let changes = self.notes.take(|key| self.scheduler.row(key), self.scheduler.pasts());
        if !changes.is_empty() {
            post("store", &self.links.store, AuxWrite(changes));
        }
    }

    /// What the coordinator does by the clock besides scheduling: notes, vote marks, market data as a capability.
    pub(super) fn housekeeping(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let flush_ms = i64::from(self.settings.store.aux_flush_ms);
        self.guard_state(ctx);
        if self.notes.since().is_some_and(|since| now.since_ms(since) >= flush_ms) {
            self.flush_notes();
        }
        self.mark_votes(now);
        self.drive_emergencies(ctx);
        self.probe_venue(now, ctx);
        self.refresh_feeds(now, ctx);
    }

    /// Judges market data: what is known to have gone well is counted, the rest is asked.
    fn refresh_feeds(&mut self, now: Ts, ctx: &mut Context<Self>) {
        let due = self.feeds.due(now, self.degradation.is_spotless(Capability::MarketData));
        self.degradation.passed(Capability::MarketData, &due.passed, &self.settings.degradation);
        if due.look {
            post("market", &self.links.market, SampleFeeds { answer: ctx.address().recipient() });
        }
    }

    /// Counts one outcome of a capability; records a change of level and the pause that goes with EMERGENCY.
    pub(super) fn outcome(&mut self, capability: Capability, outcome: Result<(), &str>, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let settings = &self.settings.degradation;
        let changed = match outcome {
            Ok(()) => self.degradation.success(capability, settings, now),
            Err(incident) => self.degradation.failure(capability, incident, settings, now),
        };
        self.follow_level(changed, ctx);
    }

    /// Records a change of a capability's level and what follows from the global one.
    pub(super) fn follow_level(&mut self, changed: Option<Event>, ctx: &mut Context<Self>) {
        let Some(changed) = changed else { return };
        self.level_cell.set(self.degradation.global());
        let make = move |actor: &mut Coordinator| {
            let (level, auto_clear) = (actor.degradation.global(), actor.settings.degradation.auto_clear_pause);
            let mut events = vec![changed];
            events.extend(states::follow_degradation(&actor.view.read().coordinator, level, auto_clear));
            events
        };
        self.change_state("degradation".to_owned(), make, ctx);
    }

    /// Asks the venue how it is while it counts as degraded: orders alone would never prove its recovery, because the
    /// level keeps them back. The paper venue is part of this process and always answers.
    fn probe_venue(&mut self, now: Ts, ctx: &mut Context<Self>) {
        if self.degradation.level(Capability::Venue) == DegradationLevel::Normal {
            self.last_probe = None;
        } else if now.since_ms(*self.last_probe.get_or_insert(now)) >= PROBE_MS {
            self.last_probe = Some(now);
            self.outcome(Capability::Venue, Ok(()), ctx);
        }
    }

    fn mark_votes(&mut self, now: Ts) {
        let settings = &self.settings.agents.trading_decision.leaderboard;
        let mut marked = Vec::new();
        {
            let state = self.view.read();
            for decision in leaderboard::due(&state.leaderboard, now, settings) {
                let Some(pending) = state.leaderboard.pending.get(&decision) else { continue };
                if self.marking.contains(&decision) {
                    continue;
                }
                let newest = self.prices.tick(pending.symbol).map(|tick| (tick.price, tick.at));
                if let Some(marks) = leaderboard::mark_when_due(pending, newest, now, settings) {
                    marked.push((decision, marks));
                }
            }
            self.marking.retain(|decision| state.leaderboard.pending.contains_key(decision));
        }
        for (decision, marks) in marked {
            self.marking.insert(decision);
            self.record(&decision.to_string(), vec![Event::VotesMarked { decision, marks }]);
        }
    }

    /// The next instant at which housekeeping has something to do.
    pub(super) fn own_wakeup(&self) -> Option<Ts> {
        // What fell due while this turn was under way is not forgotten, and what cannot be done keeps nobody busy.
        let soon = self.clock.now().plus_ms(1_000);
        let flush_ms = i64::from(self.settings.store.aux_flush_ms);
        let notes = self.notes.since().map(|since| since.plus_ms(flush_ms));
        let settings = &self.settings.agents.trading_decision.leaderboard;
        let votes = {
            let state = self.view.read();
            let oldest = state.leaderboard.pending.iter().find(|(id, _)| !self.marking.contains(id));
            oldest.map(|(_, pending)| leaderboard::mark_at(pending, settings).max(soon))
        };
        let retries = self
            .view
            .read()
            .emergencies
            .values()
            .filter(|e| !e.done)
            .filter_map(|e| e.retry_at)
            .map(|at| at.max(soon))
            .min();
        let venue = (self.degradation.level(Capability::Venue) != DegradationLevel::Normal)
            .then(|| self.last_probe.map_or(soon, |last| last.plus_ms(PROBE_MS).max(soon)));
        // A market that falls silent wakes nobody: it is looked at by the clock.
        let feeds = self.feeds.next(self.degradation.is_spotless(Capability::MarketData));
        [notes, votes, feeds, venue, retries].into_iter().flatten().min()
    }
}

/// One outcome per logical call of a model, told by the router; the agents count nothing (D40, D41).
impl Handler<ModelOutcome> for Coordinator {
    type Result = ();
    fn handle(&mut self, told: ModelOutcome, ctx: &mut Context<Self>) {
        let result = match &told.result {
            Ok(()) => Ok(()),
            Err(incident) => Err(incident.as_str()),
        };
        self.outcome(Capability::Llm, result, ctx);
        let (settings, now) = (&self.settings.degradation, self.clock.now());
        let changed = self.degradation.strained(Capability::Llm, told.strained, settings, now);
        self.follow_level(changed, ctx);
    }
}

impl Handler<FeedsSampled> for Coordinator {
    type Result = ();
    fn handle(&mut self, sampled: FeedsSampled, ctx: &mut Context<Self>) {
        if let Some(newest) = sampled.newest.filter(|_| sampled.withheld > 0) {
            let facts = [
                ("symbol", newest.symbol.to_string()),
                ("withheld", sampled.withheld.to_string()),
                ("newest_price", newest.price.to_string()),
                ("last_accepted", newest.accepted.map_or("none".to_owned(), |price| price.to_string())),
            ];
            self.note(self.clock.now(), "price_jump_withheld", facts);
        }
        self.feeds.answered(sampled.healthy_until);
        let level = self.level();
        self.outcome(Capability::MarketData, sampled.healthy_until.map(|_| ()).ok_or("silent"), ctx);
        if self.level() == level {
            self.arm();
        } else {
            self.step(Input::Tick, ctx);
        }
    }
}
