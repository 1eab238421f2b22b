//! What `status` answers: one consistent picture, made by the coordinator in one message.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::agents::leaderboard::BoardRow;
use crate::llm::actor::ProviderStatus;
use crate::model::{Money, Price, Qty, Recovered, Symbol, TaskName, Ts};

/// The answer to `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// `RUNNING`, `PAUSED` or `HALTED`.
    pub state: String,
    /// Why PAUSED; empty otherwise.
    pub pause_reasons: Vec<String>,
    /// What `reset` must name; present while HALTED.
    pub halt_id: Option<String>,
    /// Why HALTED.
    pub halt_reason: Option<String>,
    /// Global level: the highest of all capabilities.
    pub degradation: String,
    /// Latched breakers; each refuses entries.
    pub latched_breakers: Vec<String>,
    /// Actors that panicked too often since the start and are gone until the next one; absent when there is none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub given_up: BTreeSet<String>,
    /// `paper`
    pub mode: String,
    /// Program version.
    pub version: String,
    /// Boot epoch of the store.
    pub boot_epoch: u32,
    /// Logical time of this answer.
    pub now: Ts,
    /// Program clock against real time.
    pub speed: u32,
    /// Real seconds since this process was ready.
    pub uptime_seconds: u64,
    /// What this boot found.
    pub recovered: Recovered,
    /// Every (task, symbol).
    pub tasks: Vec<TaskStatus>,
    /// Start lateness of runs, milliseconds of logical time.
    pub lateness_ms: Lateness,
    /// Slots that were never claimed.
    pub missed_slots: u64,
    /// Slots and requests that ended without a run, by reason, since the start of the process.
    #[serde(default)]
    pub skips: BTreeMap<String, u64>,
    /// Balances and equity.
    pub account: AccountStatus,
    /// Open positions.
    pub positions: Vec<PositionStatus>,
    /// Trades that are not terminal.
    pub orders: Vec<OrderStatus>,
    /// Planned legs of the active plan.
    pub scheduled: Vec<ScheduledStatus>,
    /// Every symbol's feed.
    pub feeds: Vec<FeedLine>,
    /// The clock against the venue.
    #[serde(default)]
    pub clock: ClockStatus,
    /// Where the journal stands.
    pub journal: JournalHead,
    /// Every provider of models; absent when no chain is configured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ProviderStatus>,
    /// The budget of model calls; absent when no chain is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetStatus>,
    /// What became of notifications; absent when none are posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<NotificationStatus>,
    /// The leaderboard of the voters, best first; empty before the first decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<BoardRow>,
    /// Totals since the store was created.
    pub totals: BTreeMap<String, u64>,
}

/// What became of notifications since the start.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct NotificationStatus {
    /// Taken by the address.
    pub sent: u64,
    /// Given up, or pushed out by newer ones.
    pub dropped: u64,
    /// On their way.
    pub waiting: u64,
    /// Why the newest one could not be posted.
    pub failing: Option<String>,
}

/// One key of the schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Which task.
    pub task: TaskName,
    /// Which symbol.
    pub symbol: Symbol,
    /// A run is under way.
    pub running: bool,
    /// End of the newest accepted success.
    pub last_success_at: Option<Ts>,
    /// How the newest run ended.
    pub last_outcome: Option<String>,
    /// Next due instant.
    pub next_due_at: Option<Ts>,
    /// Why the newest skipped slot was skipped.
    pub last_skip_reason: Option<String>,
    /// How its newest accepted opinion came about; absent before the first, and for tasks that give none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opinion: Option<OpinionStatus>,
}

/// How an opinion came about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpinionStatus {
    /// `rules`, or `provider/model`.
    pub path: String,
    /// The rules stood in for a model: such an opinion never votes.
    pub degraded: bool,
    /// Why, and other remarks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What models have cost on this UTC day, USD.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// All of it, what is held included.
    pub spent_usd: Money,
    /// Held by calls under way or lost in a crash.
    pub reserved_usd: Money,
    /// `budget.daily_usd`.
    pub limit_usd: Money,
    /// What opinions have spent.
    pub opinions_spent_usd: Money,
    /// What opinions may spend.
    pub opinions_limit_usd: Money,
    /// `budget.warn_usd` was passed.
    pub warned: bool,
    /// Limits that refused a call today.
    pub exhausted: Vec<String>,
    /// Tasks no model of which can be paid any more today.
    pub unpaid: Vec<TaskName>,
}

/// Percentiles of start lateness (started − due), milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Lateness {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// Balances and equity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountStatus {
    /// Account currency; absent while a price is missing.
    pub equity: Option<Money>,
    /// Free and locked by asset.
    pub balances: BTreeMap<String, BalanceStatus>,
}

/// One asset.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BalanceStatus {
    /// Spendable.
    pub free: Money,
    /// Held by living orders.
    pub locked: Money,
}

