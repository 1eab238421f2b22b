//! Tasks, runs and their outcomes.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Symbol, Ts, symbol::serde_as_text};

/// The five scheduled tasks; task name = agent name everywhere, there are no aliases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskName {
    /// Opinion: indicators to a bias.
    TechnicalAnalysis,
    /// Opinion: what kind of market it is.
    RegimeDetection,
    /// Opinion: news and social mood (off without a provider).
    SentimentAnalysis,
    /// Voters to a signal.
    TradingDecision,
    /// Allocation to a plan of legs.
    PortfolioRebalance,
}

impl TaskName {
    /// All tasks in dependency order.
    pub const ALL: [TaskName; 5] = [
        TaskName::TechnicalAnalysis,
        TaskName::RegimeDetection,
        TaskName::SentimentAnalysis,
        TaskName::TradingDecision,
        TaskName::PortfolioRebalance,
    ];

    /// The name as written in settings, journal and commands.
    pub const fn name(self) -> &'static str {
        match self {
            TaskName::TechnicalAnalysis => "technical_analysis",
            TaskName::RegimeDetection => "regime_detection",
            TaskName::SentimentAnalysis => "sentiment_analysis",
            TaskName::TradingDecision => "trading_decision",
            TaskName::PortfolioRebalance => "portfolio_rebalance",
        }
    }

    /// The task of that exact name.
    pub fn parse(text: &str) -> Option<TaskName> {
        TaskName::ALL.into_iter().find(|task| task.name() == text)
    }

    /// True for runs whose claim and outcome belong in the journal (money may follow from them).
    pub const fn is_money_relevant(self) -> bool {
        matches!(self, TaskName::TradingDecision | TaskName::PortfolioRebalance)
    }
}

/// Some of the tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TaskSet(u8);

impl TaskSet {
    /// Whether the task is one of them.
    pub const fn contains(self, task: TaskName) -> bool {
        self.0 & (1 << task as u8) != 0
    }

    /// None of them.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<TaskName> for TaskSet {
    fn from_iter<I: IntoIterator<Item = TaskName>>(tasks: I) -> TaskSet {
        TaskSet(tasks.into_iter().fold(0, |set, task| set | 1 << task as u8))
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The unit of scheduling: one task over one symbol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RunKey {
    /// Which agent.
    pub task: TaskName,
    /// Over which symbol; [`Symbol::PORTFOLIO`] for the portfolio task.
    pub symbol: Symbol,
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.task, self.symbol)
    }
}

/// Identity of one execution: boot epoch and a sequence number inside it. Text form `epoch-seq`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RunId {
    /// Boot epoch of the store, from 1.
    pub epoch: u32,
    /// Counts up within the epoch, from 1.
    pub seq: u64,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for RunId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('-')
            .and_then(|(epoch, seq)| Some(RunId { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? }));
        parsed.ok_or_else(|| format!("`{text}` is no run id; it looks like 1-42"))
    }
}

serde_as_text!(RunId);

/// Which due instant a run belongs to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotId {
    /// Slot number of the grid (scheduling B1).
    Grid(i64),
    /// Asked for by a waiting dependent: its key and slot, as text.
    Pull(String),
    /// Asked for by an operator: the command id.
    Manual(String),
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotId::Grid(number) => write!(f, "{number}"),
            SlotId::Pull(by) => write!(f, "pull:{by}"),
            SlotId::Manual(command) => write!(f, "manual:{command}"),
        }
    }
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "why")]
pub enum RunOutcome {
    /// Output accepted.
    Succeeded,
    /// No opinion, with the reason; neither success nor failure of freshness.
    Abstained(String),
    /// The agent failed, with the cause.
    Failed(FailCause),
    /// The deadline passed; the cause tells which (`run` or `snapshot`).
    TimedOut(String),
    /// A marker of an older epoch found at boot.
    Interrupted,
}

/// Why a run failed, as far as retrying is concerned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailCause {
    /// Class that decides about a retry.
    pub class: FailClass,
    /// For people.
    pub message: String,
}

