//! Logical time: an anchor on the monotonic clock of Tokio, which is virtual in simulation and backtest.
//!
//! The one place that turns monotonic time into [`Ts`]. It reads the wall only when asked ([`wall_now`]) and never
//! decides what a disagreement means; it only applies the correction of resilience.md §7.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::{Duration, Instant};

use crate::model::{Clock, Ts};

/// Logical seconds per monotonic second, and until when it is lowered.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Anchor {
    /// Logical instant at `since`.
    at: Ts,
    /// Monotonic instant of `at`.
    since: Instant,
    /// Logical seconds per monotonic second; at least 1.
    speed: u32,
    /// After a backward jump of the wall: run at `rate` for so long.
    slow: Option<Slow>,
}

/// A stretch at a lower rate.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Slow {
    /// 0 < rate < 1.
    rate: f64,
    /// Monotonic length of the stretch.
    lasts: Duration,
}

impl Anchor {
    fn logical(&self, now: Instant) -> Ts {
        let elapsed = now.saturating_duration_since(self.since);
        let Some(slow) = self.slow else {
            // Whole milliseconds of logical time; floor, so that no instant is reported before it is reached.
            return self.at.plus_ms(scaled_ms(elapsed, self.speed));
        };
        let slowed = elapsed.min(slow.lasts).mul_f64(slow.rate);
        let normal = elapsed.saturating_sub(slow.lasts);
        self.at.plus_ms(scaled_ms(slowed + normal, self.speed))
    }

