//! The life of one accepted signal as pure steps (domain §7). [`begin`] goes from the signal to the question for risk, or
//! to the resolver when there are conflicts, [`super::disputed::after_resolution`] on to risk, [`after_risk`] from risk's answer to the order. The actor only carries: it records the events and does what `next`
//! says.
//!
//! A decision that ends says why (D54); exits skip consensus, conflicts, floors and sizing (D33); the signal itself is
//! never changed (A053). The gates are asked again when risk has answered, because minutes may have passed (A113).

use std::collections::BTreeMap;

use super::{
    conflict::{self, ConflictInputs},
    consensus::{self, Counted, Eligible, Opinions},
    degradation,
    disputed::Disputed,
};
use crate::{
    model::{
        Action, Consensus, CoordinatorState, Decimal, DecisionEnd, DecisionId, DegradationLevel, Event, Levels, Money,
        Plan, Position, PositionId, PositionSide, Price, Qty, Regime, RiskCode, RiskRefusal, Route, Score, Side,
        Signal, Sizing, Symbol, TradeKey, Ts,
    },
    risk::{self, AccountMode, Approved, RiskRequest, RiskRules, RiskView, SizeInputs, prices::PriceAt},
    settings::{
        ConflictSettings, ConsensusSettings, DecisionSettings, DegradationSettings, RegimeSettings, SellCloses,
    },
};

/// The settings a decision reads.
#[derive(Clone, Copy, Debug)]
pub struct DecisionRules<'a> {
    /// `[consensus]`
    pub consensus: &'a ConsensusSettings,
    /// `[conflicts]`
    pub conflicts: &'a ConflictSettings,
    /// `[decision]`
    pub decision: &'a DecisionSettings,
    /// `[degradation]`
    pub degradation: &'a DegradationSettings,
    /// `[regimes]`
    pub regimes: &'a BTreeMap<Regime, RegimeSettings>,
    /// `execution.spot.sell_closes`
    pub sell_closes: SellCloses,
    /// The compiled risk rules.
    pub risk: &'a RiskRules,
}

/// Who may trade right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gate {
    /// Coordinator state.
    pub state: CoordinatorState,
    /// Global degradation level.
    pub level: DegradationLevel,
    /// Now.
    pub now: Ts,
}

/// Everything one signal is decided on, by reference; nothing is looked up later.
#[derive(Clone, Copy, Debug)]
pub struct DecisionInputs<'a> {
    /// Identity.
    pub decision: DecisionId,
    /// Key of the trade an entry would make.
    pub key: TradeKey,
    /// As accepted.
    pub signal: &'a Signal,
    /// Who may trade.
    pub gate: Gate,
    /// Open positions of the symbol.
    pub positions: &'a [&'a Position],
    /// Resting entry orders of the symbol; a new order of the symbol replaces them.
    pub resting: &'a [TradeKey],
    /// Newest accepted opinions of the symbol.
    pub opinions: Opinions<'a>,
    /// Which opinion agents are enabled and configured (degradation is judged here).
    pub enabled: Eligible,
    /// The active rebalance plan.
    pub plan: Option<&'a Plan>,
    /// Newest price of the symbol.
    pub price: Option<PriceAt>,
    /// Account currency per unit of the quote asset.
    pub quote_usd: Option<Money>,
    /// ATR14 > 3 × its mean of 20, from the snapshot of the decision.
    pub volatility_spike: bool,
    /// The account; a copy of risk's view is enough, risk judges again.
    pub view: &'a RiskView,
    /// What is read.
    pub rules: DecisionRules<'a>,
}

/// What a step of the pipeline produced.
#[derive(Clone, PartialEq, Debug)]
pub struct Progress {
    /// To record, in this order, in one commit.
    pub events: Vec<Event>,
    /// Resting entries to cancel, confirmed, before `next` is carried out.
    pub cancel_first: Vec<TradeKey>,
    /// Rebalance legs that give way to this entry; they stay PLANNED.
    pub defer_legs: Vec<TradeKey>,
    /// What follows.
    pub next: Next,
}

