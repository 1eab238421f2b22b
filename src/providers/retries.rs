//! How many of an endpoint's calls may be repetitions (scheduling B4): a provider in trouble is not asked three times as
//! often as a healthy one. Pure; forgotten at a restart, which the rate of calls outlives.

use std::collections::VecDeque;

use crate::model::{Ts, time::MINUTE_MS};

/// Calls this old are forgotten, milliseconds.
const WINDOW_MS: i64 = 10 * MINUTE_MS;
/// Of so many calls one may be a repetition: 20 %.
const ONE_IN: usize = 5;
/// So many repetitions within the window are always allowed: of a handful of calls a fifth is none.
const ALWAYS: usize = 3;

/// The calls of the last ten minutes.
#[derive(Clone, Debug, Default)]
pub struct Retries {
    /// When, and whether it repeated another; oldest first.
    calls: VecDeque<(Ts, bool)>,
}

impl Retries {
    /// Counts a call that repeats none.
    pub fn count(&mut self, now: Ts) {
        self.forget(now);
        self.calls.push_back((now, false));
    }

    /// Whether one more call may be a repetition, which is counted at once: many that fail together ask before any of
    /// them calls again.
    pub fn claim(&mut self, now: Ts) -> bool {
        self.forget(now);
        let retries = self.calls.iter().filter(|(_, is_retry)| *is_retry).count();
        let allowed = retries < ALWAYS || (retries + 1) * ONE_IN <= self.calls.len() + 1;
        if allowed {
            self.calls.push_back((now, true));
        }
        allowed
    }

    fn forget(&mut self, now: Ts) {
        while self.calls.front().is_some_and(|(at, _)| now.since_ms(*at) >= WINDOW_MS) {
            self.calls.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b4_a_fifth_of_the_calls_of_ten_minutes_may_be_repetitions_and_three_always() {
        let mut retries = Retries::default();
        (0..3).for_each(|at| assert!(retries.claim(Ts(at))));
        assert!(!retries.claim(Ts(3)), "four of four");
        // With the fourth one 20 calls make a fifth.
        (0..15).for_each(|_| retries.count(Ts(4)));
        assert!(!retries.claim(Ts(4)));
        retries.count(Ts(5));
        assert!(retries.claim(Ts(5)));
        assert!(!retries.claim(Ts(6)));
        // The first three are forgotten ten minutes after they were made.
        assert!(!retries.claim(Ts(WINDOW_MS - 1)));
        assert!(retries.claim(Ts(WINDOW_MS + 2)));
    }

    #[test]
    fn b4_a_provider_that_fails_every_call_gets_a_quarter_more_calls_and_not_twice_as_many() {
        let (mut retries, mut first, mut again) = (Retries::default(), 0, 0);
        for second in 0..600 {
            let now = Ts(second * 1_000);
            retries.count(now);
            first += 1;
            again += (0..2).filter(|_| retries.claim(now)).count();
        }
        assert_eq!((first, again), (600, 150));
    }
}
