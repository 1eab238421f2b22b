//! The plan of one logical call: who is asked next, for how long, when asking the same one again helps, and when to
//! give up. Pure: instants and draws come in as values.

use super::question::FailureKind;
use crate::model::Ts;

/// Most attempts at one model within one logical call.
const ATTEMPTS_MAX: u32 = 3;
/// First back-off, milliseconds; doubled per attempt and drawn between 0 and itself.
const BACKOFF_MS: i64 = 500;
/// Longest back-off, milliseconds.
const BACKOFF_MAX_MS: i64 = 8_000;
/// Less time than this is not worth a call, milliseconds.
const LEAST_MS: i64 = 50;
/// Share of the time a model may use while another one is left, percent.
const SHARE_PCT: i64 = 60;

/// Until when a model may work: at most 60 % of what is left when another is there to be asked, and never longer than
/// its own limit. Absent when too little is left for any call.
pub fn part(now: Ts, deadline: Ts, others_left: bool, timeout_ms: i64) -> Option<Ts> {
    let left = deadline.since_ms(now);
    if left < LEAST_MS {
        return None;
    }
    let share = if others_left { left * SHARE_PCT / 100 } else { left };
    Some(now.plus_ms(share.max(LEAST_MS).min(timeout_ms)))
}

/// Whether asking the same model the same again may help, by class of failure.
pub const fn may_pass(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::Connection
            | FailureKind::RateLimited
            | FailureKind::Overloaded
            | FailureKind::ServerError
            | FailureKind::Empty
    )
}

/// When to ask the same model again after its failure number `attempt` (from 1); absent when the next one should be
/// asked. `until` is the end of this model's part; `draw` in 0..1 spreads the wait over its whole length (full
/// jitter). What the endpoint asks for is waited at least.
pub fn again(
    kind: FailureKind,
    attempt: u32,
    retry_after_ms: Option<i64>,
    draw: f64,
    now: Ts,
    until: Ts,
) -> Option<Ts> {
    if !may_pass(kind) || attempt >= ATTEMPTS_MAX {
        return None;
    }
    let ceiling = (BACKOFF_MS << attempt.saturating_sub(1).min(16)).min(BACKOFF_MAX_MS);
    let jitter = (ceiling as f64 * draw.clamp(0.0, 1.0)) as i64;
    let at = now.plus_ms(jitter.saturating_add(retry_after_ms.unwrap_or(0).max(0)));
    // A call that would have no time left is no retry.
    (until.since_ms(at) >= LEAST_MS).then_some(at)
}

/// The order in which a chain is asked: while the capability is degraded, the fallbacks come first (resilience §2).
pub fn order(length: usize, degraded: bool) -> Vec<usize> {
    let first = usize::from(degraded && length > 1);
    (first..length).chain(0..first).collect()
}

/// What the newest call of an endpoint left open. A list of models costs nothing and proves little: it must not outweigh
/// answers that fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Doubt {
    /// It answered usably, or was not asked yet.
    #[default]
    None,
    /// It did not answer.
    Reach,
    /// It answered, and the answer was of no use: only the answer to a real question ends this.
    Content,
}

impl Doubt {
    /// After a call that was made: it succeeded, or failed so.
    pub const fn after(failure: Option<FailureKind>) -> Doubt {
        match failure {
            None => Doubt::None,
            Some(
                FailureKind::Truncated
                | FailureKind::TooLarge
                | FailureKind::Unparsable
                | FailureKind::OutOfRange
                | FailureKind::Ungrounded
                | FailureKind::Incoherent,
            ) => Doubt::Content,
            Some(_) => Doubt::Reach,
        }
    }
}

/// How an endpoint is probed while the capability is degraded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// Its list of models; a success counts when true. Its failure always does.
    List(bool),
    /// The shortest answer there is, paid like every other.
    Answer,
}

/// How to probe an endpoint. Where few or none are asked (`quiet`, from LIMITED on), a probe is the only way back, so it
/// asks; otherwise questions go on, and answers of no use are judged by them.
pub const fn probe(doubt: Doubt, quiet: bool) -> Probe {
    match doubt {
        Doubt::None => Probe::List(true),
        Doubt::Content if !quiet => Probe::List(false),
        Doubt::Reach | Doubt::Content => Probe::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gets_at_most_sixty_percent_and_the_last_everything() {
        let part = |others, timeout| part(Ts(1000), Ts(11_000), others, timeout);
        assert_eq!(part(true, 30_000), Some(Ts(7000)));
        assert_eq!(part(true, 2_000), Some(Ts(3000)));
        assert_eq!(part(false, 30_000), Some(Ts(11_000)));
        assert_eq!(super::part(Ts(1000), Ts(1049), false, 30_000), None);
        assert_eq!(super::part(Ts(2000), Ts(1000), true, 30_000), None);
    }

    #[test]
    fn a_hung_chain_of_five_leaves_each_its_part() {
        let (mut now, deadline) = (Ts(0), Ts(10_000));
        for left in (0..5).rev() {
            let until = super::part(now, deadline, left > 0, 60_000).unwrap();
            assert!(until.since_ms(now) >= 150, "{left} left: {} ms", until.since_ms(now));
            now = until;
        }
        assert_eq!(now, deadline);
    }

    #[test]
    fn only_what_may_pass_is_tried_again_with_full_jitter_and_within_the_part() {
        let again = |kind, attempt, after, draw| again(kind, attempt, after, draw, Ts(0), Ts(6000));
        for kind in [FailureKind::Timeout, FailureKind::BadRequest, FailureKind::Authentication, FailureKind::Truncated]
        {
            assert_eq!(again(kind, 1, None, 0.5), None, "{kind:?}");
        }
        assert_eq!(again(FailureKind::ServerError, 1, None, 0.0), Some(Ts(0)));
        assert_eq!(again(FailureKind::ServerError, 1, None, 1.0), Some(Ts(500)));
        assert_eq!(again(FailureKind::Overloaded, 2, None, 1.0), Some(Ts(1000)));
        assert_eq!(again(FailureKind::ServerError, 3, None, 0.0), None, "three attempts are enough");
        assert_eq!(again(FailureKind::RateLimited, 1, Some(3000), 1.0), Some(Ts(3500)));
        assert_eq!(again(FailureKind::RateLimited, 1, Some(5980), 0.0), None, "no time would be left");
    }

    #[test]
    fn degraded_asks_the_fallbacks_first() {
        assert_eq!(order(3, false), [0, 1, 2]);
        assert_eq!(order(3, true), [1, 2, 0]);
        assert_eq!(order(1, true), [0]);
        assert!(order(0, true).is_empty());
    }

    #[test]
    fn a_list_of_models_never_outweighs_answers_that_fail() {
        use FailureKind::{ServerError, Timeout, Ungrounded, Unparsable};
        assert_eq!(Doubt::after(None), Doubt::None);
        assert_eq!([Timeout, ServerError].map(|kind| Doubt::after(Some(kind))), [Doubt::Reach; 2]);
        assert_eq!([Ungrounded, Unparsable].map(|kind| Doubt::after(Some(kind))), [Doubt::Content; 2]);
        let probes = |quiet| [Doubt::None, Doubt::Reach, Doubt::Content].map(|doubt| probe(doubt, quiet));
        assert_eq!(probes(false), [Probe::List(true), Probe::Answer, Probe::List(false)]);
        assert_eq!(probes(true), [Probe::List(true), Probe::Answer, Probe::Answer]);
    }
}
