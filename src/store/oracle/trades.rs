//! Checks 1, 4 and 5: what became of every trade key, told by the events alone.
//!
//! The table of ranks below is written from the rules of trades, not taken from the state's own.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{Check, Figures, Found, running::Running};
use crate::model::{Event, Plan, Qty, Record, Side, State, Symbol, Trade, TradeKey, TradeState, Ts, time::HOUR_MS};

/// What waits for something that is over, and the program ran on for so long, waits for nothing: the end of a resting
/// order, the next attempt.
const OVERDUE_MS: i64 = 2 * HOUR_MS;
/// A leg may wait for a price as long as `legs.max_lateness_seconds` allows, a day at most; then its plan ends.
const LATE_LEG_MS: i64 = 26 * HOUR_MS;
/// A submission nobody has answered for so long, program time, is explained by nothing: a start asks again at once.
const STUCK_MS: i64 = 24 * HOUR_MS;
/// And so many records must have followed it, so that a store that was only restarted a moment ago is not accused.
const STUCK_RECORDS: u64 = 1_000;

/// Why a trade may not be filled straight from its intent.
const NEVER_SUBMITTED: &str = "it was never submitted";

/// Where a trade stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    Planned,
    Intent,
    Submitting,
    Unknown,
    NotExecuted,
    Acked,
    Partial,
    Filled,
    /// Left to the operator: the rank of an end, and not an end.
    Manual,
    Settled,
    Cancelled,
    Rejected,
    Refused,
    Expired,
    Superseded,
}

impl Stage {
    const ALL: [Stage; 15] = [
        Stage::Planned,
        Stage::Intent,
        Stage::Submitting,
        Stage::Unknown,
        Stage::NotExecuted,
        Stage::Acked,
        Stage::Partial,
        Stage::Filled,
        Stage::Manual,
        Stage::Settled,
        Stage::Cancelled,
        Stage::Rejected,
        Stage::Refused,
        Stage::Expired,
        Stage::Superseded,
    ];

    const fn rank(self) -> u8 {
        match self {
            Stage::Planned => 0,
            Stage::Intent => 1,
            Stage::Submitting | Stage::Unknown | Stage::NotExecuted => 2,
            Stage::Acked => 3,
            Stage::Partial => 4,
            Stage::Filled => 5,
            _ => 6,
        }
    }

    const fn is_terminal(self) -> bool {
        self.rank() == 6 && !matches!(self, Stage::Manual)
    }

    /// Why a trade may not go from `self` to `to`; nothing when it may.
    fn forbids(self, to: Stage) -> Option<&'static str> {
        use Stage::{Expired, Filled, Intent, Manual, NotExecuted, Partial, Planned, Settled, Submitting, Unknown};
        let retried = (self, to) == (NotExecuted, Submitting);
        let level = matches!(
            (self, to),
            (Partial, Partial)
                | (Submitting, Unknown | NotExecuted)
                | (Unknown, NotExecuted)
                | (NotExecuted, Submitting)
                | (Manual, Settled | Expired | Manual)
        );
        if self.is_terminal() {
            Some("it was terminal")
        } else if to.rank() < self.rank() && !retried {
            Some("its rank would fall")
        } else if to.rank() == self.rank() && !level {
            Some("nothing leads there from a state of the same rank")
        } else if matches!(self, Planned | Intent) && matches!(to, Stage::Acked | Partial | Filled | Settled | Manual) {
            Some(NEVER_SUBMITTED)
        } else if to == Settled && !matches!(self, Filled | Manual) {
            Some("it was not filled")
        } else {
            None
        }
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// One trade key.
#[derive(Clone, Debug)]
struct Seen {
    stage: Stage,
    /// Record and time of its newest change.
    seq: u64,
    at: Ts,
    attempt: u32,
    /// Absent for a leg that has no order yet.
    order: Option<(Symbol, Side, Qty)>,
    filled: Qty,
    /// Fills booked; the next one has this number.
    fills: u32,
    plan: Option<Uuid>,
    due: Option<Ts>,
    until: Option<Ts>,
    /// The venue was asked to cancel it, and only its answer ends it.
    cancel: bool,
}

/// One plan.
#[derive(Clone, Debug)]
struct KnownPlan {
    ended: bool,
    spacing_ms: i64,
    legs: Vec<TradeKey>,
}

/// A trade that is not terminal and why.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Waiting {
    /// Which.
    pub key: TradeKey,
    /// Where it stands.
    pub state: String,
    /// Record that brought it there.
    pub seq: u64,
    /// What it waits for.
    pub why: String,
}

