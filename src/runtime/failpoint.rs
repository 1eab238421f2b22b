//! Named places where a test can kill, freeze or fail the process: before and after every durable write and every effect
//! outside the process. Without the cargo feature `failpoints` each is an empty inline function.
//!
//! `TRIPLEGAIN_FAILPOINTS="journal.append[TradeIntent]=kill@2;state.flush=error"`: rules separated by `;`, each a site of
//! [`SITES`] or `*` for any durable write, optionally what it must be about (a kind of event, a directory, a topic), an action and the
//! hit at which it is taken (the first when left out). Actions: `kill` (SIGKILL), `stop` (SIGSTOP), `error` and `full` (the
//! operating system reports an I/O error or a full disk), `panic`, `torn` (half of the bytes are written, then `kill`).

/// What a site can be made to do besides killing and freezing the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A durable write: it can also fail, be torn, or panic.
    Write,
    /// An effect outside the process or a step between two writes: the process can end there, at once or by a panic.
    Effect,
}

/// A place with a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// As written in a rule.
    pub name: &'static str,
    /// What can be done there.
    pub class: Class,
    /// Rows of the crash-point matrix (`tests/crash_matrix.rs`) that are reached through it.
    pub rows: &'static [&'static str],
}

const fn durable(name: &'static str, rows: &'static [&'static str]) -> Site {
    Site { name, class: Class::Write, rows }
}

const fn passed(name: &'static str, rows: &'static [&'static str]) -> Site {
    Site { name, class: Class::Effect, rows }
}

/// Every site. A test holds the sources to this table, in both directions.
pub const SITES: &[Site] = &[
    // The journal.
    durable("journal.open", &["K41", "K42"]),
    durable("journal.append", &["K05", "K07", "K09", "K13", "K24", "K27", "K33", "K34", "K36", "K42"]),
    durable("journal.sync", &["K09", "K13", "K27", "K42"]),
    passed("journal.synced", &["K05", "K07", "K10", "K24", "K27", "K33", "K34"]),
    durable("journal.close", &["K37"]),
    durable("journal.create", &["K37", "K41", "K42"]),
    durable("journal.dir_sync", &["K37", "K41", "K42"]),
    // The embedded store.
    durable("state.open", &["K41", "K43"]),
    durable("state.transact", &["K10", "K42", "K43"]),
    durable("state.flush", &["K11", "K42"]),
    durable("state.data_sync", &["K11", "K42"]),
    durable("state.rebuild", &["K41", "K43"]),
    durable("state.clear", &["K43"]),
    durable("aux.write", &["K41", "K42"]),
    durable("aux.flush", &["K41", "K42"]),
    // A group of commits.
    passed("store.commit", &["K01", "K28", "K31"]),
    passed("store.durable", &["K02", "K06", "K08", "K12", "K14", "K20", "K25", "K29", "K32"]),
    // Files beside them.
    durable("dir.create", &["K41", "K42"]),
    durable("dir.sync", &["K41", "K42"]),
    durable("file.clear", &["K35", "K42"]),
    durable("file.create", &["K35", "K42"]),
    durable("file.write", &["K35", "K42"]),
    durable("file.sync", &["K35", "K42"]),
    durable("file.rename", &["K35", "K42"]),
    durable("file.dir_sync", &["K35", "K42"]),
    durable("aside.rename", &["K43"]),
    durable("aside.dir_sync", &["K43"]),
    durable("checkpoint.prune", &["K35"]),
    durable("identity.clear", &["K41", "K42"]),
    durable("identity.create", &["K41", "K42"]),
    durable("identity.write", &["K41", "K42"]),
    durable("identity.sync", &["K41", "K42"]),
    durable("identity.rename", &["K41", "K42"]),
    durable("identity.dir_sync", &["K41", "K42"]),
    durable("lock.take", &["K41", "K42"]),
    durable("lock.clear", &["K41", "K42"]),
    durable("lock.write", &["K39", "K41", "K42"]),
    durable("tail.cut", &["K36", "K41"]),
    durable("tail.sync", &["K36", "K41"]),
    durable("token.clear", &["K41", "K42"]),
    durable("token.create", &["K41", "K42"]),
    durable("token.write", &["K41", "K42"]),
    durable("token.sync", &["K41", "K42"]),
    durable("token.rename", &["K41", "K42"]),
    durable("token.dir_sync", &["K41", "K42"]),
    durable("starts.note", &["K41", "K42"]),
    durable("starts.forget", &["K41", "K42"]),
    passed("boot.epoch", &["K38"]),
    // Commits on their way to the store.
    passed("commit.boot", &["K41"]),
    passed("commit.claim", &["K01"]),
    passed("commit.plan", &["K07"]),
    passed("commit.record", &["K04"]),
    passed("commit.decide", &["K04"]),
    passed("commit.decision", &["K04"]),
    passed("commit.defer", &["K34"]),
    passed("commit.lane", &["K28", "K31"]),
    passed("commit.execution", &["K09", "K13", "K21", "K23"]),
    passed("commit.risk", &["K33"]),
    passed("commit.stop", &["K47"]),
    passed("commit.router", &["K03"]),
    // Runs, the venue, and what the world hears.
    passed("run.claimed", &["K02"]),
    passed("run.ask", &["K03"]),
    passed("run.arrived", &["K04"]),
    passed("model.call", &["K03"]),
    passed("wire.submit", &["K14", "K15"]),
    passed("wire.cancel", &["K26"]),
    passed("venue.execute", &["K14"]),
    passed("venue.answer", &["K21", "K23"]),
    passed("announce", &["K25"]),
    passed("bus.publish", &["K06"]),
    passed("dead_man.call", &["K40"]),
    passed("api.answer", &["K08", "K32"]),
];

#[cfg(feature = "failpoints")]
pub use on::{about, cut, effect, over, setup, write, write_about};

#[cfg(feature = "failpoints")]
#[path = "failpoint_on.rs"]
mod on;

#[cfg(not(feature = "failpoints"))]
mod off {
    use std::io;

    /// A durable write happens next.
    ///
    /// # Errors
    /// Never without the feature `failpoints`.
    #[inline(always)]
    pub const fn write(_: &str) -> io::Result<()> {
        Ok(())
    }

    /// As [`write()`], about the directory `_` lies in.
    ///
    /// # Errors
    /// Never without the feature `failpoints`.
    #[inline(always)]
    pub const fn write_about(_: &str, _: &std::path::Path) -> io::Result<()> {
        Ok(())
    }

    /// An effect outside the process happens next; `_` says what it is about.
    #[inline(always)]
    pub const fn effect(_: &str, _: &str) {}

    /// The part of the bytes that is written: all of them.
    #[inline(always)]
    pub const fn cut<'b>(_: &str, bytes: &'b [u8]) -> &'b [u8] {
        bytes
    }

    /// What the group of commits under way is about.
    #[inline(always)]
    pub const fn about(_: &'static str) {}

    /// The group is done.
    #[inline(always)]
    pub const fn over() {}
}

#[cfg(not(feature = "failpoints"))]
pub use off::{about, cut, effect, over, write, write_about};
