//! When market data are judged. A refresh every ten seconds is the rule (resilience §1), but as long as the feeds are known
//! to stay healthy and no failure is remembered, its outcome is known as well: it is counted at its instant without
//! waking anybody.

use crate::model::Ts;

/// A refresh of market data is judged this often, milliseconds.
const SAMPLE_MS: i64 = 10_000;
/// The market is asked at least this often, milliseconds: it also tells which prices it withholds.
const LOOK_MS: i64 = 60_000;
/// Whoever is awake anyway asks from this age of the last answer on, milliseconds: the alarm of this watch falls together
/// with the slots of a minute.
const FRESH_MS: i64 = 30_000;

/// What is to be done about market data now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Due {
    /// Refreshes that went well since the last one, at these instants, oldest first.
    pub passed: Vec<Ts>,
    /// The market is to be asked.
    pub look: bool,
}

/// The refreshes of market data.
#[derive(Clone, Copy, Default, Debug)]
pub struct FeedWatch {
    /// The last refresh that was judged or asked for.
    last: Option<Ts>,
    /// The last time the market was asked.
    looked: Option<Ts>,
    /// The market has not answered yet; its answer sets the alarm.
    asked: bool,
    /// Every feed is healthy up to here, whatever else arrives.
    healthy_until: Option<Ts>,
}

impl FeedWatch {
    /// The market's answer: every feed is healthy until then; `None` = one is not.
    pub fn answered(&mut self, healthy_until: Option<Ts>) {
        self.healthy_until = healthy_until;
        self.asked = false;
    }

    /// What is due now. `spotless`: no failure of market data is remembered, so that a success changes nothing.
    pub fn due(&mut self, now: Ts, spotless: bool) -> Due {
        let mut due = Due::default();
        let known = if spotless { self.healthy_until } else { None };
        let mut next = self.last.map_or(now, |last| last.plus_ms(SAMPLE_MS));
        // A clock that was set back waits for no instant of the time before.
        if self.last.is_some_and(|last| last > now) {
            next = now;
        }
        let fresh = self.looked.is_some_and(|at| at <= now && now.since_ms(at) < FRESH_MS);
        while next <= now && known.is_some_and(|until| next <= until) && (fresh || next.plus_ms(SAMPLE_MS) <= now) {
            due.passed.push(next);
            self.last = Some(next);
            next = next.plus_ms(SAMPLE_MS);
        }
        if next <= now {
            due.look = true;
            (self.last, self.looked, self.asked) = (Some(now), Some(now), true);
        }
        due
    }

    /// The next instant at which [`FeedWatch::due`] has to be asked; `None` before the first time.
    pub fn next(&self, spotless: bool) -> Option<Ts> {
        let (last, looked) = (self.last?, self.looked?);
        if self.asked {
            // An answer comes at once or, when it is lost, never.
            return Some(looked.plus_ms(LOOK_MS));
        }
        let next = last.plus_ms(SAMPLE_MS);
        let Some(until) = self.healthy_until.filter(|_| spotless) else { return Some(next) };
        // The first refresh that is not known to go well.
        let unknown = until.since_ms(next).max(-SAMPLE_MS).div_euclid(SAMPLE_MS) + 1;
        Some(next.plus_ms(unknown * SAMPLE_MS).min(looked.plus_ms(LOOK_MS).max(next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Ts {
        Ts::from_secs(second)
    }

    /// What happens when nobody but the watch's own alarm wakes: `(second, refreshes counted, asked)`.
    fn timeline(until: i64, healthy: impl Fn(i64) -> Option<i64>, spotless: bool) -> Vec<(i64, Vec<i64>, bool)> {
        let (mut watch, mut lines, mut now) = (FeedWatch::default(), Vec::new(), at(0));
        while now <= at(until) {
            let due = watch.due(now, spotless);
            let second = now.0 / 1_000;
            if due.look {
                watch.answered(healthy(second).map(at));
            }
            lines.push((second, due.passed.iter().map(|at| at.0 / 1_000).collect(), due.look));
            now = watch.next(spotless).unwrap();
        }
        lines
    }

    #[test]
    fn healthy_feeds_are_asked_once_a_minute_and_counted_every_ten_seconds() {
        let lines = timeline(120, |now| Some(now + 300), true);
        let minute = |m: i64| (1..6).map(|i| m * 60 + i * 10).collect::<Vec<_>>();
        assert_eq!(lines, [(0, vec![], true), (60, minute(0), true), (120, minute(1), true)]);
    }

    #[test]
    fn the_first_refresh_after_the_known_end_is_asked_at_its_instant() {
        let lines = timeline(60, |now| (now < 40).then_some(35), true);
        assert_eq!(lines, [(0, vec![], true), (40, vec![10, 20, 30], true), (50, vec![], true), (60, vec![], true)]);
        let lines = timeline(40, |now| (now < 30).then_some(30), true);
        assert_eq!(lines, [(0, vec![], true), (40, vec![10, 20, 30], true)], "30 s itself is healthy");
    }

    #[test]
    fn a_remembered_failure_is_followed_every_ten_seconds() {
        let lines = timeline(20, |now| Some(now + 300), false);
        assert_eq!(lines, [(0, vec![], true), (10, vec![], true), (20, vec![], true)]);
    }

    #[test]
    fn a_step_of_somebody_else_counts_what_passed_and_a_clock_set_back_asks_anew() {
        let mut watch = FeedWatch::default();
        assert!(watch.due(at(100), true).look);
        watch.answered(Some(at(300)));
        assert_eq!(watch.due(at(105), true), Due::default());
        assert_eq!(watch.due(at(125), true), Due { passed: vec![at(110), at(120)], look: false });
        assert_eq!(watch.due(at(135), true), Due { passed: vec![], look: true }, "half a minute after the last look");
        assert_eq!(watch.due(at(20), true), Due { passed: vec![], look: true });
        assert_eq!(watch.next(true), Some(at(80)), "a lost answer is not the end of it");
        watch.answered(Some(at(300)));
        assert_eq!(watch.next(true), Some(at(80)), "a minute after the look");
    }

    #[test]
    fn after_standing_still_only_what_was_known_is_counted() {
        let mut watch = FeedWatch::default();
        assert!(watch.due(at(0), true).look);
        watch.answered(Some(at(25)));
        assert_eq!(watch.due(at(5_000), true), Due { passed: vec![at(10), at(20)], look: true });
    }
}
