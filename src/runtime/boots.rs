//! Crash loops (resilience §6): starts that followed a crash are counted over a real stretch of time. Pure.

use crate::model::Ts;

/// Newest instants that are kept; more can never matter to a limit that is reached before.
const KEPT: usize = 100;

/// What earlier starts left, and whether it is a loop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Boots {
    /// When crashes were found by the start after them, wall time, oldest first; to be stored before anything else runs.
    pub crashes: Vec<Ts>,
    /// So many crashes are too many.
    pub looping: bool,
}

/// Judges a start at wall time `now`. `earlier` = what the last start stored; `clean` = the last process ended cleanly,
/// which ends every loop. `limit` crashes within `window_ms` are a loop; 0 = never. Instants after `now` (the wall was
/// set back) count as now: whatever happened to the clock, those crashes are the newest that are known.
/// `aborted` = starts since then that never got through recovery, each a crash of its own.
pub fn judge(earlier: &[Ts], aborted: &[Ts], clean: bool, now: Ts, limit: u32, window_ms: i64) -> Boots {
    if clean && aborted.is_empty() {
        return Boots { crashes: Vec::new(), looping: false };
    }
    let earlier = if clean { &[] } else { earlier };
    // One that was counted already, by a start that died before it could forget it, counts once.
    let aborted = aborted.iter().filter(|at| !earlier.contains(at));
    let recent = earlier.iter().chain(aborted).map(|at| (*at).min(now)).filter(|at| now.since_ms(*at) <= window_ms);
    let mut crashes: Vec<Ts> = recent.collect();
    crashes.extend((!clean).then_some(now));
    let surplus = crashes.len().saturating_sub(KEPT);
    crashes.drain(..surplus);
    let looping = limit > 0 && u32::try_from(crashes.len()).unwrap_or(u32::MAX) >= limit;
    Boots { crashes, looping }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::MINUTE_MS;

    /// Starts at these minutes, each after a crash; whether the last one finds a loop.
    fn loops(minutes: &[i64]) -> bool {
        let mut boots = Boots { crashes: Vec::new(), looping: false };
        for minute in minutes {
            boots = judge(&boots.crashes, &[], false, Ts(minute * MINUTE_MS), 3, 10 * MINUTE_MS);
        }
        boots.looping
    }

    #[test]
    fn three_crashes_within_ten_minutes_are_a_loop() {
        assert!(!loops(&[0]));
        assert!(!loops(&[0, 1]));
        assert!(loops(&[0, 1, 2]));
        assert!(loops(&[0, 5, 10]), "ten minutes exactly");
        assert!(!loops(&[0, 5, 11]));
        assert!(loops(&[0, 5, 11, 14]));
        assert!(!loops(&[0, 11, 22, 33]));
    }

    #[test]
    fn a_clean_stop_ends_a_loop_and_a_limit_of_zero_has_none() {
        let known = [Ts(0), Ts(1), Ts(2)];
        assert_eq!(judge(&known, &[], true, Ts(3), 3, 10), Boots { crashes: Vec::new(), looping: false });
        assert!(judge(&known, &[], false, Ts(3), 3, 10).looping);
        assert!(!judge(&known, &[], false, Ts(3), 0, 10).looping);
    }

    #[test]
    fn a_start_that_never_got_through_recovery_is_a_crash_of_its_own() {
        let aborted = [Ts(1), Ts(2)];
        assert!(!judge(&[], &aborted[..1], false, Ts(3), 3, 10).looping);
        assert!(judge(&[], &aborted, false, Ts(3), 3, 10).looping, "two of them and the process before");
        let after_clean = judge(&[Ts(0)], &aborted, true, Ts(3), 3, 10);
        assert_eq!(
            after_clean,
            Boots { crashes: aborted.to_vec(), looping: false },
            "what was before a clean stop is over"
        );
        let again = judge(&after_clean.crashes, &aborted, false, Ts(4), 9, 10);
        assert_eq!(again.crashes, [Ts(1), Ts(2), Ts(4)], "none counts twice");
    }

    #[test]
    fn a_wall_that_was_set_back_hides_no_crash_and_the_list_is_bounded() {
        let boots = judge(&[Ts(9_000_000), Ts(9_000_001)], &[], false, Ts(5), 3, 10 * MINUTE_MS);
        assert_eq!(boots, Boots { crashes: vec![Ts(5); 3], looping: true });
        let many: Vec<Ts> = (0..500).map(Ts).collect();
        assert_eq!(judge(&many, &[], false, Ts(500), 3, 10 * MINUTE_MS).crashes.len(), KEPT);
    }
}
