//! The event catalogue: everything that changes the state, each a value that explains itself.
//!
//! A value that cannot be derived (a draw, a chosen price, an id, an end of a cooldown) is in the event. Adding
//! optional fields keeps the version; anything else raises it and needs an upcast with a test on a stored sample.
// tidy: allow(length) the catalogue of events is one list

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::*;

/// Version of the record and event format written by this program.
pub const SCHEMA_VERSION: u32 = 1;

/// One posting of the double-entry ledger: `amount` is added to `account` of `asset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Posting {
    /// Which asset.
    pub asset: Asset,
    /// Which account of it.
    pub account: LedgerAccount,
    /// Signed.
    pub amount: Money,
}

/// Accounts of one asset. For every asset: free + locked = deposits + bought − sold + realised − fees − at_cost,
/// where `at_cost` is what this asset paid for holdings priced in it that are still held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerAccount {
    /// Spendable.
    Free,
    /// Held by living orders.
    Locked,
    /// Paid in at the start.
    Deposits,
    /// Units received as base of buys.
    Bought,
    /// Units given as base of sells.
    Sold,
    /// Gross P&L of what was sold, in this asset as quote.
    Realised,
    /// Fees paid in this asset.
    Fees,
    /// Cost of what is held, in this asset as quote.
    AtCost,
}

/// Everything that can happen. The text form is `kind` + `data`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data")]
pub enum Event {
    // ---- system
    /// First record of every store.
    StoreCreated {
        /// Identity; part of every trade key.
        store: Uuid,
        /// Drives every random draw.
        seed: u64,
        /// `simulated`, `csv` or `live`.
        data_kind: String,
    },
    /// A copied, moved or restored store counts as the original from here on.
    StoreAdopted {
        /// Its identity.
        store: Uuid,
    },
    /// A boot began.
    Booted {
        /// Unique and increasing.
        epoch: u32,
        /// Program version.
        version: String,
        /// SHA-256 of the effective settings, hex (the config epoch).
        config_hash: String,
    },
    /// Recovery is complete; what it found.
    RecoveryDone {
        /// Facts for people and `status`.
        recovered: Recovered,
    },
    /// The program was asked to stop and drained.
    CleanStop {},
    /// Wall and monotonic time disagreed.
    ClockJump {
        /// Wall − monotonic, milliseconds.
        jump_ms: i64,
    },
    /// An event with an identity but no effect on the state: alerts, starvation, missed slots.
    Noted {
        /// Stable name (`task_starved`, `missed`, `circuit_breaker`, `order_error`, …).
        what: String,
        /// Facts.
        facts: BTreeMap<String, String>,
    },

    // ---- state
    /// The coordinator state changed.
    StateChanged {
        /// Before.
        from: CoordinatorState,
        /// After.
        to: CoordinatorState,
        /// Why.
        reason: String,
        /// Set when entering HALTED.
        halt: Option<Halt>,
    },
    /// A reason to be PAUSED was added.
    PauseReasonAdded {
        /// `operator`, `breaker:<id>`, `degradation`, `clock`, `boot:<why>`.
        reason: String,
    },
    /// A reason to be PAUSED is gone.
    PauseReasonRemoved {
        /// Which.
        reason: String,
    },
    /// A capability's level changed.
    DegradationChanged {
        /// Which.
        capability: Capability,
        /// Before.
        from: DegradationLevel,
        /// After.
        to: DegradationLevel,
    },
    /// A key is out for a while.
    Quarantined {
        /// Which.
        key: RunKey,
        /// Until when; absent = until the operator releases it.
        until: Option<Ts>,
        /// Why.
        reason: String,
        /// How often within 24 h.
        count: u32,
    },
    /// A key is back.
    QuarantineEnded {
        /// Which.
        key: RunKey,
    },
    /// A task was switched by the operator.
    TaskSwitched {
        /// Which.
        task: TaskName,
        /// On or off.
        enabled: bool,
    },

    // ---- operator
    /// A command was accepted for execution.
    CommandReceived {
        /// Idempotency key.
        key: String,
        /// What.
        command: Command,
        /// SHA-256 of the body, hex.
        body_hash: String,
    },
    /// Its success answer.
    CommandDone {
        /// Idempotency key.
        key: String,
        /// Facts.
        result: serde_json::Value,
    },
    /// Its refusal.
    CommandRefused {
        /// Idempotency key.
        key: String,
        /// Stable code.
        code: String,
        /// For people.
        reason: String,
    },

