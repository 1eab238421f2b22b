//! What a model may answer, one contract per agent: types with a JSON schema, a strict reader and the grounding in the
//! snapshot. Prose is never read: what is not exactly one valid object of the schema is a failure with its reason.

pub mod extract;
pub mod ground;
pub mod portfolio;
pub mod regime;
pub mod resolution;
pub mod sentiment;
pub mod technical;
pub mod vote;

use schemars::JsonSchema;

use crate::{
    llm::question::{AnswerFormat, FailureKind, Rejected},
    model::Score,
};

/// Longest reasoning kept, characters; the rest is cut, because it decides nothing.
pub const REASONING_MAX: usize = 500;

/// A rejection of this kind.
pub(crate) fn rejected(kind: FailureKind, detail: impl Into<String>) -> Rejected {
    Rejected { kind, detail: detail.into().chars().take(300).collect() }
}

/// A number within its bounds, as fixed point.
pub(crate) fn within(field: &str, value: f64, low: f64, high: f64) -> Result<Score, Rejected> {
    if value.is_finite() && (low..=high).contains(&value) {
        return Ok(Score::from_f64(value));
    }
    Err(rejected(FailureKind::OutOfRange, format!("{field} is {value}, allowed: {low}..{high}")))
}

/// A list of at most `most` entries.
pub(crate) fn at_most(field: &str, len: usize, most: usize) -> Result<(), Rejected> {
    if len <= most {
        return Ok(());
    }
    Err(rejected(FailureKind::OutOfRange, format!("{field} has {len} entries, allowed: 0..{most}")))
}

/// A text of at most `most` characters.
pub(crate) fn short(field: &str, text: &str, most: usize) -> Result<String, Rejected> {
    let len = text.chars().count();
    if len <= most {
        return Ok(plain(text, most));
    }
    Err(rejected(FailureKind::OutOfRange, format!("{field} has {len} characters, allowed: 0..{most}")))
}

/// Text for people: one line without control and invisible characters, cut at `most` characters.
pub fn plain(text: &str, most: usize) -> String {
    let visible = |c: &char| !matches!(u32::from(*c), 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xE0000..=0xE007F);
    let spaced = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().filter(visible).map(spaced).take(most).collect()
}

/// The form of an answer: its name and the schema of its type.
pub(crate) fn format_of<T: JsonSchema>(name: &str) -> AnswerFormat {
    AnswerFormat { name: name.to_owned(), schema: schemars::schema_for!(T).to_value() }
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
