//! What a client was told: one JSON object per line, written by whoever asked and compared with the journal later.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{CommandAnswer, Qty, TradeKey};

/// One acknowledgement.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Ack {
    /// A command was answered.
    Command {
        /// Its idempotency key.
        key: String,
        /// The answer that was given.
        answer: CommandAnswer,
    },
    /// A plan was shown.
    Plan {
        /// Which.
        id: Uuid,
    },
    /// A trade or a planned leg was shown.
    Trade {
        /// Which.
        key: TradeKey,
        /// Its state as `status` names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<String>,
        /// Base units shown as filled.
        #[serde(default)]
        filled: Qty,
    },
    /// A record was shown as the newest durable one.
    Record {
        /// Its number.
        seq: u64,
        /// First 32 hex digits of the SHA-256 of its line.
        hash: String,
    },
}

/// Reads acknowledgements, one JSON object per line; empty lines are left out.
///
/// # Errors
/// The first line that is none, with its number.
pub fn parse(text: &str) -> Result<Vec<Ack>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let one = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))
    };
    lines.map(one).collect()
}
