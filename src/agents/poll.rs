//! Collects the answers of one poll until its deadline. Never waits: whoever drives it says what time it is.

use std::sync::Arc;

use crate::model::{Ballot, NamedBallot, Ts};

/// Cause of the failed ballot of a voter that did not answer in time.
pub const LATE: &str = "late";

/// What became of an answer handed to [`Poll::record`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// It counts.
    Counted,
    /// It came after the deadline and is discarded.
    Late,
    /// This voter has answered already; the first answer stands.
    Repeated,
    /// Nobody of that name was asked.
    NotAsked,
}

/// One poll: who was asked, who has answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Poll {
    deadline: Ts,
    ballots: Vec<(Arc<str>, Option<Ballot>)>,
}

impl Poll {
    /// Opens a poll of `voters` at `opened_at` that ends `timeout_ms` later.
    pub fn open(voters: impl IntoIterator<Item = Arc<str>>, opened_at: Ts, timeout_ms: i64) -> Poll {
        let ballots = voters.into_iter().map(|voter| (voter, None)).collect();
        Poll { deadline: opened_at.plus_ms(timeout_ms), ballots }
    }

    /// When the poll ends; an answer at that very instant still counts.
    pub const fn deadline(&self) -> Ts {
        self.deadline
    }

    /// Takes the answer of `voter` that arrived at `at`.
    pub fn record(&mut self, voter: &str, ballot: Ballot, at: Ts) -> Recorded {
        let Some((_, slot)) = self.ballots.iter_mut().find(|(name, _)| **name == *voter) else {
            return Recorded::NotAsked;
        };
        if slot.is_some() {
            return Recorded::Repeated;
        }
        if at > self.deadline {
            return Recorded::Late;
        }
        *slot = Some(ballot);
        Recorded::Counted
    }

    /// Everyone has answered, or the deadline has come.
    pub fn is_over(&self, now: Ts) -> bool {
        now >= self.deadline || self.ballots.iter().all(|(_, ballot)| ballot.is_some())
    }

    /// The ballots in the order asked; who has not answered has failed with [`LATE`] (A072).
    pub fn close(self) -> Vec<NamedBallot> {
        let named = |(voter, ballot): (Arc<str>, Option<Ballot>)| NamedBallot {
            voter,
            ballot: ballot.unwrap_or_else(|| Ballot::Failed(LATE.to_owned())),
            model: None,
        };
        self.ballots.into_iter().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::{fixtures::*, vote};
    use crate::model::{Action, Levels, Score, Vote, VoteClass};
    use rust_decimal_macros::dec;

    fn buy() -> Ballot {
        Ballot::Vote(Vote {
            action: Action::Buy,
            confidence: Score::from_f64(0.7),
            levels: Some(Levels { entry: dec!(100), stop: dec!(98), target: dec!(104) }),
            position_size_pct: Score::from_f64(8.0),
            reasoning: String::new(),
        })
    }

    fn poll() -> Poll {
        Poll::open(["a", "b", "c", "d", "e", "f"].map(Arc::from), NOW, 30_000)
    }

    #[test]
    fn a072_two_silent_voters_leave_a_decision_of_four_at_the_deadline() {
        let mut poll = poll();
        for voter in ["d", "c", "b", "a"] {
            assert_eq!(poll.record(voter, buy(), NOW.plus_ms(1_000)), Recorded::Counted);
        }
        assert!(!poll.is_over(NOW.plus_ms(29_999)));
        assert!(poll.is_over(NOW.plus_ms(30_000)));
        assert_eq!(poll.record("e", buy(), NOW.plus_ms(30_001)), Recorded::Late);
        let ballots = poll.close();
        let names: Vec<&str> = ballots.iter().map(|b| &*b.voter).collect();
        assert_eq!(names, ["a", "b", "c", "d", "e", "f"], "the order asked, not the order answered");
        assert_eq!(ballots[4].ballot, Ballot::Failed("late".to_owned()));
        let outcome = vote::decide(&ballots, 0, &boost()).expect("four votes");
        assert_eq!((outcome.action, outcome.class), (Action::Buy, VoteClass::Majority));
        assert_eq!((outcome.asked, outcome.valid), (6, 4));
    }

    #[test]
    fn the_first_answer_stands_and_strangers_do_not_vote() {
        let mut poll = poll();
        assert_eq!(poll.record("a", Ballot::Abstain("x".to_owned()), NOW), Recorded::Counted);
        assert_eq!(poll.record("a", buy(), NOW), Recorded::Repeated);
        assert_eq!(poll.record("z", buy(), NOW), Recorded::NotAsked);
        assert_eq!(poll.record("b", buy(), poll.deadline()), Recorded::Counted);
        assert_eq!(poll.close()[0].ballot, Ballot::Abstain("x".to_owned()));
    }

    #[test]
    fn it_is_over_as_soon_as_everyone_has_answered() {
        let mut poll = poll();
        for voter in ["a", "b", "c", "d", "e", "f"] {
            assert!(!poll.is_over(NOW));
            poll.record(voter, buy(), NOW);
        }
        assert!(poll.is_over(NOW));
    }
}
