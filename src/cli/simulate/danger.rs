//! Sequences that are known to be dangerous and that chance alone seldom makes: a process killed between write and sync
//! whose recoveries then end one after the other, the last one with the power; an end just after a commit that matters.

use rand::{Rng, seq::IndexedRandom};

use super::{
    disk_faults::DiskFaults,
    plan::{Fault, Plan},
};
use crate::model::Record;

/// Which commits an end follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    /// Any.
    Any,
    /// Orders and positions.
    Trades,
    /// Plans and their legs.
    Plans,
    /// Runs and decisions.
    Runs,
    /// Commands and changes of the state.
    State,
}

impl Topic {
    /// True when the batch is about it.
    pub fn is_in(self, batch: &[Record]) -> bool {
        let begins: &[&str] = match self {
            Topic::Any => &[""],
            Topic::Trades => &["Trade", "Position", "Stop"],
            Topic::Plans => &["Plan", "Legs"],
            Topic::Runs => &["Run", "InFlight", "Decision", "Signal"],
            Topic::State => &["Command", "State", "Pause", "Emergency", "Breaker"],
        };
        batch.iter().any(|record| begins.iter().any(|begin| record.event.kind().starts_with(begin)))
    }
}

/// The end of a process just after a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AfterCommit {
    /// Commits about this count.
    pub topic: Topic,
    /// So many of them are waited for, at least 1.
    pub nth: u32,
    /// So many turns of the runtime the process still has.
    pub turns: u32,
    /// The power goes as well.
    pub power: bool,
}

/// What is arranged for one process.
#[derive(Clone, Debug, Default)]
pub struct Arranged {
    /// Its disk.
    pub disk: Option<DiskFaults>,
    /// Whether its crash takes the power along; absent = left to chance.
    pub power: Option<bool>,
    /// An end after a commit.
    pub after_commit: Option<AfterCommit>,
}

/// Arranges process after process.
#[derive(Default)]
pub struct Danger {
    /// Recoveries that still end badly.
    recoveries: u32,
}

/// A recovery has about as many operations of the disk, its first commits included.
const OPERATIONS_OF_A_RECOVERY: u64 = 16;

impl Danger {
    /// What happens to the process of that number; call it once for each, in order.
    pub fn arrange(&mut self, plan: &Plan, life: u32) -> Arranged {
        let ordinary = || Arranged { disk: DiskFaults::draw(plan, life), ..Arranged::default() };
        if !plan.faults.has(Fault::Crash) {
            return ordinary();
        }
        let mut rng = plan.stream("danger", life);
        if self.recoveries > 0 {
            self.recoveries -= 1;
            let at = rng.random_range(0..OPERATIONS_OF_A_RECOVERY);
            let power = self.recoveries == 0 || rng.random_bool(0.3);
            return Arranged {
                disk: Some(DiskFaults::death(at, rng.random())),
                power: Some(power),
                after_commit: None,
            };
        }
        match rng.random_range(0..20) {
            0..3 => {
                self.recoveries = rng.random_range(1..=3);
                let most = [4, 40, 400].choose(&mut rng).copied().unwrap_or(4);
                let disk = Some(DiskFaults::death_before_sync(rng.random_range(0..most)));
                // The operating system lives on with what was written and not synced.
                Arranged { disk, power: Some(false), after_commit: None }
            }
            3..9 => {
                let topics = [Topic::Any, Topic::Trades, Topic::Trades, Topic::Plans, Topic::Runs, Topic::State];
                let most = [1, 3, 30].choose(&mut rng).copied().unwrap_or(1);
                let after_commit = Some(AfterCommit {
                    topic: topics.choose(&mut rng).copied().unwrap_or(Topic::Any),
                    nth: rng.random_range(1..=most),
                    turns: [0, 1, 2, rng.random_range(0..20)].choose(&mut rng).copied().unwrap_or(0),
                    power: rng.random_bool(0.5),
                });
                Arranged { after_commit, ..ordinary() }
            }
            _ => ordinary(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::simulate::plan::Faults, model::time::DAY_MS};

    fn arranged(faults: Faults) -> Vec<Arranged> {
        let plan = Plan { seed: 3, length_ms: DAY_MS, faults, until: None };
        let mut danger = Danger::default();
        (1..=400).map(|life| danger.arrange(&plan, life)).collect()
    }

    #[test]
    fn a_kill_before_a_sync_is_followed_by_recoveries_that_die_and_the_last_one_takes_the_power() {
        let lives = arranged(Faults::all());
        let chains: Vec<&[Arranged]> = lives
            .chunk_by(|_, next| next.power.is_some() && next.power != Some(false))
            .filter(|c| c.len() > 1)
            .collect();
        assert!(chains.len() > 20, "{}", chains.len());
        for chain in chains {
            assert_eq!(chain.last().and_then(|last| last.power), Some(true));
            assert!(chain.iter().skip(1).all(|life| life.disk.as_ref().is_some_and(DiskFaults::is_crash)));
        }
    }

    #[test]
    fn every_topic_is_waited_for() {
        let lives = arranged(Faults::all());
        for topic in [Topic::Any, Topic::Trades, Topic::Plans, Topic::Runs, Topic::State] {
            assert!(lives.iter().filter_map(|life| life.after_commit).any(|after| after.topic == topic), "{topic:?}");
        }
    }

    #[test]
    fn without_crashes_nothing_is_arranged() {
        let lives = arranged("store,feed".parse().unwrap());
        assert!(lives.iter().all(|life| life.power.is_none() && life.after_commit.is_none()));
    }
}