/// All trade keys and plans.
#[derive(Clone, Debug, Default)]
pub(super) struct Trades {
    seen: BTreeMap<TradeKey, Seen>,
    open: BTreeSet<TradeKey>,
    plans: BTreeMap<Uuid, KnownPlan>,
    /// Filled in this batch.
    filled: Vec<TradeKey>,
    counted: Figures,
}

impl Trades {
    pub(super) fn observe(&mut self, record: &Record, found: &mut Found<'_>) {
        use Event as E;
        match &record.event {
            E::TradeRejected { trade_key, .. } => _ = self.go(record, trade_key, Stage::Rejected, found),
            E::TradeRefused { trade_key, .. } => _ = self.go(record, trade_key, Stage::Refused, found),
            E::TradeExpired { trade_key, .. } => _ = self.go(record, trade_key, Stage::Expired, found),
            E::TradeCancelled { trade_key, .. } => _ = self.go(record, trade_key, Stage::Cancelled, found),
            E::TradeManual { trade_key, .. } => _ = self.go(record, trade_key, Stage::Manual, found),
            E::TradeResolved { trade_key, .. }
                if self.seen.get(trade_key).is_none_or(|seen| seen.stage != Stage::Manual) =>
            {
                let what = format!("trade {} is resolved, but is not left to the operator", trade_key.short());
                found.add(Check::Ranks, what);
            }
            E::TradeCancelRequested { trade_key, .. } => {
                self.seen.get_mut(trade_key).into_iter().for_each(|seen| seen.cancel = true);
            }
            E::TradeUnknown { trade_key, .. } => _ = self.go(record, trade_key, Stage::Unknown, found),
            E::TradeNotExecuted { trade_key, retry_at, .. } => {
                self.go(record, trade_key, Stage::NotExecuted, found)
                    .into_iter()
                    .for_each(|seen| seen.until = *retry_at);
            }
            E::TradeAcked { trade_key, expires_at } => {
                self.go(record, trade_key, Stage::Acked, found).into_iter().for_each(|seen| seen.until = *expires_at);
            }
            E::TradeIntent { trade } => self.intent(record, trade, found),
            E::TradeSubmitting { trade_key, attempt, .. } => {
                let Some(seen) = self.go(record, trade_key, Stage::Submitting, found) else { return };
                let expected = seen.attempt + 1;
                seen.attempt = *attempt;
                if *attempt != expected {
                    let what = format!("trade {} is submitted as attempt {attempt}, not {expected}", trade_key.short());
                    found.add(Check::Ranks, what);
                }
            }
            E::TradeFill { .. } => self.fill(record, found),
            E::TradeSettled { trade_key } => {
                let Some(seen) = self.go(record, trade_key, Stage::Settled, found) else { return };
                let ordered = seen.order.map_or(Qty::ZERO, |order| order.2);
                if seen.filled != ordered {
                    let what = format!("trade {} is settled with {} of {ordered}", trade_key.short(), seen.filled);
                    found.add(Check::Executions, what);
                }
                self.counted.settled += 1;
            }
            E::PlanCreated { plan } => self.plan_made(record, plan, found),
            E::LegsRespread { due, .. } => {
                for (key, at) in due {
                    match self.seen.get_mut(key).filter(|seen| seen.stage == Stage::Planned) {
                        Some(seen) => seen.due = Some(*at),
                        None => found.add(Check::Ranks, format!("leg {} is moved, but is not planned", key.short())),
                    }
                }
            }
            E::LegsCancelled { legs, .. } => {
                for key in legs {
                    if self.seen.get(key).is_none_or(|seen| seen.stage != Stage::Planned) {
                        found.add(Check::Ranks, format!("leg {} is cancelled, but is not planned", key.short()));
                    }
                    self.go(record, key, Stage::Cancelled, found);
                }
            }
            E::PlanSuperseded { plan, .. } => self.plan_ended(record, plan, Some(Stage::Superseded), found),
            E::PlanExpired { plan } => self.plan_ended(record, plan, Some(Stage::Expired), found),
            E::PlanCompleted { plan } => self.plan_ended(record, plan, None, found),
            _ => {}
        }
    }

