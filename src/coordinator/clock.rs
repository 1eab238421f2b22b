//! The clock rule (resilience §7, B10): logical time from readings of wall and monotonic time. Reads no clock itself.

use crate::{
    model::{Ts, time::MINUTE_MS, time::SECOND_MS},
    settings::sections::ClockSettings,
};

/// Largest difference between wall and venue time that still counts as agreement.
pub const MAX_OFFSET_MS: i64 = 5 * SECOND_MS;
/// The pause reason `clock` ends after this long without a disagreement.
pub const AGREE_MS: i64 = 60 * SECOND_MS;

/// What the clocks say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Wall time.
    pub wall: Ts,
    /// Milliseconds of a clock that never jumps, from any origin.
    pub monotonic_ms: i64,
    /// Time of the venue; absent when the feed has none of its own.
    pub venue: Option<Ts>,
}

/// What a reading means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// Logical time; never decreases.
    pub now: Ts,
    /// Wall − monotonic progress, when it is a jump.
    pub jump_ms: Option<i64>,
    /// `Some(true)`: pause with reason `clock`; `Some(false)`: the reason is gone.
    pub pause: Option<bool>,
}

/// Logical time and the trust in it.
#[derive(Clone, Debug, PartialEq)]
pub struct LogicalClock {
    jump_ms: i64,
    large_jump_ms: i64,
    backward_rate: f64,
    last: Reading,
    now: Ts,
    /// Monotonic instant of the newest disagreement while paused for it.
    distrusted_at: Option<i64>,
}

impl LogicalClock {
    /// Starts at a boot; `persisted` is the highest logical time of earlier processes. A wall more than the large jump
    /// behind it pauses.
    pub fn boot(settings: &ClockSettings, reading: Reading, persisted: Ts) -> (LogicalClock, ClockStep) {
        let large_jump_ms = i64::from(settings.large_jump_minutes) * MINUTE_MS;
        let behind = persisted.since_ms(reading.wall) > large_jump_ms;
        let now = reading.wall.max(persisted);
        let clock = LogicalClock {
            jump_ms: i64::from(settings.jump_seconds) * SECOND_MS,
            large_jump_ms,
            backward_rate: settings.backward_rate.clamp(0.0, 1.0),
            last: reading,
            now,
            distrusted_at: behind.then_some(reading.monotonic_ms),
        };
        (clock, ClockStep { now, jump_ms: None, pause: behind.then_some(true) })
    }

    /// Logical time of the newest reading.
    pub fn now(&self) -> Ts {
        self.now
    }

    /// Judges the next reading.
    pub fn observe(&mut self, reading: Reading) -> ClockStep {
        let mono = (reading.monotonic_ms - self.last.monotonic_ms).max(0);
        let jump = reading.wall.since_ms(self.last.wall) - mono;
        self.last = reading;
        // While the wall is behind, time goes on slowly until the wall has caught up: it never stands still.
        let slow = self.now.plus_ms((mono as f64 * self.backward_rate) as i64);
        self.now = reading.wall.max(slow);
        let off = reading.venue.is_some_and(|venue| reading.wall.since_ms(venue).abs() > MAX_OFFSET_MS);
        let pause = if off || jump.abs() > self.large_jump_ms {
            let first = self.distrusted_at.is_none();
            self.distrusted_at = Some(reading.monotonic_ms);
            first.then_some(true)
        } else if self.distrusted_at.is_some_and(|since| reading.monotonic_ms - since >= AGREE_MS) {
            self.distrusted_at = None;
            Some(false)
        } else {
            None
        };
        ClockStep { now: self.now, jump_ms: (jump.abs() > self.jump_ms).then_some(jump), pause }
    }

    /// Carries a pause over from an earlier process: it ends like one that began at the newest reading.
    pub fn distrust(&mut self) {
        self.distrusted_at = Some(self.last.monotonic_ms);
    }

