//! What is wrong with a configuration, in words for the person who wrote it.

use std::fmt;

use super::tree::Origin;

/// One problem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Path of the key; empty for problems of a whole source.
    pub key: String,
    /// The value as written; empty when there is none.
    pub given: String,
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match (self.key.as_str(), self.given.as_str()) {
            ("", _) => f.write_str(&self.message),
            (key, "") => write!(f, "`{key}`: {}", self.message),
            (key, given) => write!(f, "`{key}` = {given}: {}", self.message),
        }
    }
}

/// Everything that is wrong, in the order default, file, variables, options; by line inside a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} problem{}:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}