    /// Moves a trade on; the new state is taken over even when it is forbidden, so that one error is told once.
    fn go(&mut self, record: &Record, key: &TradeKey, to: Stage, found: &mut Found<'_>) -> Option<&mut Seen> {
        self.counted.steps += 1;
        let Some(seen) = self.seen.get_mut(key) else {
            found.add(Check::Executions, format!("trade {} becomes {}, but was never made", key.short(), to.name()));
            return None;
        };
        if let Some(why) = seen.stage.forbids(to) {
            let (from, to, seq) = (seen.stage.name(), to.name(), seen.seq);
            let what = format!("trade {} goes from {from} (record {seq}) to {to}: {why}", key.short());
            found.add(if why == NEVER_SUBMITTED { Check::Executions } else { Check::Ranks }, what);
        }
        (seen.stage, seen.seq, seen.at, seen.until) = (to, record.seq, record.ts, None);
        if to.is_terminal() {
            self.open.remove(key);
        }
        Some(seen)
    }

    fn begin(&mut self, record: &Record, key: TradeKey, stage: Stage) -> &mut Seen {
        self.counted.trades += 1;
        self.open.insert(key);
        let new = Seen {
            stage,
            seq: record.seq,
            at: record.ts,
            attempt: 0,
            order: None,
            filled: Qty::ZERO,
            fills: 0,
            plan: None,
            due: None,
            until: None,
            cancel: false,
        };
        self.seen.entry(key).insert_entry(new).into_mut()
    }

    fn intent(&mut self, record: &Record, trade: &Trade, found: &mut Found<'_>) {
        let (key, body) = (trade.key, &trade.body);
        self.counted.intents += 1;
        // A leg of less than a lot is written with nothing and rejected in the same batch; any fill of it is too much.
        if trade.state != TradeState::Intent || !trade.filled.is_zero() || body.quantity < Qty::ZERO {
            let what = format!("trade {} begins as {:?} with {} filled", key.short(), trade.state, trade.filled);
            found.add(Check::Executions, what);
        }
        let order = Some((body.symbol, body.side, body.quantity));
        match self.seen.get(&key).map(|seen| (seen.stage, seen.seq)) {
            None => self.begin(record, key, Stage::Intent).order = order,
            Some((Stage::Planned, _)) => {
                self.go(record, &key, Stage::Intent, found).into_iter().for_each(|seen| seen.order = order);
            }
            Some((stage, seq)) => {
                let what = format!("a second intent of trade {}, {} since record {seq}", key.short(), stage.name());
                found.add(Check::Executions, what);
            }
        }
    }

    fn fill(&mut self, record: &Record, found: &mut Found<'_>) {
        let Event::TradeFill { trade_key, fill_id, symbol, side, quantity, .. } = &record.event else { return };
        self.counted.fills += 1;
        let short = trade_key.short();
        let Some(seen) = self.seen.get_mut(trade_key) else {
            found.add(Check::Executions, format!("fill {fill_id} belongs to no trade"));
            return;
        };
        if *fill_id != format!("{trade_key}:{}", seen.fills) {
            let what = format!("is booked twice or is not its own, number {} is next", seen.fills);
            found.add(Check::Executions, format!("fill {fill_id} of trade {short} {what}"));
        }
        seen.fills += 1;
        seen.filled = seen.filled.saturating_add(*quantity);
        let (filled, ordered) = (seen.filled, seen.order.map_or(Qty::ZERO, |order| order.2));
        if *quantity <= Qty::ZERO || filled > ordered {
            let what = format!("trade {short} is filled with {quantity}, {filled} in all, of {ordered} ordered");
            found.add(Check::Executions, what);
        }
        if seen.order.is_some_and(|order| (order.0, order.1) != (*symbol, *side)) {
            found.add(Check::Executions, format!("fill {fill_id} has another symbol or side than its trade"));
        }
        let resting_until = seen.until;
        let to = match seen.stage {
            // What the operator stated; how the trade ends is said beside it.
            Stage::Manual => Stage::Manual,
            _ if filled >= ordered => Stage::Filled,
            _ => Stage::Partial,
        };
        if let Some(seen) = self.go(record, trade_key, to, found) {
            seen.until = resting_until;
        }
        if to == Stage::Filled {
            self.filled.push(*trade_key);
        }
    }