/// What follows a step.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    /// Nothing; the end is among the events.
    Ended(DecisionEnd),
    /// Ask the resolver what to do about these conflicts, then [`super::disputed::after_resolution`].
    Resolve(Box<Disputed>),
    /// Ask risk to approve and reserve.
    NeedRisk(Box<RiskRequest>),
    /// Make a market exit; the decision ends `traded` with the intent.
    Exit(ExitOrder),
    /// Make the intent; the decision ends `traded` in the same commit.
    Intent(Box<EntryOrder>),
}

/// An exit asked for by a signal.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ExitOrder {
    /// Which position.
    pub position: PositionId,
    /// Its symbol.
    pub symbol: Symbol,
    /// Opposite of the position.
    pub side: Side,
    /// Base units, at most the position's; not yet floored to the symbol's step.
    pub quantity: Qty,
}

/// An approved entry.
#[derive(Clone, PartialEq, Debug)]
pub struct EntryOrder {
    /// Trade key of the reservation.
    pub key: TradeKey,
    /// Which symbol.
    pub symbol: Symbol,
    /// Buy or sell.
    pub side: Side,
    /// Base units, floored.
    pub quantity: Qty,
    /// Entry wanted, quote units.
    pub entry: Price,
    /// Protective stop.
    pub stop: Option<Price>,
    /// Target.
    pub target: Option<Price>,
    /// Spot: 1.
    pub leverage: u32,
}

/// The event of an ended decision.
pub fn ended(decision: DecisionId, end: DecisionEnd) -> Event {
    Event::DecisionEnded { decision, end, reason: None }
}

/// Ends an entry a model thought about while the market went on: further than `limit_pct` from the price the signal was
/// made at, its entry, stop and target speak of another market. Without a price nothing is known to have moved; risk
/// refuses then.
pub fn moved(decision: DecisionId, at_signal: Price, newest: Option<Price>, limit_pct: Decimal) -> Option<Event> {
    let newest = newest.filter(|_| at_signal > Price::ZERO)?;
    let moved_pct =
        (newest - at_signal).checked_div(at_signal)?.checked_mul(Decimal::ONE_HUNDRED)?.round_dp(4).normalize();
    let reason = format!("price_moved: {at_signal} -> {newest} is {moved_pct} %, limit {limit_pct} %");
    (moved_pct.abs() > limit_pct).then(|| Event::DecisionEnded {
        decision,
        end: DecisionEnd::Expired,
        reason: Some(reason),
    })
}

pub(super) fn stop_here(decision: DecisionId, mut events: Vec<Event>, end: DecisionEnd) -> Progress {
    events.push(ended(decision, end.clone()));
    Progress { events, cancel_first: Vec::new(), defer_legs: Vec::new(), next: Next::Ended(end) }
}

/// Where a signal goes, with the side of an entry or the position of an exit (routing table of domain §7).
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Routed<'a> {
    /// Can increase a trading position.
    Entry(Side),
    /// Can only decrease this one.
    Exit(&'a Position),
    /// No position to act on, with the reason.
    Nothing(&'static str),
}

/// Routes a signal by account mode and position. With margin a signal against an open position reduces it first.
pub fn route<'a>(action: Action, mode: AccountMode, positions: &[&'a Position]) -> Routed<'a> {
    let of = |side| positions.iter().copied().find(|position| position.side == side);
    let exit = |position: Option<&'a Position>, none| match position {
        None => Routed::Nothing(none),
        Some(position) if position.exiting.is_some() => Routed::Nothing("an exit is under way"),
        Some(position) => Routed::Exit(position),
    };
    let (long, short) = (of(PositionSide::Long), of(PositionSide::Short));
    match (action, mode) {
        (Action::Hold, _) => Routed::Nothing("hold"),
        (Action::CloseLong, _) => exit(long, "no long position"),
        (Action::CloseShort, _) => exit(short, "no short position"),
        (Action::Sell, AccountMode::Spot) => exit(long, "no position to sell"),
        (Action::Buy, AccountMode::Spot) => Routed::Entry(Side::Buy),
        (Action::Buy, AccountMode::Margin) if short.is_some() => exit(short, ""),
        (Action::Sell, AccountMode::Margin) if long.is_some() => exit(long, ""),
        (Action::Buy, AccountMode::Margin) => Routed::Entry(Side::Buy),
        (Action::Sell, AccountMode::Margin) => Routed::Entry(Side::Sell),
    }
}

