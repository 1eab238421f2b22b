//! How the process ends: the exit codes of operations.md §6 and who asked for them. Never decides that it should end.

use std::process;

/// Exit codes; scripts and the service manager rely on the numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: failed.
    Failed = 1,
    /// 2: usage or configuration; the service manager does not try again.
    Usage = 2,
    /// 65: a violation: `journal verify` found the store unsound, or `torture kill` found anything that must not be.
    Unsound = 65,
    /// 70: internal invariant, store failure, or a panic of an actor that is not restarted in place.
    Internal = 70,
    /// 73: the store is in use by another process; the service manager does not try again.
    StoreInUse = 73,
    /// 75: try again.
    TryAgain = 75,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Ends the process now; destructors do not run. Recovery at the next start is the tested path.
    pub fn end_now(self) -> ! {
        process::exit(i32::from(self.code()))
    }
}

impl From<Exit> for process::ExitCode {
    fn from(exit: Exit) -> process::ExitCode {
        process::ExitCode::from(exit.code())
    }
}

impl process::Termination for Exit {
    fn report(self) -> process::ExitCode {
        self.into()
    }
}

/// An error that ends the process with a code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// For people.
    pub text: String,
}

impl Failure {
    /// An error with its exit code.
    pub fn new(exit: Exit, text: impl Into<String>) -> Failure {
        Failure { exit, text: text.into() }
    }
}

impl Exit {
    /// The exit of a number the service manager knows; anything else is a plain failure.
    pub const fn from_code(code: u8) -> Exit {
        match code {
            0 => Exit::Done,
            2 => Exit::Usage,
            65 => Exit::Unsound,
            70 => Exit::Internal,
            73 => Exit::StoreInUse,
            75 => Exit::TryAgain,
            _ => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn the_numbers_are_those_of_the_service_unit() {
        let all =
            [Exit::Done, Exit::Failed, Exit::Usage, Exit::Unsound, Exit::Internal, Exit::StoreInUse, Exit::TryAgain];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 65, 70, 73, 75]);
    }
}
