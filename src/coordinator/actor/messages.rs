//! Questions the coordinator answers for the operator's surfaces.

use actix::Message;

use super::{schedule::Stats, status::Status};
use crate::model::{Command, CommandAnswer};

/// One consistent picture of everything.
#[derive(Message)]
#[rtype(result = "Status")]
pub struct GetStatus;

/// An operator command. Answered only after it is durable.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Operated")]
pub struct Operate {
    /// Idempotency key: the same key with the same body gives the same answer and one effect.
    pub key: String,
    /// What to do.
    pub command: Command,
    /// Where it came from, for the journal.
    pub source: String,
}

/// What became of a command.
#[derive(Clone, PartialEq, Debug)]
pub enum Operated {
    /// Done or refused; stored under the key.
    Answered(CommandAnswer),
    /// The key was used with another body.
    KeyReused,
    /// The store did not take it; nothing happened.
    Unavailable(String),
}

/// The scheduler's counters, and whether their identities hold.
#[derive(Message)]
#[rtype(result = "CheckedStats")]
pub struct GetStats;

/// Answer to [`GetStats`].
#[derive(Clone, Debug)]
pub struct CheckedStats {
    /// Consistent with each other.
    pub stats: Stats,
    /// Which identity is broken, if one is.
    pub checked: Result<(), String>,
}
