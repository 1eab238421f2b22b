//! The one way to standard output and standard error.
//!
//! Nobody panics because a reader has gone (`triplegain journal tail | head`): what follows is dropped and the command ends
//! as it would have. Any other failure of standard output, a full disk behind a redirect for example, is kept and told by
//! [`finish`].

use std::{
    fmt,
    io::{self, ErrorKind, Write},
    sync::OnceLock,
};

/// The first failure of standard output that is no closed pipe.
static FAILED: OnceLock<String> = OnceLock::new();

/// A line on standard output.
macro_rules! tell {
    ($($text:tt)*) => { $crate::runtime::terminal::out(format_args!("{}\n", format_args!($($text)*))) };
}

/// A line on standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::runtime::terminal::aside(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {note, tell};

/// Text on standard output, as it is.
pub fn out(text: fmt::Arguments<'_>) {
    keep(io::stdout().lock().write_fmt(text));
}

/// Text on standard error, as it is; there is nobody left to tell when that fails.
pub fn aside(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Writes what is buffered.
///
/// # Errors
/// Why not everything was written, for people; a closed pipe is none.
pub fn finish() -> Result<(), String> {
    keep(io::stdout().lock().flush());
    FAILED.get().map_or(Ok(()), |why| Err(format!("standard output cannot be written: {why}")))
}

fn keep(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        // The first one says why; the others follow from it.
        let _ = FAILED.set(error.to_string());
    }
}