    // ---- runs that money may follow from
    /// A slot of a decision or portfolio task was claimed; also the in-flight marker.
    RunClaimed {
        /// The marker.
        marker: InFlightMarker,
    },
    /// The run ended; removes the marker.
    RunFinished {
        /// What ran.
        key: RunKey,
        /// Which execution.
        run_id: RunId,
        /// How it ended.
        outcome: RunOutcome,
        /// `as_of` of every input of a success, by task: what `require_new` compares with.
        consumed: BTreeMap<TaskName, Ts>,
        /// Every ballot of a poll in which nobody voted; a poll with votes has them in its signal.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ballots: Vec<NamedBallot>,
    },
    /// Markers of older epochs, all in one.
    InFlightRecovered {
        /// Which, with the policy applied to each (`rerun`, `skip`, `alert`, `poison`).
        runs: Vec<RecoveredRun>,
    },

    // ---- decision
    /// A signal entered the pipeline; inputs by value.
    SignalReceived {
        /// Identity.
        decision: DecisionId,
        /// As accepted; never changed by the pipeline.
        signal: Box<Signal>,
        /// Indicator values and quality the decision used, by name.
        inputs: BTreeMap<String, String>,
    },
    /// Entry, exit or nothing.
    DecisionClassified {
        /// Which.
        decision: DecisionId,
        /// Route.
        route: Route,
    },
    /// The agent consensus.
    ConsensusComputed {
        /// Which.
        decision: DecisionId,
        /// Every vote, age and number.
        consensus: Consensus,
    },
    /// At least one conflict.
    ConflictsFound {
        /// Which.
        decision: DecisionId,
        /// All of them.
        conflicts: Vec<Conflict>,
    },
    /// How the conflicts were settled.
    ResolutionDone {
        /// Which.
        decision: DecisionId,
        /// Action and errors of every attempt.
        resolution: Resolution,
    },
    /// The size asked for.
    Sized {
        /// Which.
        decision: DecisionId,
        /// Factors and result.
        sizing: Sizing,
    },
    /// Risk agreed; exposure and funds are held.
    RiskApproved {
        /// Which.
        decision: DecisionId,
        /// What is held.
        reservation: Reservation,
        /// Account currency, after shrinking.
        notional_usd: Money,
        /// What was lowered and remarked.
        notes: Vec<RiskNote>,
    },
    /// Risk said no.
    RiskRefused {
        /// Which.
        decision: DecisionId,
        /// Code, measured, limit.
        refusal: RiskRefusal,
    },
    /// The decision ended.
    DecisionEnded {
        /// Which.
        decision: DecisionId,
        /// How.
        end: DecisionEnd,
        /// Why, where the end itself does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Votes came of age and were marked.
    VotesMarked {
        /// All marks of one decision.
        decision: DecisionId,
        /// By voter.
        marks: Vec<VoteMark>,
    },

    // ---- trade
    /// Parameters fixed; the lock moves out of the free balance.
    TradeIntent {
        /// The trade in state INTENT.
        trade: Box<Trade>,
    },
    /// Durable before the first byte leaves.
    TradeSubmitting {
        /// Which.
        trade_key: TradeKey,
        /// From 1.
        attempt: u32,
        /// The venue must have answered by then.
        deadline: Ts,
        /// The market price when the order left, quote units; only at a venue outside of the process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<Price>,
    },
    /// The order rests.
    TradeAcked {
        /// Which.
        trade_key: TradeKey,
        /// When it ends by itself.
        expires_at: Option<Ts>,
    },
    /// A fill, applied once per fill id.
    TradeFill {
        /// Which.
        trade_key: TradeKey,
        /// `<trade key>:<number>`.
        fill_id: String,
        /// Which symbol.
        symbol: Symbol,
        /// Buy or sell.
        side: Side,
        /// Base units.
        quantity: Qty,
        /// Quote units per base unit.
        price: Price,
        /// quantity × price.
        value: Money,
        /// Quote units.
        fee: Money,
        /// Maker or taker.
        liquidity: Liquidity,
        /// Feed and number of the price used.
        price_id: String,
        /// Evidence for fills found after downtime.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
        /// The venue's own id of this fill; only at a venue outside of the process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        venue_fill: Option<Box<str>>,
        /// Double entry; sums to zero per asset as the ledger identity demands.
        postings: Vec<Posting>,
    },
    /// Everything booked; the rest of the lock returns.
    TradeSettled {
        /// Which.
        trade_key: TradeKey,
    },
    /// Refused by the venue or attempts exhausted.
    TradeRejected {
        /// Which.
        trade_key: TradeKey,
        /// Why.
        reason: String,
    },
    /// Refused by risk at the last check.
    TradeRefused {
        /// Which.
        trade_key: TradeKey,
        /// Why.
        reason: String,
    },
    /// Too old.
    TradeExpired {
        /// Which.
        trade_key: TradeKey,
        /// Why.
        reason: String,
    },
    /// A definite failure; another attempt may follow.
    TradeNotExecuted {
        /// Which.
        trade_key: TradeKey,
        /// Why.
        reason: String,
        /// When to try again.
        retry_at: Option<Ts>,
    },
    /// No answer or an ambiguous one.
    TradeUnknown {
        /// Which.
        trade_key: TradeKey,
        /// Why.
        reason: String,
    },
    /// Cancelled.
    TradeCancelled {
        /// Which.
        trade_key: TradeKey,
        /// Why.
        reason: String,
    },
    /// The venue is to cancel what is left; how the order ended is what the venue says when it is asked.
    TradeCancelRequested {
        /// Which.
        trade_key: TradeKey,
        /// Why.
        reason: String,
    },
    /// What became of it could not be found out, or is more than the account can book; only an operator leaves it.
    TradeManual {
        /// Which.
        trade_key: TradeKey,
        /// Why.
        reason: String,
    },
    /// An operator said what became of a trade in MANUAL; execution books it and ends the trade.
    TradeResolved {
        /// Which.
        trade_key: TradeKey,
        /// What the operator found out.
        resolution: ManualResolution,
    },
    /// Request numbers of the venue account below `until` are this process's; none of them is used by a later one.
    NoncesReserved {
        /// First number that is not reserved.
        until: u64,
    },

    // ---- plan
    /// A plan with all its legs, before any is executed.
    PlanCreated {
        /// All of it.
        plan: Box<Plan>,
    },
    /// Legs moved; number and sum unchanged.
    LegsRespread {
        /// Which.
        plan: Uuid,
        /// New due instants of the legs that moved.
        due: BTreeMap<TradeKey, Ts>,
    },
    /// Every leg terminal.
    PlanCompleted {
        /// Which.
        plan: Uuid,
    },
    /// A leg was too late; pending legs are superseded.
    PlanSuperseded {
        /// Which.
        plan: Uuid,
        /// Why.
        reason: String,
    },
    /// Past its end; pending legs expire.
    PlanExpired {
        /// Which.
        plan: Uuid,
    },
    /// Pending legs were cancelled by the operator.
    LegsCancelled {
        /// Which plan.
        plan: Uuid,
        /// Which legs.
        legs: Vec<TradeKey>,
        /// Why.
        reason: String,
    },

    // ---- account
    /// Money paid in; first boot only.
    Deposit {
        /// Which asset.
        asset: Asset,
        /// How much.
        amount: Money,
    },
    /// A position began.
    PositionOpened {
        /// All of it.
        position: Box<Position>,
    },
    /// A position grew or shrank.
    PositionChanged {
        /// After the change.
        position: Box<Position>,
    },
    /// A position is gone.
    PositionClosed {
        /// Its result.
        closed: Box<ClosedPosition>,
    },
    /// A stop moved in favour, or the trailing state changed.
    StopMoved {
        /// Which.
        position: PositionId,
        /// New stop.
        stop: Option<Price>,
        /// New trailing state.
        trailing: Trailing,
    },
    /// Part of every commit that replays a candle of a downtime: the next start goes on from here.
    GapReplayed {
        /// Whose candle.
        symbol: Symbol,
        /// Its close.
        at: Ts,
        /// What it did so far, this commit included.
        done: PriceDone,
    },

    // ---- risk
    /// A new UTC day or ISO week began.
    PeriodRolled {
        /// Day number.
        day: i64,
        /// ISO week.
        week: i64,
        /// Equity at the start of each period that rolled.
        equity: Money,
    },
    /// A new equity peak worth keeping, or a re-based one.
    PeakChanged {
        /// Account currency.
        peak: Money,
    },
    /// A loss limit was reached.
    BreakerTripped {
        /// Which, when, how far.
        latch: Latch,
        /// What follows.
        action: EmergencyAction,
    },
    /// A breaker is armed again.
    BreakerRearmed {
        /// Which.
        breaker: BreakerKind,
        /// Why.
        reason: String,
    },
    /// Entries are refused until then; the later end wins.
    CooldownSet {
        /// Until.
        until: Ts,
        /// Why.
        cause: CooldownCause,
    },
    /// Streaks after a close.
    StreakChanged {
        /// Losing closes in a row.
        losses: u32,
        /// Winning closes in a row.
        wins: u32,
    },
    /// Technical order errors in a row.
    OrderErrorsChanged {
        /// How many.
        consecutive: u32,
    },

    // ---- models
    /// The worst cost of one attempt at a model is held; durable before the first byte leaves.
    BudgetReserved {
        /// From 1, per store.
        call: u64,
        /// UTC day number that pays.
        day: i64,
        /// Who is called.
        provider: String,
        /// Which model.
        model: String,
        /// For which decision; absent for opinions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decision: Option<DecisionId>,
        /// USD.
        amount: Money,
        /// The day's spending passed its warning with this.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        warned: bool,
    },
    /// What the attempt really cost.
    BudgetSettled {
        /// Of the reservation.
        call: u64,
        /// USD.
        cost: Money,
        /// As the provider counted them; absent when it did not say and the cost is an assumption.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input_tokens: Option<u32>,
        /// See `input_tokens`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_tokens: Option<u32>,
        /// Why it is no answer; absent for an answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
        /// USD of the cost above what was held; absent when it was held.
        #[serde(default, skip_serializing_if = "Money::is_zero")]
        over: Money,
    },
    /// A limit refused a call, the first time on its day.
    BudgetExhausted {
        /// UTC day number.
        day: i64,
        /// `day`, `opinions` or `provider:NAME`.
        limit: String,
        /// USD spent of it.
        spent: Money,
        /// USD allowed.
        of: Money,
    },

    // ---- emergency
    /// An emergency action began.
    EmergencyStarted {
        /// All of it.
        emergency: Emergency,
    },
    /// One position was traded towards its target, or the attempt failed.
    EmergencyStep {
        /// Which instance.
        key: EmergencyKey,
        /// Which position.
        position: PositionId,
        /// What happened.
        result: String,
        /// When to try again after a failure.
        retry_at: Option<Ts>,
    },
    /// All targets reached.
    EmergencyDone {
        /// Which instance.
        key: EmergencyKey,
        /// Result per position.
        results: BTreeMap<String, String>,
    },
}

impl Event {
    /// The name in the journal's `kind` field.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::StoreCreated { .. } => "StoreCreated",
            Event::StoreAdopted { .. } => "StoreAdopted",
            Event::Booted { .. } => "Booted",
            Event::RecoveryDone { .. } => "RecoveryDone",
            Event::CleanStop {} => "CleanStop",
            Event::ClockJump { .. } => "ClockJump",
            Event::Noted { .. } => "Noted",
            Event::StateChanged { .. } => "StateChanged",
            Event::PauseReasonAdded { .. } => "PauseReasonAdded",
            Event::PauseReasonRemoved { .. } => "PauseReasonRemoved",
            Event::DegradationChanged { .. } => "DegradationChanged",
            Event::Quarantined { .. } => "Quarantined",
            Event::QuarantineEnded { .. } => "QuarantineEnded",
            Event::TaskSwitched { .. } => "TaskSwitched",
            Event::CommandReceived { .. } => "CommandReceived",
            Event::CommandDone { .. } => "CommandDone",
            Event::CommandRefused { .. } => "CommandRefused",
            Event::RunClaimed { .. } => "RunClaimed",
            Event::RunFinished { .. } => "RunFinished",
            Event::InFlightRecovered { .. } => "InFlightRecovered",
            Event::SignalReceived { .. } => "SignalReceived",
            Event::DecisionClassified { .. } => "DecisionClassified",
            Event::ConsensusComputed { .. } => "ConsensusComputed",
            Event::ConflictsFound { .. } => "ConflictsFound",
            Event::ResolutionDone { .. } => "ResolutionDone",
            Event::Sized { .. } => "Sized",
            Event::RiskApproved { .. } => "RiskApproved",
            Event::RiskRefused { .. } => "RiskRefused",
            Event::DecisionEnded { .. } => "DecisionEnded",
            Event::VotesMarked { .. } => "VotesMarked",
            Event::TradeIntent { .. } => "TradeIntent",
            Event::TradeSubmitting { .. } => "TradeSubmitting",
            Event::TradeAcked { .. } => "TradeAcked",
            Event::TradeFill { .. } => "TradeFill",
            Event::TradeSettled { .. } => "TradeSettled",
            Event::TradeRejected { .. } => "TradeRejected",
            Event::TradeRefused { .. } => "TradeRefused",
            Event::TradeExpired { .. } => "TradeExpired",
            Event::TradeNotExecuted { .. } => "TradeNotExecuted",
            Event::TradeUnknown { .. } => "TradeUnknown",
            Event::TradeCancelled { .. } => "TradeCancelled",
            Event::TradeCancelRequested { .. } => "TradeCancelRequested",
            Event::TradeManual { .. } => "TradeManual",
            Event::TradeResolved { .. } => "TradeResolved",
            Event::NoncesReserved { .. } => "NoncesReserved",
            Event::PlanCreated { .. } => "PlanCreated",
            Event::LegsRespread { .. } => "LegsRespread",
            Event::PlanCompleted { .. } => "PlanCompleted",
            Event::PlanSuperseded { .. } => "PlanSuperseded",
            Event::PlanExpired { .. } => "PlanExpired",
            Event::LegsCancelled { .. } => "LegsCancelled",
            Event::Deposit { .. } => "Deposit",
            Event::PositionOpened { .. } => "PositionOpened",
            Event::PositionChanged { .. } => "PositionChanged",
            Event::PositionClosed { .. } => "PositionClosed",
            Event::StopMoved { .. } => "StopMoved",
            Event::GapReplayed { .. } => "GapReplayed",
            Event::PeriodRolled { .. } => "PeriodRolled",
            Event::PeakChanged { .. } => "PeakChanged",
            Event::BreakerTripped { .. } => "BreakerTripped",
            Event::BreakerRearmed { .. } => "BreakerRearmed",
            Event::CooldownSet { .. } => "CooldownSet",
            Event::StreakChanged { .. } => "StreakChanged",
            Event::OrderErrorsChanged { .. } => "OrderErrorsChanged",
            Event::BudgetReserved { .. } => "BudgetReserved",
            Event::BudgetSettled { .. } => "BudgetSettled",
            Event::BudgetExhausted { .. } => "BudgetExhausted",
            Event::EmergencyStarted { .. } => "EmergencyStarted",
            Event::EmergencyStep { .. } => "EmergencyStep",
            Event::EmergencyDone { .. } => "EmergencyDone",
        }
    }
}

