//! The state: the fold of the journal. Values only; it changes only through [`State::apply`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{spending::ModelSpending, *};

/// Everything the journal folds to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Identity and position in the journal.
    pub meta: Meta,
    /// Who may trade, claims and markers.
    pub coordinator: CoordinatorView,
    /// Balances.
    pub account: Account,
    /// Open positions.
    pub positions: BTreeMap<PositionId, Position>,
    /// Trades that are not terminal.
    pub trades: BTreeMap<TradeKey, Trade>,
    /// Every trade key ever used with the hash of its body and its last known state; makes insertion idempotent.
    pub trade_index: BTreeMap<TradeKey, TradeStub>,
    /// The active plan and the last ended one.
    pub plans: BTreeMap<Uuid, Plan>,
    /// Decisions that have not ended.
    pub decisions: BTreeMap<DecisionId, OpenDecision>,
    /// Periods, breakers, cooldown, streaks, reservations.
    pub risk: RiskState,
    /// Emergency actions of the current periods.
    pub emergencies: BTreeMap<String, Emergency>,
    /// Command keys of the last 24 h with their answers.
    pub commands: BTreeMap<String, CommandRecord>,
    /// Votes waiting to be marked, and tallies.
    pub leaderboard: Leaderboard,
    /// Totals for status and reports.
    pub totals: Totals,
    /// What model calls hold and cost; absent in the stored form while no model was ever called.
    #[serde(default, skip_serializing_if = "unused")]
    pub models: ModelSpending,
}

impl State {
    /// What needs prices whatever the settings say: symbols of positions, living orders and planned legs, and against
    /// `currency` everything they are quoted in and every asset that is held.
    pub fn symbols_at_stake(&self, currency: Asset) -> BTreeSet<Symbol> {
        let positions = self.positions.values().map(|held| held.symbol);
        let orders = self.trades.values().map(|trade| trade.body.symbol);
        let plans = self.plans.values().filter(|plan| plan.state == PlanState::Active);
        let legs = plans.flat_map(|plan| &plan.legs).filter(|leg| leg.state == TradeState::Planned);
        let mut symbols: BTreeSet<Symbol> = positions.chain(orders).chain(legs.map(|leg| leg.symbol)).collect();
        let quotes: Vec<Asset> = symbols.iter().map(|symbol| symbol.quote).collect();
        let held = self.account.ledger.keys().filter(|asset| !self.account.total(**asset).is_zero());
        let valued = held.copied().chain(quotes).filter(|asset| *asset != currency);
        symbols.extend(valued.map(|base| Symbol { base, quote: currency }));
        symbols
    }
}

fn unused(models: &ModelSpending) -> bool {
    *models == ModelSpending::default()
}

/// Identity and position in the journal.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Store identity; nil before `StoreCreated`.
    pub store: Uuid,
    /// Drives every random draw.
    pub seed: u64,
    /// `simulated`, `csv` or `live`.
    pub data_kind: String,
    /// When the store was created.
    pub created_at: Ts,
    /// Newest boot epoch.
    pub epoch: u32,
    /// Last applied record.
    pub seq: u64,
    /// Highest logical time seen in a record.
    pub logical_time: Ts,
    /// The newest record is a clean stop.
    pub clean_stop: bool,
    /// SHA-256 of the settings of the newest boot.
    pub config_hash: String,
    /// First request number of the venue account that is not reserved.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nonces: u64,
    /// How far the candles of a downtime are worked off; only with `restart_fill_policy = "replay"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replayed: BTreeMap<Symbol, Replayed>,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Who may trade, claimed slots and markers of money-relevant runs.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CoordinatorView {
    /// Current state.
    pub state: CoordinatorState,
    /// Not empty ⇔ PAUSED unless HALTED.
    pub pause_reasons: BTreeSet<String>,
    /// Present ⇔ HALTED.
    pub halt: Option<Halt>,
    /// Halts so far; part of the next halt id.
    pub halts: u64,
    /// Markers of decision and portfolio runs, one per key.
    #[serde(with = "pairs")]
    pub in_flight: BTreeMap<RunKey, InFlightMarker>,
    /// Newest claimed grid slot of decision and portfolio keys.
    #[serde(with = "pairs")]
    pub last_slot: BTreeMap<RunKey, i64>,
    /// Inputs of the last success of decision and portfolio keys.
    #[serde(with = "pairs")]
    pub consumed: BTreeMap<RunKey, BTreeMap<TaskName, Ts>>,
    /// Last success of decision and portfolio keys.
    #[serde(with = "pairs")]
    pub last_success: BTreeMap<RunKey, Ts>,
    /// Operator switches.
    pub task_switches: BTreeMap<TaskName, bool>,
    /// Keys that are out.
    #[serde(with = "pairs")]
    pub quarantine: BTreeMap<RunKey, QuarantineEntry>,
    /// Level by capability.
    pub degradation: BTreeMap<Capability, DegradationLevel>,
}

