//! Operator commands: typed, checked, journaled before the success answer, idempotent by their key.

use serde::{Deserialize, Serialize};

use super::{Money, Price, Qty, Ts};

/// One vocabulary for command line, HTTP and bus.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command", deny_unknown_fields)]
pub enum Command {
    /// Adds the pause reason `operator`; idempotent.
    Pause {
        /// For the journal.
        #[serde(default)]
        reason: String,
    },
    /// Removes operator, breaker and boot reasons; refused while HALTED.
    Resume {},
    /// HALTED with a new halt id; cancels resting entries.
    Halt {
        /// For the journal.
        #[serde(default)]
        reason: String,
    },
    /// HALTED → PAUSED when it names the current halt id.
    Reset {
        /// The halt id the operator saw.
        halt_id: String,
    },
    /// Forced run through normal admission.
    RunTask {
        /// Task name; checked against the list with a suggestion.
        task: String,
        /// Symbol of the task's list.
        symbol: String,
    },
    /// One close trade per position.
    CloseAll {
        /// For the journal.
        #[serde(default)]
        reason: String,
    },
    /// Durable override until the configuration changes.
    EnableTask {
        /// Task name.
        task: String,
    },
    /// Durable override; disabling a required dependency is refused.
    DisableTask {
        /// Task name.
        task: String,
    },
    /// PLANNED legs → CANCELLED.
    CancelScheduled {
        /// Plan id or leg key.
        id: String,
    },
    /// Ends the quarantine of a key.
    Release {
        /// Task name.
        task: String,
        /// Symbol of the task's list.
        symbol: String,
    },
    /// The clock is trusted as it is: ends the pause reason `clock`.
    ClockAck {},
    /// A late plan goes on from now: its first planned legs fall due, the others keep their distance.
    RunScheduled {
        /// Plan id or key of a planned leg of it.
        id: String,
    },
    /// Says what became of a trade in MANUAL: the only way out of it.
    ResolveManual {
        /// Trade key, or the beginning of it (at least six characters).
        trade: String,
        /// What was found out.
        outcome: ManualOutcome,
        /// With `filled`: base units executed beyond the fills that are booked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quantity: Option<Qty>,
        /// With `filled`: quote units per base unit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        price: Option<Price>,
        /// With `filled`: quote units.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fee: Option<Money>,
        /// Where the operator knows it from.
        evidence: String,
    },
    /// HALTED(store_moved) → PAUSED: a copied, moved or restored store counts as the original from now on.
    AdoptStore {
        /// Identity of the store, as the refusal and the halt show it.
        store: String,
    },
}

/// What an operator found out about a trade in MANUAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManualOutcome {
    /// So much was executed, beyond the fills that are booked.
    Filled,
    /// Nothing was, and nothing will be.
    Expired,
}

impl Command {
    /// The name as spoken on every surface.
    pub const fn name(&self) -> &'static str {
        match self {
            Command::Pause { .. } => "pause",
            Command::Resume {} => "resume",
            Command::Halt { .. } => "halt",
            Command::Reset { .. } => "reset",
            Command::RunTask { .. } => "run_task",
            Command::CloseAll { .. } => "close_all",
            Command::EnableTask { .. } => "enable_task",
            Command::DisableTask { .. } => "disable_task",
            Command::CancelScheduled { .. } => "cancel_scheduled",
            Command::Release { .. } => "release",
            Command::ClockAck {} => "clock_ack",
            Command::RunScheduled { .. } => "run_scheduled",
            Command::ResolveManual { .. } => "resolve_manual",
            Command::AdoptStore { .. } => "adopt_store",
        }
    }
}

/// The answer to a command, given only after it is durable.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum CommandAnswer {
    /// Done; `result` says what holds now.
    Ok {
        /// Facts for the operator.
        result: serde_json::Value,
    },
    /// Not done.
    Refused {
        /// Short and stable, for programs.
        code: String,
        /// For people.
        reason: String,
    },
}

/// A command whose key was used, with its stored answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Idempotency key.
    pub key: String,
    /// Command name.
    pub name: String,
    /// SHA-256 of the body, hex: same key with another body is a conflict.
    pub body_hash: String,
    /// When received.
    pub at: Ts,
    /// Absent until done or refused.
    pub answer: Option<CommandAnswer>,
}