    /// Rounded up, so that the clock shows `at` when a timer set for this instant fires.
    fn monotonic(&self, at: Ts) -> Instant {
        let ms = at.since_ms(self.at).max(0).unsigned_abs();
        let needed = match ms.checked_mul(1_000_000) {
            Some(nanos) => Duration::from_nanos(nanos.div_ceil(u64::from(self.speed))),
            // Centuries ahead; the usual path needs no division of 128 bits.
            None => {
                let nanos = u128::from(ms).saturating_mul(1_000_000).div_ceil(u128::from(self.speed));
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        };
        let Some(slow) = self.slow else { return self.since + needed };
        let in_slow = slow.lasts.mul_f64(slow.rate);
        // Fractions of the rate are binary; a microsecond covers what they lose.
        let margin = Duration::from_micros(1);
        if needed <= in_slow {
            self.since + needed.div_f64(slow.rate) + margin
        } else {
            self.since + slow.lasts + (needed - in_slow) + margin
        }
    }
}

fn scaled_ms(elapsed: Duration, speed: u32) -> i64 {
    let nanos = u64::try_from(elapsed.as_nanos()).ok().and_then(|nanos| nanos.checked_mul(u64::from(speed)));
    let ms = match nanos {
        // A division by a constant of 64 bits: this is read many times for every candle.
        Some(nanos) => u128::from(nanos / 1_000_000),
        None => elapsed.as_nanos() * u128::from(speed) / 1_000_000,
    };
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// The logical clock; clones share one anchor. Monotonic: it never goes back and never stands still.
#[derive(Clone, Debug)]
pub struct LogicalClock {
    shared: Arc<Shared>,
}

/// The anchor of the start is read without a lock until a correction replaces it, which a virtual clock never sees.
#[derive(Debug)]
struct Shared {
    first: Anchor,
    corrected: AtomicBool,
    anchor: Mutex<Anchor>,
}

impl LogicalClock {
    /// A clock that shows `base` now and runs `speed` times as fast as Tokio's time; speed 0 counts as 1.
    pub fn start(base: Ts, speed: u32) -> LogicalClock {
        let anchor = Anchor { at: base, since: Instant::now(), speed: speed.max(1), slow: None };
        let shared = Shared { first: anchor, corrected: AtomicBool::new(false), anchor: Mutex::new(anchor) };
        LogicalClock { shared: Arc::new(shared) }
    }

    /// The monotonic instant at which the clock will show `at`; now or earlier for instants already past.
    pub fn instant_at(&self, at: Ts) -> Instant {
        self.anchor().monotonic(at)
    }

    /// Monotonic time to wait until the clock shows `at`; zero for instants already past.
    pub fn until(&self, at: Ts) -> Duration {
        self.instant_at(at).saturating_duration_since(Instant::now())
    }

    /// Sleeps until the clock shows `at` or later.
    pub async fn sleep_until(&self, at: Ts) {
        // Timers have a granularity of one millisecond and a correction may move the anchor: look again.
        while self.now() < at {
            // Never a deadline already past: it would be over at once, and virtual time would stand still.
            let least = Instant::now() + Duration::from_nanos(1);
            tokio::time::sleep_until(self.instant_at(at).max(least)).await;
        }
    }

    /// Logical seconds per monotonic second.
    pub fn speed(&self) -> u32 {
        self.anchor().speed
    }

    /// Follows the wall after a jump (resilience.md §7): forward at once; backward by running at `backward_rate` until
    /// the wall has caught up, so that no instant is repeated. Returns wall − logical before the correction, ms.
    /// Meant for speed 1; a faster clock has left the wall on purpose and is not changed.
    pub fn follow_wall(&self, wall: Ts, backward_rate: f64) -> i64 {
        let now = Instant::now();
        let mut anchor = self.lock();
        let logical = anchor.logical(now);
        let ahead = logical.since_ms(wall);
        if anchor.speed == 1 && ahead != 0 {
            let rate = if backward_rate > 0.0 && backward_rate < 1.0 { backward_rate } else { 0.9 };
            let slow = (ahead > 0)
                .then(|| Slow { rate, lasts: Duration::from_millis(ahead.unsigned_abs()).div_f64(1.0 - rate) });
            *anchor = Anchor { at: logical.max(wall), since: now, speed: 1, slow };
            self.shared.corrected.store(true, Ordering::Release);
        }
        -ahead
    }

    #[inline]
    fn anchor(&self) -> Anchor {
        if self.shared.corrected.load(Ordering::Acquire) { *self.lock() } else { self.shared.first }
    }

    fn lock(&self) -> MutexGuard<'_, Anchor> {
        // The anchor is replaced whole, so a panic elsewhere cannot have left half of one.
        self.shared.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for LogicalClock {
    fn now(&self) -> Ts {
        let now = Instant::now();
        self.anchor().logical(now)
    }
}

/// The system's wall clock. For comparing with logical time in live mode; no rule takes it as "now".
pub fn wall_now() -> Ts {
    Ts(chrono::Utc::now().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Ts = Ts(1_700_000_000_000);

    #[tokio::test(start_paused = true)]
    async fn virtual_sleep_ends_exactly_at_the_instant() {
        let clock = LogicalClock::start(BASE, 1);
        clock.sleep_until(BASE.plus_ms(86_400_000)).await;
        assert_eq!(clock.now(), BASE.plus_ms(86_400_000));
        clock.sleep_until(BASE).await;
        assert_eq!(clock.now(), BASE.plus_ms(86_400_000));
    }

    #[tokio::test(start_paused = true)]
    async fn at_speed_sixty_a_minute_takes_a_second() {
        let clock = LogicalClock::start(BASE, 60);
        let before = Instant::now();
        clock.sleep_until(BASE.plus_ms(60_000)).await;
        assert_eq!(before.elapsed(), Duration::from_secs(1));
        assert_eq!(clock.now(), BASE.plus_ms(60_000));
        assert_eq!(clock.until(BASE.plus_ms(120_000)), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn at_odd_speeds_the_instant_of_a_timer_is_never_early() {
        tokio::time::advance(Duration::from_nanos(123_457)).await;
        for speed in [3, 7, 11, 60] {
            let clock = LogicalClock::start(BASE, speed);
            for ms in [1, 2, 5, 999, 60_001] {
                let at = clock.now().plus_ms(ms);
                tokio::time::advance(clock.until(at)).await;
                assert!(clock.now() >= at, "speed {speed}, {ms} ms");
                clock.sleep_until(at.plus_ms(ms)).await;
                assert!(clock.now() >= at.plus_ms(ms), "speed {speed}, {ms} ms");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_forward_jump_of_the_wall_is_followed_at_once() {
        let clock = LogicalClock::start(BASE, 1);
        assert_eq!(clock.follow_wall(BASE.plus_ms(7_000), 0.9), 7_000);
        assert_eq!(clock.now(), BASE.plus_ms(7_000));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_backward_jump_time_runs_slower_until_the_wall_has_caught_up() {
        let clock = LogicalClock::start(BASE, 1);
        let mut wall = BASE.plus_ms(-1_000);
        assert_eq!(clock.follow_wall(wall, 0.9), -1_000);
        assert_eq!(clock.now(), BASE);
        let mut last = clock.now();
        for _ in 0..12 {
            tokio::time::advance(Duration::from_secs(1)).await;
            wall = wall.plus_ms(1_000);
            assert!(clock.now() > last, "time stood still or went back");
            last = clock.now();
        }
        assert!((clock.now().since_ms(wall)).abs() <= 1);
        let at = clock.now().plus_ms(5_000);
        clock.sleep_until(at).await;
        assert!((0..=1).contains(&clock.now().since_ms(at)));
    }

    #[tokio::test(start_paused = true)]
    async fn instants_inside_the_slow_stretch_are_found() {
        let clock = LogicalClock::start(BASE, 1);
        clock.follow_wall(BASE.plus_ms(-1_000), 0.9);
        let before = Instant::now();
        clock.sleep_until(BASE.plus_ms(900)).await;
        assert!((1_000..=1_001).contains(&before.elapsed().as_millis()));
    }
}