/// Why nothing may leave the pipeline now: PAUSED and HALTED end every decision before its intent.
fn closed(gate: Gate) -> Option<&'static str> {
    match gate.state {
        CoordinatorState::Running => None,
        CoordinatorState::Paused => Some("paused"),
        CoordinatorState::Halted => Some("halted"),
    }
}

fn suppressed(why: &str) -> DecisionEnd {
    DecisionEnd::Suppressed(why.to_owned())
}

/// From the signal to the question for risk, an exit, or an end. `facts` are the indicator values the decision used.
pub fn begin(inputs: &DecisionInputs<'_>, facts: BTreeMap<String, String>) -> Progress {
    let (id, signal, gate) = (inputs.decision, inputs.signal, inputs.gate);
    let mut events = vec![Event::SignalReceived { decision: id, signal: Box::new(signal.clone()), inputs: facts }];
    if signal.action == Action::Hold {
        return stop_here(id, events, DecisionEnd::Hold);
    }
    if let Some(why) = closed(gate) {
        return stop_here(id, events, suppressed(why));
    }
    let age = inputs.price.map(|price| gate.now.since_ms(price.at));
    let Some(price) = inputs.price.filter(|_| age.is_some_and(|age| age <= inputs.rules.risk.price_max_age_ms)) else {
        return stop_here(id, events, suppressed("price_stale"));
    };
    let routed = route(signal.action, inputs.rules.risk.mode, inputs.positions);
    let route = match routed {
        Routed::Entry(_) => Route::Entry,
        Routed::Exit(_) => Route::Exit,
        Routed::Nothing(_) => Route::Nothing,
    };
    events.push(Event::DecisionClassified { decision: id, route });
    let mut progress = match routed {
        Routed::Nothing(why) => stop_here(id, events, DecisionEnd::NothingToDo(why.to_owned())),
        Routed::Exit(position) => {
            let order = exit(inputs, position, price.price);
            let next = Next::Exit(order);
            Progress { events, cancel_first: Vec::new(), defer_legs: Vec::new(), next }
        }
        Routed::Entry(side) => enter(inputs, side, events),
    };
    // A signal against resting entries of its symbol replaces them, whether or not there is a position yet.
    if !matches!(progress.next, Next::Ended(_) | Next::Resolve(_)) || route == Route::Nothing {
        progress.cancel_first = inputs.resting.to_vec();
    }
    progress
}

fn exit(inputs: &DecisionInputs<'_>, position: &Position, price: Price) -> ExitOrder {
    let side = match position.side {
        PositionSide::Long => Side::Sell,
        PositionSide::Short => Side::Buy,
    };
    let sized = inputs.rules.sell_closes == SellCloses::Sized
        && inputs.signal.action == Action::Sell
        && inputs.rules.risk.mode == AccountMode::Spot;
    let quantity = if sized { sized_exit(inputs, price).min(position.quantity) } else { position.quantity };
    ExitOrder { position: position.id, symbol: position.symbol, side, quantity }
}

