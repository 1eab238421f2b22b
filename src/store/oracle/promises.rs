//! Check 2: every command has exactly one answer, in its own batch, and a key is used once a day.

use std::collections::BTreeMap;

use super::{Check, Figures, Found};
use crate::model::{CommandAnswer, Event, Record, Ts, time::HOUR_MS};

/// So long is a key remembered; afterwards it may be used again. Program time, milliseconds.
const KEY_MEMORY_MS: i64 = 24 * HOUR_MS;

/// Commands with all their answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Promises {
    /// By key: when received, and the answers ever given.
    commands: BTreeMap<String, (Ts, Vec<CommandAnswer>)>,
    /// Received in this batch and not answered yet.
    open: Vec<String>,
    answered: u64,
}

impl Promises {
    pub(super) fn observe(&mut self, record: &Record, found: &mut Found<'_>) {
        let (key, answer) = match &record.event {
            Event::CommandReceived { key, .. } => {
                let known = self.commands.get(key).map(|(at, _)| *at);
                if known.is_some_and(|at| record.ts.since_ms(at) < KEY_MEMORY_MS) {
                    found.add(Check::Promises, format!("command {key} is carried out a second time"));
                }
                self.commands.entry(key.clone()).or_default().0 = record.ts;
                self.open.push(key.clone());
                return;
            }
            Event::CommandDone { key, result } => (key, CommandAnswer::Ok { result: result.clone() }),
            Event::CommandRefused { key, code, reason } => {
                (key, CommandAnswer::Refused { code: code.clone(), reason: reason.clone() })
            }
            _ => return,
        };
        match self.open.iter().position(|open| open == key) {
            Some(at) => drop(self.open.swap_remove(at)),
            None => found.add(Check::Promises, format!("command {key} is answered without being received")),
        }
        self.commands.entry(key.clone()).or_default().1.push(answer);
        self.answered += 1;
    }

    /// A command, its effect and its answer are one batch: nobody can be told half of it.
    pub(super) fn end_of_batch(&mut self, found: &mut Found<'_>) {
        for key in self.open.drain(..) {
            found.add(Check::Promises, format!("command {key} has no answer in its batch"));
        }
    }

    /// Whether `answer` was given to `key`.
    pub(super) fn command(&self, key: &str, answer: &CommandAnswer) -> Result<(), String> {
        let Some((_, given)) = self.commands.get(key) else {
            return Err(format!("command {key} was acknowledged, but the journal does not hold it"));
        };
        if given.contains(answer) {
            return Ok(());
        }
        Err(format!("command {key} was answered with {answer:?}, the journal holds {given:?}"))
    }

    pub(super) fn count(&self, figures: &mut Figures) {
        figures.commands = self.answered;
    }
}