/// A quarantined key.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Absent = until released.
    pub until: Option<Ts>,
    /// Why.
    pub reason: String,
    /// How often within 24 h.
    pub count: u32,
}

/// Balances as a double-entry ledger.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// What was paid in; never changes after the first boot.
    pub baseline: BTreeMap<Asset, Money>,
    /// Accounts by asset.
    pub ledger: BTreeMap<Asset, BTreeMap<LedgerAccount, Money>>,
    /// Cost of inventory (not of trading positions) by symbol, in the symbol's quote asset.
    pub inventory_cost: BTreeMap<Symbol, InventoryLot>,
    /// Next position number.
    pub last_position: PositionId,
}

/// Inventory of one symbol's base asset bought through that symbol, at average cost.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct InventoryLot {
    /// Base units.
    pub quantity: Qty,
    /// Quote units paid for them.
    pub cost: Money,
}

impl Account {
    /// Sum of one account of one asset; zero when nothing was posted.
    pub fn get(&self, asset: Asset, account: LedgerAccount) -> Money {
        self.ledger.get(&asset).and_then(|accounts| accounts.get(&account)).copied().unwrap_or_default()
    }

    /// Spendable balance.
    pub fn free(&self, asset: Asset) -> Money {
        self.get(asset, LedgerAccount::Free)
    }

    /// Held by living orders.
    pub fn locked(&self, asset: Asset) -> Money {
        self.get(asset, LedgerAccount::Locked)
    }

    /// The first asset of which `postings` would leave less than nothing to spend, with what it would leave.
    pub fn overdrawn(&self, postings: &[Posting]) -> Option<(Asset, Money)> {
        postings.iter().map(|posting| posting.asset).find_map(|asset| {
            let free = postings.iter().filter(|p| p.asset == asset && p.account == LedgerAccount::Free);
            let left = self.free(asset) + free.map(|posting| posting.amount).sum::<Money>();
            (left < Money::ZERO).then_some((asset, left))
        })
    }

    /// The first account of the books that `postings` would take beyond [`AMOUNT_MAX`], with what it would hold.
    pub fn overflow(&self, postings: &[Posting]) -> Option<(Asset, LedgerAccount, Money)> {
        // What each account holds after the postings so far; there are a handful of them.
        let mut after: Vec<(Asset, LedgerAccount, Money)> = Vec::with_capacity(postings.len());
        postings.iter().find_map(|Posting { asset, account, amount }| {
            let known = after.iter_mut().find(|(of, at, _)| (of, at) == (asset, account)).map(|(_, _, held)| held);
            let held = known.as_deref().copied().unwrap_or_else(|| self.get(*asset, *account));
            let sum = held.checked_add(*amount).unwrap_or(Money::MAX);
            match known {
                Some(held) => *held = sum,
                None => after.push((*asset, *account, sum)),
            }
            (sum.abs() > AMOUNT_MAX).then_some((*asset, *account, sum))
        })
    }

    /// Free + locked.
    pub fn total(&self, asset: Asset) -> Money {
        self.free(asset) + self.locked(asset)
    }
}

