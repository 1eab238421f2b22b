//! Carries one decision from its signal to its end: records what `decision` says and asks risk and execution.
//!
//! It runs outside the run's deadline and outside the coordinator's mailbox; decisions of different symbols never wait
//! for each other.

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use actix::Context;

use super::{
    Coordinator, Links,
    consensus::{Eligible, Opinion, Opinions},
    decision::{self, DecisionInputs, DecisionRules, EntryOrder, Gate, Next, Progress},
    disputed::{self, Disputed},
    resolution,
    resolver::{self, Resolve},
    schedule::RunTags,
};
use crate::{
    coordinator::degradation,
    execution::{
        actor::{CancelEntries, Exit, Place, Placed, Purpose},
        intent,
    },
    model::{
        Action, Clock, DecisionEnd, DecisionId, DegradationLevel, Event, PlanState, Price, Side, Signal, SlotId,
        Snapshot, TaskName, TradeKey, TradeKind, TradeState, Ts,
    },
    risk::{
        RiskRequest, RiskRules, RiskView,
        actor::{Release, Reserve},
        board::Prices,
        prices::PriceAt,
    },
    runtime::{clock::LogicalClock, failpoint, post::post},
    settings::Settings,
    store::{Batch, Commit, Expectation, view::StateView},
};

/// What a decision needs after its first commit.
struct Carrier {
    links: Rc<Links>,
    clock: LogicalClock,
    view: StateView,
    level: Rc<Cell<DegradationLevel>>,
    settings: Rc<Settings>,
    rules: Rc<RiskRules>,
    decision: DecisionId,
    /// Plan part of the trade key.
    slot: String,
    signal_at: Ts,
    prices: Prices,
    /// Price the signal was made at.
    signal_price: Price,
    /// A model has thought about it, so that the market went on meanwhile; rules take no time.
    thought: bool,
}

impl Coordinator {
    /// Starts the decision of an accepted signal; the end of its run is part of the first commit.
    pub(super) fn decide(
        &mut self,
        signal: Signal,
        snapshot: &Snapshot,
        finished: Event,
        tags: RunTags,
        _: &mut Context<Self>,
    ) {
        let now = self.clock.now();
        let symbol = signal.head.symbol;
        let id = DecisionId(signal.head.run_id);
        let slot = slot_text(&signal);
        let mut progress = if tags.stale && signal.action == Action::Buy {
            stale(id, &signal)
        } else {
            self.begin(id, &signal, snapshot, &slot, now)
        };
        defer_legs(&self.links, &self.view, &self.settings, &progress.defer_legs, now);
        let mut events = vec![finished];
        events.append(&mut progress.events);
        let carrier = Carrier {
            links: Rc::clone(&self.links),
            clock: self.clock.clone(),
            view: self.view.clone(),
            level: Rc::clone(&self.level_cell),
            settings: Rc::clone(&self.settings),
            rules: Rc::clone(&self.risk_rules),
            decision: id,
            slot,
            signal_at: signal.head.produced_at,
            prices: self.prices.clone(),
            signal_price: signal.price,
            thought: signal.asked_models(),
        };
        let batch = self.batch("coordinator", id.to_string(), events);
        failpoint::effect("commit.decide", "");
        let request = self.links.store.send(Commit(batch));
        self.links.spawn("coordinator.decision", async move {
            if !matches!(request.await, Ok(Ok(_))) {
                return;
            }
            if !progress.cancel_first.is_empty() && !matches!(progress.next, Next::NeedRisk(_) | Next::Resolve(_)) {
                let cancel = CancelEntries { symbol, reason: "replaced by a newer signal".to_owned() };
                // Execution that does not answer has ended the process already.
                let _ = carrier.links.execution.send(cancel).await;
            }
            carrier.carry(progress.next).await;
        });
    }

