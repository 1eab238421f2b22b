//! The shortest run that still fails, and the words for it.

use anyhow::Result;

use super::{
    monitor::{Plant, Violation},
    plan::{Plan, Until},
    world::simulate,
};

/// The shortest run found.
#[derive(Clone, Debug)]
pub struct Shortest {
    /// Ends right after the violation shows.
    pub plan: Plan,
    /// What shows there.
    pub violation: Violation,
    /// A run that ends one step earlier was made and holds.
    pub proven: bool,
}

/// Looks for the earliest end at which `plan` still fails. Violations of a record show at that very record; others, which
/// show when states are compared, may have begun earlier and are searched for by halving.
///
/// # Errors
/// The runtime cannot be made.
pub fn shortest(plan: &Plan, found: &Violation, plant: Option<Plant>) -> Result<Shortest> {
    let at = |until| -> Result<Option<Violation>> {
        let shorter = Plan { until: Some(until), ..plan.clone() };
        Ok(simulate(&shorter, plant)?.violation)
    };
    let result = |until, violation, proven| {
        Ok(Shortest { plan: Plan { until: Some(until), ..plan.clone() }, violation, proven })
    };
    if found.at_start {
        // A start has no records before it: the processes up to it are the run.
        let proven = at(Until::Life(found.life.saturating_sub(1)))?.is_none();
        return result(Until::Life(found.life), found.clone(), proven);
    }
    // The record that shows it was not taken in, so the last good one is `seq`.
    let mut high = (found.seq + 1, found.clone());
    if at(Until::Record(high.0))?.is_none() {
        // It showed while nothing was recorded: only the process tells the place.
        return result(Until::Life(found.life), found.clone(), false);
    }
    let mut low = 0;
    let mut step = 1;
    while low + 1 < high.0 {
        // First just before the place, then farther and farther, then halving.
        let middle = if step > 0 { high.0.saturating_sub(step).max(low + 1) } else { low + (high.0 - low) / 2 };
        match at(Until::Record(middle))? {
            Some(violation) => {
                high = (middle, violation);
                step *= 2;
            }
            None => {
                low = middle;
                step = 0;
            }
        }
    }
    result(Until::Record(high.0), high.1, true)
}

/// What is told about a violation: seed, place, the newest lines, and a command that repeats it.
pub fn text(plan: &Plan, shortest: &Shortest) -> String {
    let Shortest { plan: short, violation, proven } = shortest;
    let days = plan.length_ms as f64 / crate::model::time::DAY_MS as f64;
    let end = match short.until {
        Some(Until::Record(record)) => format!(" --until-record {record}"),
        Some(Until::Life(life)) => format!(" --until-life {life}"),
        None => String::new(),
    };
    let kind = if *proven { "shortest run that fails" } else { "shortest run that is known to fail" };
    let tail = violation.tail.join("\n  ");
    format!(
        "seed {}: after record {} of process {}: {}\n  {tail}\n{kind}:\n  triplegain simulate --seed {} --days {days} \
         --faults {}{end}",
        plan.seed, violation.seq, violation.life, violation.what, plan.seed, plan.faults
    )
}
