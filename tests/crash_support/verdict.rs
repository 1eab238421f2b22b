//! What a run of the matrix came to: its point was not reached, or something that must hold does not. Only the first may be
//! tried again.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::process_support::IN_VAIN;

/// Why a run failed.
#[derive(Clone, Debug)]
pub enum Failed {
    /// The machine was too slow, or the world did not come to the point: nothing is shown by it.
    NotReached(String),
    /// Something that must hold does not.
    Violated(String),
}

pub type Outcome = Result<(), Failed>;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::NotReached(why) => write!(f, "not reached: {why}"),
            Failed::Violated(why) => write!(f, "VIOLATED: {why}"),
        }
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Failed {
        Failed::Violated(why)
    }
}

impl From<&str> for Failed {
    fn from(why: &str) -> Failed {
        Failed::Violated(why.to_owned())
    }
}

/// What must hold.
pub fn require(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Failed::Violated(what())) }
}

/// What the world has to bring about before there is anything to judge.
pub fn reached(there: bool, what: impl FnOnce() -> String) -> Outcome {
    if there { Ok(()) } else { Err(Failed::NotReached(what())) }
}

/// A panic is a violation, unless it is only that something was waited for in vain.
pub fn judged<T>(work: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    let panic = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => return done,
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let text = text.unwrap_or_else(|| "panic".to_owned());
    Err(if text.starts_with(IN_VAIN) { Failed::NotReached(text) } else { Failed::Violated(text) })
}