    fn plan_made(&mut self, record: &Record, plan: &Plan, found: &mut Found<'_>) {
        self.counted.plans += 1;
        for leg in &plan.legs {
            if let Some(known) = self.seen.get(&leg.key) {
                let what = format!("leg {} of plan {} exists since record {}", leg.key.short(), plan.id, known.seq);
                found.add(Check::Executions, what);
                continue;
            }
            let seen = self.begin(record, leg.key, Stage::Planned);
            (seen.plan, seen.due) = (Some(plan.id), Some(leg.due_at));
        }
        let legs = plan.legs.iter().map(|leg| leg.key).collect();
        if self.plans.insert(plan.id, KnownPlan { ended: false, spacing_ms: plan.spacing_ms, legs }).is_some() {
            found.add(Check::Executions, format!("plan {} is made a second time", plan.id));
        }
    }

    fn plan_ended(&mut self, record: &Record, id: &Uuid, rest: Option<Stage>, found: &mut Found<'_>) {
        let Some(plan) = self.plans.get_mut(id) else {
            found.add(Check::Promises, format!("plan {id} ends, but was never made"));
            return;
        };
        plan.ended = true;
        for key in plan.legs.clone() {
            let stage = self.seen.get(&key).map_or(Stage::Expired, |seen| seen.stage);
            match rest {
                Some(to) if stage == Stage::Planned => drop(self.go(record, &key, to, found)),
                None if !stage.is_terminal() => {
                    let what = format!("plan {id} is completed while leg {} is {}", key.short(), stage.name());
                    found.add(Check::Waiting, what);
                }
                _ => {}
            }
        }
    }

    /// A fill that completes an order and its SETTLED are one commit: FILLED is never alone on disk.
    pub(super) fn end_of_batch(&mut self, found: &mut Found<'_>) {
        for key in std::mem::take(&mut self.filled) {
            if self.seen.get(&key).is_some_and(|seen| seen.stage == Stage::Filled) {
                found.add(Check::Waiting, format!("trade {} is filled, but not settled in one batch", key.short()));
            }
        }
    }