    /// The operator trusts the clock as it is; true when that ends the pause.
    pub fn acknowledge(&mut self) -> bool {
        self.distrusted_at.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_000_000_000;

    fn reading(second: i64, wall_offset_ms: i64) -> Reading {
        Reading { wall: Ts(START + second * 1_000 + wall_offset_ms), monotonic_ms: 77 + second * 1_000, venue: None }
    }

    fn booted(persisted: Ts) -> (LogicalClock, ClockStep) {
        let settings = ClockSettings { jump_seconds: 2, large_jump_minutes: 5, backward_rate: 0.9 };
        LogicalClock::boot(&settings, reading(0, 0), persisted)
    }

    #[test]
    fn a034_wall_back_one_hour_goes_on_slower_and_pauses() {
        let (mut clock, _) = booted(Ts(0));
        let step = clock.observe(reading(1, -3_600_000));
        assert_eq!(step, ClockStep { now: Ts(START + 900), jump_ms: Some(-3_600_000), pause: Some(true) });
        let mut last = step.now;
        for second in 2..61 {
            let step = clock.observe(reading(second, -3_600_000));
            assert_eq!((step.now, step.jump_ms, step.pause), (last.plus_ms(900), None, None));
            last = step.now;
        }
        assert_eq!(clock.observe(reading(61, -3_600_000)).pause, Some(false), "60 s after the jump");
        let caught_up = clock.observe(reading(36_000, -3_600_000));
        assert_eq!(caught_up.now, Ts(START + 32_400_000), "0.9 × monotonic meets the wall after ten hours");
        let after = clock.observe(reading(36_010, -3_600_000));
        assert_eq!(after.now, Ts(START + 32_410_000), "then the wall leads again");
    }

    #[test]
    fn a035_wall_forward_two_hours_jumps_and_pauses_until_agreement() {
        let (mut clock, _) = booted(Ts(0));
        let step = clock.observe(reading(1, 7_200_000));
        assert_eq!(step, ClockStep { now: Ts(START + 7_201_000), jump_ms: Some(7_200_000), pause: Some(true) });
        assert_eq!(clock.observe(reading(60, 7_200_000)).pause, None);
        assert_eq!(clock.observe(reading(61, 7_200_000)).pause, Some(false));
    }

    #[test]
    fn a035_a_venue_that_disagrees_keeps_the_pause() {
        let (mut clock, _) = booted(Ts(0));
        let with_venue = |second, offset| Reading { venue: Some(reading(second, 0).wall), ..reading(second, offset) };
        assert_eq!(clock.observe(with_venue(1, 5_000)).pause, None, "5 s is still agreement");
        assert_eq!(clock.observe(with_venue(2, 5_001)).pause, Some(true));
        assert_eq!(clock.observe(with_venue(100, 5_001)).pause, None);
        assert_eq!(clock.observe(with_venue(159, 0)).pause, None);
        assert_eq!(clock.observe(with_venue(160, 0)).pause, Some(false));
    }

    #[test]
    fn a036_wall_behind_the_persisted_time_pauses_and_never_goes_back() {
        let (clock, step) = booted(Ts(START + 600_000));
        assert_eq!(step, ClockStep { now: Ts(START + 600_000), jump_ms: None, pause: Some(true) });
        assert_eq!(clock.now(), Ts(START + 600_000));
        let (mut clock, step) = booted(Ts(START + 300_000));
        assert_eq!(step.pause, None, "5 min exactly is tolerated");
        assert!(!clock.acknowledge());
    }

    #[test]
    fn a037_drift_of_one_and_a_half_seconds_is_no_event() {
        let (mut clock, _) = booted(Ts(0));
        for (second, offset) in [(1, 1_500), (2, 0), (3, -1_500), (4, 0), (5, 2_000)] {
            let step = clock.observe(reading(second, offset));
            assert_eq!((step.jump_ms, step.pause), (None, None));
        }
        assert_eq!(clock.observe(reading(6, -1)).jump_ms, Some(-2_001));
    }
}