/// One open position.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PositionStatus {
    /// `P7`
    pub id: String,
    /// Which symbol.
    pub symbol: Symbol,
    /// `long` or `short`
    pub side: String,
    /// Base units.
    pub quantity: Qty,
    /// Mean entry, quote units.
    pub entry: Price,
    /// Stop, quote units.
    pub stop: Option<Price>,
    /// Target, quote units.
    pub target: Option<Price>,
    /// Gross gain at the newest price, quote units.
    pub unrealised: Option<Money>,
    /// When opened.
    pub opened_at: Ts,
}

/// One living trade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrderStatus {
    /// Trade key, hex.
    pub trade_key: String,
    /// `decision`, `exit`, …
    pub kind: String,
    /// Which symbol.
    pub symbol: Symbol,
    /// `buy` or `sell`
    pub side: String,
    /// Base units.
    pub quantity: Qty,
    /// Base units filled.
    pub filled: Qty,
    /// Limit, quote units; absent for market orders.
    pub limit: Option<Price>,
    /// Trade state.
    pub state: String,
    /// When the intent was made.
    pub created_at: Ts,
    /// When it ends by itself.
    pub expires_at: Option<Ts>,
}

/// One planned leg.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScheduledStatus {
    /// Which plan.
    pub plan: String,
    /// Trade key, hex.
    pub trade_key: String,
    /// 0-based batch.
    pub batch: u32,
    /// Which symbol.
    pub symbol: Symbol,
    /// `buy` or `sell`
    pub side: String,
    /// Account currency.
    pub amount: Money,
    /// When due.
    pub due_at: Ts,
    /// Late, and kept until the operator says `run-scheduled` or `cancel-scheduled`.
    #[serde(default)]
    pub asks_operator: bool,
}

/// One symbol's feed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedLine {
    /// Which symbol.
    pub symbol: Symbol,
    /// Age of the newest price, seconds; absent before the first.
    pub data_age_seconds: Option<f64>,
    /// Data advance and are young enough to trade on.
    pub healthy: bool,
    /// Newest price, quote units.
    pub price: Option<Price>,
    /// Gaps declared so far.
    pub gaps: u64,
    /// Candles and prices withheld because they were too far from the last accepted price (`market.max_jump_pct`).
    #[serde(default)]
    pub withheld: u64,
    /// The newest value was withheld: the price shown is the last accepted one and trades nothing new.
    #[serde(default)]
    pub in_doubt: bool,
    /// Its prices (`market.silence_seconds`) or its candles have stopped: nothing is entered in it until they are back.
    #[serde(default)]
    pub silent: bool,
    /// Distance of the best prices, basis points; absent without a proven book young enough to trade on.
    #[serde(default)]
    pub spread_bps: Option<f64>,
    /// The connection it comes over; absent for feeds without one.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub link: Option<FeedLink>,
}

/// One symbol's part of the connection to a live venue. That it stands says nothing about data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedLink {
    /// A connection stands.
    pub connected: bool,
    /// The venue acknowledged every channel of the symbol on this connection.
    pub subscribed: bool,
    /// The venue's words when it does not serve the symbol.
    pub refused: Option<String>,
    /// Age of the newest message with data, seconds; absent before the first.
    pub last_message_age_seconds: Option<f64>,
    /// Connections after the first one.
    pub reconnects: u64,
    /// Frames heard over the connection, of all symbols.
    #[serde(default)]
    pub frames: u64,
    /// Those of them that could not be understood.
    #[serde(default)]
    pub odd_frames: u64,
    /// Rows of candles that came after their candle was closed, and those a new connection repeats, of all symbols.
    #[serde(default)]
    pub late_rows: u64,
    /// Rows of candles that began more than a minute after our own time, of all symbols; they are not taken.
    #[serde(default)]
    pub future_rows: u64,
    /// Books that did not fit their checksum.
    pub broken_books: u64,
    /// Times its prices stopped while the connection stood.
    pub silences: u64,
    /// Its candles do not come although there are trades: nothing is entered in it until they do.
    #[serde(default)]
    pub candles_frozen: bool,
    /// Times they stopped coming.
    #[serde(default)]
    pub candle_freezes: u64,
    /// Candles missing that nobody could give.
    pub unfilled_candles: u64,
    /// The newest such hole: start of its first candle, and of the first one after it.
    #[serde(default)]
    pub last_gap: Option<(Ts, Ts)>,
    /// State of the venue's engine in its own words; `online` is the only one it trades in.
    #[serde(default)]
    pub system: String,
}

/// The clock against the venue.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ClockStatus {
    /// Venue minus wall, milliseconds (the venue tells whole seconds: ± 500); absent without a venue, or when it was not
    /// told for five minutes.
    pub offset_ms: Option<i64>,
}

/// Where the journal stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct JournalHead {
    /// Last durable record.
    pub seq: u64,
    /// First 32 hex digits of the SHA-256 of its line.
    pub hash: String,
}