    fn begin(&self, id: DecisionId, signal: &Signal, snapshot: &Snapshot, slot: &str, now: Ts) -> Progress {
        let symbol = signal.head.symbol;
        let state = self.view.read();
        let board = self.prices.read();
        let positions: Vec<_> = state.positions.values().filter(|held| held.symbol == symbol).collect();
        let living = |state: TradeState| matches!(state, TradeState::Acked | TradeState::Partial);
        let resting: Vec<TradeKey> = state
            .trades
            .values()
            .filter(|trade| trade.is_entry() && trade.body.symbol == symbol && living(trade.state))
            .map(|trade| trade.key)
            .collect();
        let side = if signal.action == Action::Sell { Side::Sell } else { Side::Buy };
        let mut view = RiskView::from_state(&state, &board.book, &self.risk_rules, state.risk.peak, now);
        view.silent.clone_from(&board.silent);
        let indicators = snapshot.primary_view().map(|view| &view.indicators);
        let spike = indicators.and_then(|i| Some((i.atr14?, i.atr14_mean20?)));
        let inputs = DecisionInputs {
            decision: id,
            key: TradeKey::derive(state.meta.store, TradeKind::Decision, slot, "0", symbol, side),
            signal,
            gate: Gate { state: state.coordinator.state, level: self.level(), now },
            positions: &positions,
            resting: &resting,
            opinions: Opinions {
                ta: given(self.opinions.ta.get(&symbol).map(AsRef::as_ref)),
                regime: given(self.opinions.regime.get(&symbol).map(AsRef::as_ref)),
                sentiment: given(self.opinions.sentiment.get(&symbol).map(AsRef::as_ref)),
            },
            enabled: Eligible {
                ta: self.scheduler.is_eligible(TaskName::TechnicalAnalysis),
                regime: self.scheduler.is_eligible(TaskName::RegimeDetection),
                sentiment: self.scheduler.is_eligible(TaskName::SentimentAnalysis),
            },
            plan: state.plans.values().find(|plan| plan.state == PlanState::Active),
            price: board.book.get(symbol),
            quote_usd: board.book.usd(symbol.quote).map(|price: PriceAt| price.price),
            volatility_spike: spike
                .is_some_and(|(atr, mean)| atr > self.settings.risk.volatility.spike_multiple * mean),
            view: &view,
            rules: DecisionRules {
                consensus: &self.settings.consensus,
                conflicts: &self.settings.conflicts,
                decision: &self.settings.decision,
                degradation: &self.settings.degradation,
                regimes: &self.settings.regimes,
                sell_closes: self.settings.execution.spot.sell_closes,
                risk: &self.risk_rules,
            },
        };
        decision::begin(&inputs, facts(snapshot))
    }
}

/// Moves legs that give way, in a commit of their own: a leg execution has claimed meanwhile is not moved any more.
fn defer_legs(links: &Links, view: &StateView, settings: &Settings, legs: &[TradeKey], now: Ts) {
    let Some(event) = deferral(view, settings, legs, now) else { return };
    let Event::LegsRespread { plan, due } = &event else { return };
    let planned = due.keys().map(|leg| Expectation::LegPlanned(*plan, *leg)).collect();
    let batch = Batch::new("coordinator", plan.to_string(), "rebalance_conflict", now, vec![event]);
    failpoint::effect("commit.defer", "");
    let request = links.store.send(Commit(batch.expecting(Expectation::All(planned))));
    // A refusal is an answer: the leg was faster.
    links.spawn("coordinator.defer", async move { drop(request.await) });
}

/// Legs that give way to an entry are due again after the conflict window (the signal wins, the leg is deferred).
fn deferral(view: &StateView, settings: &Settings, legs: &[TradeKey], now: Ts) -> Option<Event> {
    if legs.is_empty() {
        return None;
    }
    let window_ms = i64::from(settings.conflicts.rebalance_window_seconds) * 1_000;
    let state = view.read();
    let plan = state.plans.values().find(|plan| plan.state == PlanState::Active)?;
    let due: BTreeMap<TradeKey, Ts> = plan
        .legs
        .iter()
        .filter(|leg| legs.contains(&leg.key) && leg.state == TradeState::Planned)
        .map(|leg| (leg.key, leg.due_at.max(now).plus_ms(window_ms)))
        .collect();
    (!due.is_empty()).then_some(Event::LegsRespread { plan: plan.id, due })
}

/// A run whose inputs stayed stale may only reduce risk.
fn stale(id: DecisionId, signal: &Signal) -> Progress {
    let end = DecisionEnd::Suppressed("stale_inputs".to_owned());
    let events = vec![
        Event::SignalReceived { decision: id, signal: Box::new(signal.clone()), inputs: BTreeMap::new() },
        decision::ended(id, end.clone()),
    ];
    Progress { events, cancel_first: Vec::new(), defer_legs: Vec::new(), next: Next::Ended(end) }
}

fn given<T>(opinion: Option<&T>) -> Opinion<&T> {
    opinion.map_or(Opinion::Missing, Opinion::Given)
}

/// Plan part of an entry's trade key: the same slot always gives the same trade (C3).
fn slot_text(signal: &Signal) -> String {
    let slot = match &signal.head.slot {
        SlotId::Grid(number) => number.to_string(),
        other => other.to_string(),
    };
    format!("{}:{}:{slot}", TaskName::TradingDecision, signal.head.symbol)
}

/// The indicator values a decision used, for the journal.
fn facts(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            facts.insert(name.to_owned(), value.to_string());
        }
    };
    if let Some(view) = snapshot.primary_view() {
        let i = &view.indicators;
        put("close", Some(view.last.close));
        put("rsi14", i.rsi14);
        put("macd_histogram", i.macd_histogram);
        put("adx14", i.adx14);
        put("atr14", i.atr14);
        put("atr14_mean20", i.atr14_mean20);
        put("ema9", i.ema9);
        put("ema21", i.ema21);
        put("ema50", i.ema50);
    }
    facts.insert("as_of".to_owned(), snapshot.as_of.to_string());
    facts.insert("price_id".to_owned(), snapshot.price_id.to_string());
    facts
}