/// One journaled event with its place and cause. The journal adds `prev` and `crc` around it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Schema of record and event.
    pub v: u32,
    /// 1, 2, 3 … without gaps.
    pub seq: u64,
    /// Boot epoch.
    pub epoch: u32,
    /// Logical time.
    pub ts: Ts,
    /// Batch size, on the first record of a batch only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Component or operator identity.
    pub actor: std::borrow::Cow<'static, str>,
    /// Root of the chain (decision, plan, command or run).
    pub corr: String,
    /// Direct cause.
    pub cause: String,
    /// `kind` and `data`.
    #[serde(flatten)]
    pub event: Event,
}

/// Who may trade.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CoordinatorState {
    /// Everything.
    #[default]
    Running,
    /// No new entries; exits and supervision go on.
    Paused,
    /// As PAUSED, and only `reset` leads out.
    Halted,
}

impl CoordinatorState {
    /// The name as written in events.
    pub const fn name(self) -> &'static str {
        match self {
            CoordinatorState::Running => "RUNNING",
            CoordinatorState::Paused => "PAUSED",
            CoordinatorState::Halted => "HALTED",
        }
    }
}

/// Why and since when the program is HALTED.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Halt {
    /// What `reset` must name.
    pub id: String,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// Since when.
    pub at: Ts,
}

