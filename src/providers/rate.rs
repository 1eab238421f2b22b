//! The rate of one endpoint: a token bucket over logical time (resilience §3). Pure and serialisable, so that a crash
//! loop cannot call faster than a program that lives.

use serde::{Deserialize, Serialize};

use crate::model::{Ts, time::MINUTE_MS};

/// How fast an endpoint may be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimits {
    /// Calls per minute in the long run; at least 1.
    pub calls_per_minute: u32,
    /// Calls at once after a calm; at least 1.
    pub burst: u32,
}

impl RateLimits {
    /// One call, in parts that a millisecond of refilling always changes by whole numbers.
    const CALL: i64 = MINUTE_MS;

    fn full(self) -> i64 {
        i64::from(self.burst.max(1)) * Self::CALL
    }

    fn per_ms(self) -> i64 {
        i64::from(self.calls_per_minute.max(1))
    }
}

/// What is left of the rate. Exact: parts of a call are whole numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// Parts used of a full bucket; 0 = full.
    used: i64,
    at: Ts,
}

impl Bucket {
    /// A full bucket.
    pub const fn full(now: Ts) -> Bucket {
        Bucket { used: 0, at: now }
    }

    /// Takes one call.
    ///
    /// # Errors
    /// The first instant at which there is one again.
    pub fn take(&mut self, limits: RateLimits, now: Ts) -> Result<(), Ts> {
        // Time that went back refills nothing and takes nothing away.
        let passed = now.since_ms(self.at).max(0);
        self.used = self.used.saturating_sub(passed.saturating_mul(limits.per_ms())).clamp(0, limits.full());
        self.at = self.at.max(now);
        let missing = self.used + RateLimits::CALL - limits.full();
        if missing > 0 {
            let wait_ms = (missing + limits.per_ms() - 1) / limits.per_ms();
            return Err(self.at.plus_ms(wait_ms));
        }
        self.used += RateLimits::CALL;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RateLimits = RateLimits { calls_per_minute: 60, burst: 10 };

    #[test]
    fn a_burst_then_one_per_second() {
        let mut bucket = Bucket::full(Ts(0));
        for _ in 0..10 {
            assert_eq!(bucket.take(LIMITS, Ts(0)), Ok(()));
        }
        assert_eq!(bucket.take(LIMITS, Ts(0)), Err(Ts(1000)));
        assert_eq!(bucket.take(LIMITS, Ts(999)), Err(Ts(1000)));
        assert_eq!(bucket.take(LIMITS, Ts(1000)), Ok(()));
        assert_eq!(bucket.take(LIMITS, Ts(1000)), Err(Ts(2000)));
    }

    #[test]
    fn the_long_run_never_exceeds_rate_plus_burst_whatever_the_steps() {
        for (calls_per_minute, burst, step) in [(60, 10, 7), (7, 3, 333), (1, 1, 60_000), (1000, 5, 1)] {
            let limits = RateLimits { calls_per_minute, burst };
            let (mut bucket, mut passed) = (Bucket::full(Ts(0)), 0u64);
            let mut now = 0;
            while now <= 600_000 {
                passed += u64::from(bucket.take(limits, Ts(now)).is_ok());
                now += step;
            }
            let most = u64::from(burst) + u64::from(calls_per_minute) * 10;
            assert!(passed <= most, "{passed} > {most} at {limits:?}");
            assert!(passed + 1 >= most.min(600_000 / step.unsigned_abs()), "{passed} of {most} at {limits:?}");
        }
    }

    #[test]
    fn a_restart_and_a_clock_that_went_back_refill_nothing() {
        let mut bucket = Bucket::full(Ts(5000));
        for _ in 0..10 {
            bucket.take(LIMITS, Ts(5000)).unwrap();
        }
        let mut again: Bucket = serde_json::from_str(&serde_json::to_string(&bucket).unwrap()).unwrap();
        assert_eq!(again.take(LIMITS, Ts(0)), Err(Ts(6000)));
        assert_eq!(again.take(LIMITS, Ts(6000)), Ok(()));
    }

    #[test]
    fn smaller_limits_after_a_restart_hold_at_once() {
        let mut bucket = Bucket::full(Ts(0));
        for _ in 0..10 {
            bucket.take(LIMITS, Ts(0)).unwrap();
        }
        let small = RateLimits { calls_per_minute: 6, burst: 1 };
        assert_eq!(bucket.take(small, Ts(0)), Err(Ts(10_000)));
    }
}