/// `sell_closes = "sized"`: the share of equity the signal names, without the factors that make entries smaller.
fn sized_exit(inputs: &DecisionInputs<'_>, price: Price) -> Qty {
    let share = inputs.view.equity * inputs.signal.position_size_pct.as_decimal() / Decimal::ONE_HUNDRED;
    let unit = price.checked_mul(inputs.quote_usd.unwrap_or_default());
    unit.and_then(|unit| share.checked_div(unit)).unwrap_or(Decimal::MAX)
}

fn enter(inputs: &DecisionInputs<'_>, side: Side, mut events: Vec<Event>) -> Progress {
    let (id, gate, rules) = (inputs.decision, inputs.gate, &inputs.rules);
    if !degradation::allows_entries(gate.level) {
        return stop_here(id, events, suppressed("degraded"));
    }
    // Before anybody is asked about it; risk says the same of what began before the silence.
    if inputs.view.silent.contains(&inputs.signal.head.symbol) {
        return stop_here(id, events, suppressed("feed_silent"));
    }
    let Some(levels) = inputs.signal.levels else {
        let end = DecisionEnd::Refused(RiskRefusal {
            code: RiskCode::StopLossRequired,
            measured: "no levels".to_owned(),
            limit: "entry, stop and target".to_owned(),
        });
        return stop_here(id, events, end);
    };
    let (consensus, counted) = agree(inputs);
    let confidence = consensus.confidence_after;
    events.push(Event::ConsensusComputed { decision: id, consensus });
    let regime = counted.regime.map_or(Regime::Unknown, |output| output.regime);
    let sizing = risk::sizing::size(SizeInputs {
        position_size_pct: inputs.signal.position_size_pct,
        equity: inputs.view.equity,
        regime_factor: rules.regimes.get(&regime).map_or(Decimal::ZERO, |row| row.size),
        degradation_factor: degradation::size_factor(gate.level, rules.degradation),
    });
    let request = request(inputs, side, levels, confidence, &counted, regime, sizing.notional);
    let found = conflict::detect(
        &ConflictInputs {
            counted,
            symbol: inputs.signal.head.symbol,
            side,
            plan: inputs.plan,
            dry_run: dry_run(inputs, &request),
            now: gate.now,
        },
        rules.conflicts,
    );
    let no_account = inputs.view.equity_at.is_none();
    if !found.conflicts.is_empty() {
        events.push(Event::ConflictsFound { decision: id, conflicts: found.conflicts.clone() });
        let disputed = Disputed {
            conflicts: found.conflicts,
            request,
            sizing,
            no_account,
            resting: inputs.resting.to_vec(),
            defer_legs: found.legs,
        };
        let next = Next::Resolve(Box::new(disputed));
        return Progress { events, cancel_first: Vec::new(), defer_legs: Vec::new(), next };
    }
    let mut progress = sized(id, request, sizing, no_account, rules.risk, events);
    progress.defer_legs = found.legs;
    progress
}

/// From a settled entry to the question for risk.
pub(super) fn sized(
    id: DecisionId,
    request: RiskRequest,
    sizing: Sizing,
    no_account: bool,
    rules: &RiskRules,
    mut events: Vec<Event>,
) -> Progress {
    events.push(Event::Sized { decision: id, sizing });
    // Without an account the size is 0 for another reason than its smallness: risk names it NO_ACCOUNT_STATE.
    if !no_account && below_minimum(rules, &request) {
        return stop_here(id, events, DecisionEnd::BelowMinimum);
    }
    let next = Next::NeedRisk(Box::new(request));
    Progress { events, cancel_first: Vec::new(), defer_legs: Vec::new(), next }
}

fn agree<'a>(inputs: &DecisionInputs<'a>) -> (Consensus, Counted<'a>) {
    let sentiment = inputs.enabled.sentiment && degradation::allows_sentiment(inputs.gate.level);
    consensus::compute(
        &inputs.opinions,
        Eligible { sentiment, ..inputs.enabled },
        inputs.signal.head.symbol,
        inputs.signal.action,
        inputs.signal.head.confidence,
        inputs.rules.consensus,
        inputs.gate.now,
    )
}

