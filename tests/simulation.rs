//! Simulations of the whole program from a seed: they hold, they are the same twice, and a planted defect is found with
//! the shortest run that shows it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed unwrap is a failed test

use triplegain::{
    cli::simulate::{
        plan::{Faults, Plan, Until},
        shrink,
        world::simulate,
    },
    model::{Event, Record, time::DAY_MS},
};

fn plan(seed: u64, days: f64, faults: &str) -> Plan {
    let faults: Faults = faults.parse().unwrap();
    Plan { seed, length_ms: (days * DAY_MS as f64) as i64, faults, until: None }
}

#[track_caller]
fn holds(plan: &Plan) {
    let outcome = simulate(plan, None).unwrap();
    if let Some(violation) = &outcome.violation {
        let shortest = shrink::shortest(plan, violation, None).unwrap();
        panic!("{}", shrink::text(plan, &shortest));
    }
    assert!(outcome.events > 10, "seed {}: nothing happened: {outcome:?}", plan.seed);
}

#[test]
fn random_seeds_with_every_fault_keep_the_invariants() {
    for seed in 1..=4 {
        holds(&plan(seed, 0.5, "all"));
    }
}

#[test]
fn random_seed_twice_gives_the_same_journal_and_another_seed_another() {
    let first = simulate(&plan(5, 0.3, "all"), None).unwrap();
    assert_eq!(simulate(&plan(5, 0.3, "all"), None).unwrap(), first);
    assert_ne!(simulate(&plan(6, 0.3, "all"), None).unwrap().journal_sha256, first.journal_sha256);
}

/// The second half of every fill is kept from the check.
fn half_a_fill(record: &mut Record) {
    if let Event::TradeFill { quantity, .. } = &mut record.event {
        *quantity /= triplegain::model::Decimal::TWO;
    }
}

#[test]
fn random_planted_defect_is_found_and_the_run_cut_down_to_the_record_that_shows_it() {
    let plan = plan(3, 0.5, "none");
    let found = simulate(&plan, Some(half_a_fill)).unwrap().violation.expect("the defect is seen");
    assert!(found.what.contains("is not worth"), "{}", found.what);
    assert!(found.tail.last().unwrap().contains("TradeFill"), "{:?}", found.tail.last());
    let shortest = shrink::shortest(&plan, &found, Some(half_a_fill)).unwrap();
    let Some(Until::Record(record)) = shortest.plan.until else { panic!("{:?}", shortest.plan.until) };
    assert!(shortest.proven);
    assert_eq!(shortest.violation.seq, record);
    let before = Plan { until: Some(Until::Record(record - 1)), ..plan.clone() };
    assert_eq!(simulate(&before, Some(half_a_fill)).unwrap().violation, None);
    let text = shrink::text(&plan, &shortest);
    assert!(text.contains(&format!("simulate --seed 3 --days 0.5 --faults none --until-record {record}")), "{text}");
}