/// One interrupted run with the policy applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoveredRun {
    /// Its marker.
    pub marker: InFlightMarker,
    /// `rerun`, `skip`, `alert` or `poison`.
    pub policy: String,
}

/// What a boot found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Recovered {
    /// Records in the journal.
    pub records: u64,
    /// Records applied to bring the embedded store up to the journal.
    pub applied: u64,
    /// Bytes of a torn tail that were cut off.
    pub torn_bytes: u64,
    /// The embedded store was rebuilt.
    pub rebuilt: bool,
    /// Interrupted runs.
    pub interrupted_runs: u32,
    /// Decisions that had not reached a trade.
    pub interrupted_decisions: u32,
    /// Trades executed again or resumed.
    pub resumed_trades: u32,
    /// Resting orders restored.
    pub resting_orders: u32,
    /// Open positions.
    pub positions: u32,
    /// Legs still planned.
    pub planned_legs: u32,
    /// The last stop was clean.
    pub clean: bool,
    /// Records that were durable and perhaps never told, and are announced again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub announced_again: u32,
    /// What is open of symbols or tasks that the settings no longer have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<String>,
}

const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One vote marked against the price after the configured hours.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VoteMark {
    /// Whose.
    pub voter: String,
    /// What it asked for.
    pub action: Action,
    /// Its confidence.
    pub confidence: Score,
    /// Price change in the vote's direction, basis points; absent when unmarked.
    pub signed_return_bp: Option<Decimal>,
    /// Absent when no price within ±60 s of the mark time exists.
    pub correct: Option<bool>,
}