fn request(
    inputs: &DecisionInputs<'_>,
    side: Side,
    levels: Levels,
    confidence: Score,
    counted: &Counted<'_>,
    regime: Regime,
    notional_usd: Money,
) -> RiskRequest {
    RiskRequest {
        key: inputs.key,
        symbol: inputs.signal.head.symbol,
        side,
        notional_usd,
        entry: levels.entry,
        stop: Some(levels.stop),
        target: Some(levels.target),
        leverage: inputs.signal.leverage,
        confidence,
        regime,
        price_at: inputs.price.map(|price| price.at),
        quote_usd: inputs.quote_usd.unwrap_or_default(),
        volatility_spike: inputs.volatility_spike,
        ta_confidence: counted.ta.map(|output| output.head.confidence),
        sentiment_confidence: counted.sentiment.map(|output| output.head.confidence),
    }
}

/// What the signal asked for and what a dry run of risk would leave; absent when `risk_override` is off or risk would
/// refuse, which it will say itself.
fn dry_run(inputs: &DecisionInputs<'_>, request: &RiskRequest) -> Option<(Money, Money)> {
    let on = inputs.rules.conflicts.detect.get(&crate::model::ConflictKind::RiskOverride).copied().unwrap_or(false);
    if !on {
        return None;
    }
    let left = risk::check(inputs.view, inputs.rules.risk, request, inputs.gate.now).ok()?.notional_usd;
    let asked = inputs.view.equity * inputs.signal.position_size_pct.as_decimal() / Decimal::ONE_HUNDRED;
    Some((asked, left))
}

fn below_minimum(rules: &RiskRules, request: &RiskRequest) -> bool {
    let unit = request.entry.checked_mul(request.quote_usd);
    let quantity = unit.and_then(|unit| request.notional_usd.checked_div(unit));
    match (rules.symbol(request.symbol), quantity) {
        (Some(rule), Some(quantity)) => rule.floor_quantity(quantity) < rule.min_quantity,
        // Not sizeable at all: risk refuses it with the field that is wrong.
        _ => false,
    }
}

/// From risk's answer to the order. `signal_at` is when the signal was produced.
///
/// When this ends without an intent after an approval, the caller releases the reservation from risk's view: no
/// `RiskApproved` is recorded then. `RiskApproved` is always recorded in one commit with the intent.
pub fn after_risk(
    decision: DecisionId,
    request: &RiskRequest,
    verdict: Result<Approved, RiskRefusal>,
    signal_at: Ts,
    gate: Gate,
    settings: &DecisionSettings,
) -> Progress {
    let approved = match verdict {
        Ok(approved) => approved,
        Err(refusal) => {
            let events = vec![Event::RiskRefused { decision, refusal: refusal.clone() }];
            return stop_here(decision, events, DecisionEnd::Refused(refusal));
        }
    };
    if let Some(why) = closed(gate) {
        return stop_here(decision, Vec::new(), suppressed(why));
    }
    if !degradation::allows_entries(gate.level) {
        return stop_here(decision, Vec::new(), suppressed("degraded"));
    }
    if gate.now.since_ms(signal_at) > i64::from(settings.max_age_seconds) * 1000 {
        return stop_here(decision, Vec::new(), DecisionEnd::Expired);
    }
    let order = EntryOrder {
        key: request.key,
        symbol: request.symbol,
        side: request.side,
        quantity: approved.quantity,
        entry: request.entry,
        stop: request.stop,
        target: request.target,
        leverage: approved.leverage,
    };
    let event = Event::RiskApproved {
        decision,
        reservation: approved.reservation,
        notional_usd: approved.notional_usd,
        notes: approved.notes,
    };
    let next = Next::Intent(Box::new(order));
    Progress { events: vec![event], cancel_first: Vec::new(), defer_legs: Vec::new(), next }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