/// Classes of failures; see scheduling B4 for which are retried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailClass {
    /// May pass: retried.
    Transient,
    /// The agent panicked: retried.
    Panic,
    /// Wrong key: never retried.
    Authentication,
    /// Wrong configuration: never retried.
    Configuration,
    /// The output failed validation: never retried.
    Validation,
    /// Not enough funds: never retried.
    InsufficientFunds,
    /// The program is halted: never retried.
    Halted,
}

impl FailClass {
    /// Whether scheduling B4 allows another attempt of the same slot.
    pub const fn is_retryable(self) -> bool {
        matches!(self, FailClass::Transient | FailClass::Panic)
    }
}

/// Why a slot was consumed without a run; each is a counter and a field of the event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// The key is still queued-and-started or running (B2).
    Running,
    /// Too late for catch-up (B3).
    Missed,
    /// PAUSED.
    StatePaused,
    /// HALTED.
    StateHalted,
    /// The task is switched off.
    Disabled,
    /// The degradation level forbids it.
    Degraded,
    /// The key is quarantined.
    Quarantined,
    /// A dependency has never succeeded.
    DepNeverRan,
    /// A dependency's newest success is too old.
    DepStale,
    /// A dependency has not succeeded since the input already consumed.
    DepNotNew,
    /// A dependency of the same instant is still queued or running.
    DepRunning,
    /// A dependency is quarantined, failing or switched off.
    DepUnavailable,
    /// The inputs differ too much in time.
    DepSkew,
    /// No permit within the start deadline.
    StartDeadline,
    /// A newer slot of the key took the queue entry.
    Replaced,
    /// The model budget is spent.
    Budget,
    /// The clock is not trusted.
    Clock,
    /// Market data are too old.
    DataStale,
}

impl SkipReason {
    /// All reasons, in the order of the specification.
    pub const ALL: [SkipReason; 18] = [
        SkipReason::Running,
        SkipReason::Missed,
        SkipReason::StatePaused,
        SkipReason::StateHalted,
        SkipReason::Disabled,
        SkipReason::Degraded,
        SkipReason::Quarantined,
        SkipReason::DepNeverRan,
        SkipReason::DepStale,
        SkipReason::DepNotNew,
        SkipReason::DepRunning,
        SkipReason::DepUnavailable,
        SkipReason::DepSkew,
        SkipReason::StartDeadline,
        SkipReason::Replaced,
        SkipReason::Budget,
        SkipReason::Clock,
        SkipReason::DataStale,
    ];

    /// The name as written in events and reports.
    pub const fn name(self) -> &'static str {
        match self {
            SkipReason::Running => "running",
            SkipReason::Missed => "missed",
            SkipReason::StatePaused => "state_paused",
            SkipReason::StateHalted => "state_halted",
            SkipReason::Disabled => "disabled",
            SkipReason::Degraded => "degraded",
            SkipReason::Quarantined => "quarantined",
            SkipReason::DepNeverRan => "dep_never_ran",
            SkipReason::DepStale => "dep_stale",
            SkipReason::DepNotNew => "dep_not_new",
            SkipReason::DepRunning => "dep_running",
            SkipReason::DepUnavailable => "dep_unavailable",
            SkipReason::DepSkew => "dep_skew",
            SkipReason::StartDeadline => "start_deadline",
            SkipReason::Replaced => "replaced",
            SkipReason::Budget => "budget",
            SkipReason::Clock => "clock",
            SkipReason::DataStale => "data_stale",
        }
    }
}

/// Durable note that a run began; found at boot from an older epoch it proves an interrupted run (C8).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InFlightMarker {
    /// What ran.
    pub key: RunKey,
    /// Which slot.
    pub slot: SlotId,
    /// Which execution; its epoch is judged at boot.
    pub run_id: RunId,
    /// When it was started.
    pub started_at: Ts,
    /// How often this very slot has been interrupted before.
    pub interruptions: u32,
}