    /// The fold holds exactly the orders that are not terminal here, in the same state and filled as far.
    pub(super) fn compare(&self, state: &State, found: &mut Found<'_>) {
        let living = |key: &TradeKey| {
            let seen = self.seen.get(key).filter(|seen| seen.stage != Stage::Planned)?;
            Some((*key, (seen.stage.name(), seen.filled)))
        };
        let ours: BTreeMap<TradeKey, (String, Qty)> = self.open.iter().filter_map(living).collect();
        let held = |trade: &Trade| (trade.key, (format!("{:?}", trade.state).to_lowercase(), trade.filled));
        let theirs: BTreeMap<TradeKey, (String, Qty)> = state.trades.values().map(held).collect();
        for key in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let (ours, theirs) = (ours.get(key), theirs.get(key));
            if ours != theirs {
                let what = format!("trade {} is {ours:?} by its events and {theirs:?} in the state", key.short());
                found.add(Check::Ranks, what);
            }
        }
    }

    pub(super) fn plan(&self, id: &Uuid) -> Result<(), String> {
        let known = self.plans.contains_key(id);
        known.then_some(()).ok_or_else(|| format!("plan {id} was shown, but the journal does not hold it"))
    }

    /// A trade that was shown is there, and neither its rank nor its fills are less than shown.
    pub(super) fn shown(&self, key: &TradeKey, state: Option<&str>, filled: Qty) -> Result<(), String> {
        let Some(seen) = self.seen.get(key) else {
            return Err(format!("trade {key} was shown, but the journal does not hold it"));
        };
        if seen.filled < filled {
            return Err(format!("trade {key} was shown with {filled} filled, the journal holds {}", seen.filled));
        }
        let Some(state) = state else { return Ok(()) };
        match Stage::ALL.into_iter().find(|stage| stage.name() == state) {
            None => Err(format!("trade {key} was shown as `{state}`, which is no state")),
            Some(shown) if shown.rank() > seen.stage.rank() => {
                Err(format!("trade {key} was shown as {state}, the journal says {}", seen.stage.name()))
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn waiting(&self, running: &Running, now: Ts, found: &mut Found<'_>) -> Vec<Waiting> {
        let one = |key: &TradeKey| {
            let seen = self.seen.get(key)?;
            let why = match self.explain(seen, running, now, found.seq) {
                Ok(why) => why,
                Err(why) => {
                    let (state, seq) = (seen.stage.name(), seen.seq);
                    found.add(Check::Waiting, format!("trade {} is {state} since record {seq}: {why}", key.short()));
                    why
                }
            };
            Some(Waiting { key: *key, state: seen.stage.name(), seq: seen.seq, why })
        };
        self.open.iter().filter_map(one).collect()
    }

    fn explain(&self, seen: &Seen, running: &Running, now: Ts, last: u64) -> Result<String, String> {
        let followed = last.saturating_sub(seen.seq) > STUCK_RECORDS;
        let stuck = now.since_ms(seen.at) > STUCK_MS && followed;
        let until = |what: &str| seen.until.map_or_else(|| what.to_owned(), |at| format!("{what} until {at}"));
        match seen.stage {
            Stage::Planned => self.explain_leg(seen, running),
            Stage::Intent | Stage::Submitting if stuck => Err("nothing answered it for a day".to_owned()),
            Stage::Intent => Ok("about to be submitted; nothing was sent".to_owned()),
            Stage::Submitting => Ok("its answer is not recorded yet; the next start asks again".to_owned()),
            Stage::Unknown if followed && running.ran_since(seen.at) > STUCK_MS => {
                Err("the program ran on for a day and neither found out its fate nor left it to the operator"
                    .to_owned())
            }
            Stage::Unknown => Ok("the venue's answer is being sought".to_owned()),
            Stage::Manual => Ok("left to the operator: `resolve-manual`".to_owned()),
            Stage::NotExecuted if running.open_since(seen.until.unwrap_or(seen.at)) > OVERDUE_MS => {
                Err(format!("{}, which is over, and the program ran on", until("the next attempt waited")))
            }
            Stage::NotExecuted => Ok(until("the next attempt waits")),
            Stage::Acked | Stage::Partial if seen.cancel => Ok("the venue was asked to cancel it".to_owned()),
            Stage::Acked | Stage::Partial if seen.until.is_some_and(|at| running.ran_since(at) > OVERDUE_MS) => {
                Err(format!("{}, which is over, and the program ran on", until("it was to rest")))
            }
            Stage::Acked | Stage::Partial => Ok(until("rests at the venue")),
            _ => Err("it must not be alone on disk".to_owned()),
        }
    }

    fn explain_leg(&self, seen: &Seen, running: &Running) -> Result<String, String> {
        let Some(plan) = seen.plan.and_then(|id| self.plans.get(&id)).filter(|plan| !plan.ended) else {
            return Err("its plan has ended".to_owned());
        };
        let last = plan.legs.iter().filter_map(|key| self.seen.get(key)?.due).max();
        match last.map(|last| last.plus_ms(plan.spacing_ms)) {
            Some(end) if running.open_since(end) > LATE_LEG_MS => {
                Err(format!("the time of its plan was over at {end}, and the program ran on with nothing in its way"))
            }
            _ => Ok(seen.due.map_or_else(|| "due".to_owned(), |at| format!("due at {at}"))),
        }
    }

    pub(super) fn count(&self, figures: &mut Figures) {
        let Figures { trades, intents, fills, settled, steps, plans, .. } = self.counted;
        *figures = Figures { trades, intents, fills, settled, steps, plans, ..*figures };
    }
}