impl Carrier {
    async fn carry(self, next: Next) {
        match next {
            Next::Ended(_) => {}
            Next::Exit(order) => {
                let exit = Exit {
                    position: order.position,
                    quantity: Some(order.quantity),
                    purpose: Purpose::Signal,
                    decision: Some((self.decision, Vec::new())),
                };
                if let Ok(Err(reason)) = self.links.execution.send(exit).await {
                    self.end(DecisionEnd::NothingToDo(reason)).await;
                }
            }
            Next::Resolve(disputed) => self.resolve(*disputed).await,
            Next::NeedRisk(request) => self.ask_risk(*request).await,
            // `begin` never answers with an intent.
            Next::Intent(_) => {}
        }
    }

    /// Waits for the resolver, at most its time; only this decision waits.
    async fn resolve(mut self, disputed: Disputed) {
        let settings = &self.settings.conflicts;
        let until = self.clock.now().plus_ms(i64::from(settings.max_resolution_ms));
        let ask_models = degradation::allows_model_voters(self.level.get(), false);
        let question = Resolve::new(self.decision, &disputed, until, ask_models);
        let settled = resolver::settle(&self.links.resolver, question, &self.clock, settings).await;
        self.thought |= settled.by != resolution::FALLBACK || !settled.errors.is_empty();
        let progress = disputed::after_resolution(self.decision, disputed, settled, &self.rules);
        defer_legs(&self.links, &self.view, &self.settings, &progress.defer_legs, self.clock.now());
        if self.commit(progress.events).await
            && let Next::NeedRisk(request) = progress.next
        {
            self.ask_risk(*request).await;
        }
    }

    fn moved(&self, request: &RiskRequest) -> Option<Event> {
        let newest = self.prices.read().book.get(request.symbol).map(|price| price.price);
        let limit_pct = self.settings.execution.max_price_drift_pct;
        decision::moved(self.decision, self.signal_price, newest, limit_pct).filter(|_| self.thought)
    }

    async fn ask_risk(self, request: RiskRequest) {
        let key = request.key;
        if let Some(expired) = self.moved(&request) {
            self.commit(vec![expired]).await;
            return;
        }
        // A risk actor that is being restarted refuses: it has no account state. What it would say afterwards to a
        // question nobody waits for any more is released below.
        let mut ready = self.links.risk_ready.clone();
        let verdict = tokio::select! {
            biased;
            verdict = self.links.reserve.send(Reserve(request.clone())) => verdict.unwrap_or_else(|_| Err(no_account())),
            _ = ready.wait_for(|ready| !*ready) => Err(no_account()),
        };
        let gate = Gate { state: self.view.read().coordinator.state, level: self.level.get(), now: self.clock.now() };
        let settings = &self.settings.decision;
        let mut progress = decision::after_risk(self.decision, &request, verdict, self.signal_at, gate, settings);
        let spike = disputed::spike_cooldown(&request, &self.view.read().risk, &self.rules, gate.now);
        progress.events.extend(spike);
        match progress.next {
            Next::Intent(order) => self.place(*order, progress.events).await,
            _ => {
                post("risk", &self.links.risk, Release(key));
                self.commit(progress.events).await;
            }
        }
    }

    async fn place(self, order: EntryOrder, events: Vec<Event>) {
        let place = Place {
            order: intent::EntryOrder {
                decision: self.decision,
                slot: self.slot.clone(),
                replacement: 0,
                symbol: order.symbol,
                side: order.side,
                quantity: order.quantity,
                entry: order.entry,
                market: order.entry,
                stop: order.stop,
                target: order.target,
                leverage: order.leverage,
            },
            events,
        };
        let placed = self.links.execution.send(place).await;
        if !matches!(placed, Ok(Ok(Placed::Intent(_)))) {
            post("risk", &self.links.risk, Release(order.key));
        }
        if let Ok(Err(reason)) = placed {
            self.end(DecisionEnd::NothingToDo(reason)).await;
        }
    }

    async fn end(&self, end: DecisionEnd) {
        self.commit(vec![decision::ended(self.decision, end)]).await;
    }

    async fn commit(&self, events: Vec<Event>) -> bool {
        let batch = Batch::new("coordinator", self.decision.to_string(), "decision", self.clock.now(), events);
        failpoint::effect("commit.decision", "");
        // A store that does not answer has ended the process already.
        matches!(self.links.store.send(Commit(batch)).await, Ok(Ok(_)))
    }
}

fn no_account() -> crate::model::RiskRefusal {
    crate::model::RiskRefusal {
        code: crate::model::RiskCode::NoAccountState,
        measured: "risk does not answer".to_owned(),
        limit: "a view younger than its limit".to_owned(),
    }
}
