//! The rule behind the service watchdog (resilience §6): the process counts as alive while everybody answers and time
//! advances. Instants are milliseconds of a clock that never jumps; it reads none itself and sends nothing.

use std::collections::BTreeMap;

use crate::model::Ts;

/// Everybody must have been heard of within so long, milliseconds.
pub const HORIZON_MS: i64 = 10_000;

/// Who was heard of when.
#[derive(Clone, Debug)]
pub struct Watchdog {
    horizon_ms: i64,
    heard: BTreeMap<&'static str, i64>,
    /// Newest logical time, and when it was first seen.
    time: (Ts, i64),
}

impl Watchdog {
    /// Begins at `at` with everybody counted as heard of just now.
    pub fn new(horizon_ms: i64, now: Ts, at: i64) -> Watchdog {
        Watchdog { horizon_ms, heard: BTreeMap::new(), time: (now, at) }
    }

    /// How long silence may last, milliseconds.
    pub const fn horizon_ms(&self) -> i64 {
        self.horizon_ms
    }

    /// `actor` is asked from now on, unless it is already.
    pub fn expect(&mut self, actor: &'static str, at: i64) {
        self.heard.entry(actor).or_insert(at);
    }

    /// `actor` answered.
    pub fn heard(&mut self, actor: &'static str, at: i64) {
        self.heard.insert(actor, at);
    }

    /// `actor` was given up; somebody else deals with that.
    pub fn forget(&mut self, actor: &'static str) {
        self.heard.remove(actor);
    }

    /// Logical time is `now`.
    pub fn time(&mut self, now: Ts, at: i64) {
        if now > self.time.0 {
            self.time = (now, at);
        }
    }

    /// Who has been silent for longer than the horizon at `at`; `time` when logical time stands still. Empty: alive.
    pub fn silent(&self, at: i64) -> Vec<&'static str> {
        let late = |since: i64| at - since > self.horizon_ms;
        let actors = self.heard.iter().filter(|(_, since)| late(**since)).map(|(actor, _)| *actor);
        actors.chain(late(self.time.1).then_some("time")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog() -> Watchdog {
        let mut watchdog = Watchdog::new(HORIZON_MS, Ts(0), 0);
        watchdog.expect("store", 0);
        watchdog.expect("market", 0);
        watchdog
    }

    #[test]
    fn everybody_must_answer_and_time_must_advance_within_the_horizon() {
        let mut watchdog = watchdog();
        assert!(watchdog.silent(10_000).is_empty(), "ten seconds are allowed");
        assert_eq!(watchdog.silent(10_001), ["market", "store", "time"]);
        watchdog.heard("store", 9_000);
        watchdog.time(Ts(1), 9_500);
        assert_eq!(watchdog.silent(10_001), ["market"]);
        watchdog.heard("market", 10_001);
        assert!(watchdog.silent(10_001).is_empty());
        assert_eq!(watchdog.silent(19_001), ["store"]);
        watchdog.heard("store", 19_002);
        watchdog.time(Ts(1), 19_400);
        assert_eq!(watchdog.silent(19_501), ["time"], "the same instant again is no progress");
    }

    #[test]
    fn an_actor_that_was_given_up_is_not_waited_for() {
        let mut watchdog = watchdog();
        watchdog.time(Ts(1), 10_000);
        watchdog.heard("store", 10_000);
        watchdog.forget("market");
        assert!(watchdog.silent(11_000).is_empty());
        watchdog.expect("store", 15_000);
        assert_eq!(watchdog.silent(20_001), ["store", "time"], "asking is no answer");
    }
}