/// What is remembered of a terminal trade.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct TradeStub {
    /// First 8 bytes of the SHA-256 of the body's JSON.
    pub body_hash: u64,
    /// Newest state.
    pub state: TradeState,
}

/// Risk's durable part.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RiskState {
    /// Day number of the current day period.
    pub day: i64,
    /// Equity at its start.
    pub day_start_equity: Money,
    /// ISO week of the current week period.
    pub week: i64,
    /// Equity at its start.
    pub week_start_equity: Money,
    /// Highest equity since the last re-basing.
    pub peak: Money,
    /// Latched breakers.
    pub latched: BTreeMap<BreakerKind, Latch>,
    /// Trips so far, by breaker; numbers the periods of breakers without one.
    pub trips: BTreeMap<BreakerKind, u64>,
    /// Entries are refused before this instant.
    pub cooldown_until: Ts,
    /// Why.
    pub cooldown_cause: Option<CooldownCause>,
    /// Losing closes in a row.
    pub losses: u32,
    /// Winning closes in a row.
    pub wins: u32,
    /// Technical order errors in a row.
    pub order_errors: u32,
    /// Held for trades that are not terminal.
    pub reservations: BTreeMap<TradeKey, Reservation>,
}

/// Votes and their marks.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Leaderboard {
    /// Decisions whose votes are not marked yet.
    pub pending: BTreeMap<DecisionId, PendingVotes>,
    /// By voter.
    pub tallies: BTreeMap<String, VoterTally>,
}

/// The ballots of one decision with the price they are marked against.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PendingVotes {
    /// Which symbol.
    pub symbol: Symbol,
    /// When they were cast.
    pub at: Ts,
    /// Price then.
    pub price: Price,
    /// By voter: action and confidence of valid votes.
    pub votes: Vec<(String, Action, Score)>,
}

/// One voter's record.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct VoterTally {
    /// Valid votes.
    pub votes: u64,
    /// By action.
    pub by_action: BTreeMap<Action, u64>,
    /// Abstentions.
    pub abstentions: u64,
    /// Failures.
    pub failures: u64,
    /// Failures by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures_by_kind: BTreeMap<String, u64>,
    /// What asking its models took and cost; absent for a voter by rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<ModelTally>,
    /// Marked votes.
    pub marked: u64,
    /// Marked and right.
    pub correct: u64,
    /// Votes without a price at the mark time.
    pub unmarked: u64,
    /// Sum of signed returns of marked BUY and SELL votes, basis points.
    pub return_bp_sum: Decimal,
    /// How many returns are in the sum.
    pub return_count: u64,
    /// Sum of confidences of valid votes, ten-thousandths.
    pub confidence_sum: i64,
    /// By confidence decile: marked, correct.
    pub calibration: [(u64, u64); 10],
}

/// What the questions of one model voter took and cost.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ModelTally {
    /// Questions asked.
    pub calls: u64,
    /// Questions of which no call was made: no budget, an open breaker, no rate, not recorded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unasked: u64,
    /// What they cost, USD.
    pub cost_usd: Money,
    /// Sum of their times, milliseconds.
    pub latency_ms_sum: i64,
    /// Times of the newest questions, oldest first, milliseconds; at most [`LATENCIES_KEPT`].
    pub latencies_ms: Vec<i64>,
}

/// Over how many newest questions the median time of a voter is taken.
pub const LATENCIES_KEPT: usize = 64;

/// Totals for status and reports.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Signals received.
    pub signals: u64,
    /// Ended decisions by end.
    pub decisions: BTreeMap<String, u64>,
    /// Intents made.
    pub orders: u64,
    /// Fills applied.
    pub fills: u64,
    /// Positions closed.
    pub closed_trades: u64,
    /// Of these with net > 0.
    pub winning_trades: u64,
    /// Fees in the account currency, at the price of the fill.
    pub fees: BTreeMap<Asset, Money>,
}

/// Maps with structured keys as lists of pairs, because JSON keys are text.
pub(crate) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(map.iter())
    }

    pub fn deserialize<'de, K, V, D>(d: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(d)?.into_iter().collect())
    }
}
