//! The crash-point matrix: the real binary is killed at a named point, perhaps once more while it recovers, or the disk
//! fails there; then it starts cleanly and must have what the row requires. Needs `--features failpoints`.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod crash_support;
mod process_support;

use std::sync::Mutex;

use crash_support::{Case, Death, World, idle, outcomes::*, run};

const fn case(
    row: &'static str,
    place: &'static str,
    also: &'static [Death],
    settled: fn(&crash_support::Evidence) -> bool,
    check: crash_support::Check,
) -> Case {
    Case { row, place, also, world: World::Morning, settings: &[], drive: idle, settled, check }
}

const NONE: &[Death] = &[];
const ERROR: &[Death] = &[Death::Error];
const TORN: &[Death] = &[Death::Error, Death::Torn];

const CASES: &[Case] = &[
    case("K01", "commit.claim", NONE, goes_on, claimed_again),
    case("K01", "store.commit[RunClaimed]", NONE, goes_on, claimed_again),
    case("K02", "store.durable[RunClaimed]", NONE, goes_on, interrupted),
    case("K03", "run.ask[trading_decision]", NONE, goes_on, interrupted),
    case("K04", "run.arrived[trading_decision]", NONE, goes_on, interrupted),
    case("K05", "journal.append[SignalReceived]", TORN, goes_on, decision_whole),
    case("K05", "journal.synced[SignalReceived]", NONE, goes_on, decision_whole),
    case("K07", "journal.append[PlanCreated]", TORN, trades_end, one_plan),
    case("K07", "journal.synced[PlanCreated]", NONE, trades_end, one_plan),
    case("K08", "store.durable[PlanCreated]", NONE, trades_end, plan_held),
    case("K09", "journal.append[TradeIntent]", TORN, trades_end, each_once),
    case("K10", "journal.synced[TradeIntent]", NONE, trades_end, intent_applied),
    case("K10", "state.transact[TradeIntent]", ERROR, trades_end, intent_applied),
    case("K11", "state.flush[TradeIntent]", ERROR, trades_end, intent_held),
    case("K12", "store.durable[TradeIntent]", NONE, trades_end, intent_held),
    case("K13", "journal.append[TradeSubmitting]", TORN, trades_end, not_sent),
    case("K14", "store.durable[TradeSubmitting]", NONE, trades_end, submitted_once),
    case("K14", "venue.execute", NONE, trades_end, submitted_once),
    case("K23", "venue.answer[Filled]", NONE, trades_end, settled_with_fill),
    case("K24", "journal.append[TradeSettled]", TORN, trades_end, settled_with_fill),
];

/// One run of a case.
#[derive(Clone, Copy)]
struct Run {
    case: &'static Case,
    death: Death,
    again: Option<usize>,
}

/// Runs everything, several processes at a time: they mostly wait for their clock.
fn run_all(runs: &[Run]) -> Vec<String> {
    let next = Mutex::new(0usize);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let index = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        *next - 1
                    };
                    let Some(Run { case, death, again }) = runs.get(index).copied() else { return };
                    let began = std::time::Instant::now();
                    let done = std::panic::catch_unwind(|| run(case, death, again));
                    let why = match done {
                        Ok(Ok(())) => None,
                        Ok(Err(why)) => Some(why),
                        Err(panic) => Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panic".into())),
                    };
                    let name = format!("{} {}={} {}", case.row, case.place, death.action(), if again.is_some() { "and again" } else { "" });
                    println!("{name}: {:?} {}", began.elapsed(), if why.is_some() {"FAILED"} else {"ok"});
                    if let Some(why) = why {
                        failures.lock().unwrap().push(format!("{name}: {why}"));
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

const WORKERS: usize = 8;

#[test]
fn every_crash_point_recovers_as_its_row_requires() {
    let only = std::env::var("CRASH_ROW").unwrap_or_default();
    let mut runs = Vec::new();
    for (number, case) in CASES.iter().enumerate().filter(|(_, case)| case.row.starts_with(&only)) {
        runs.push(Run { case, death: Death::Kill, again: None });
        runs.push(Run { case, death: Death::Kill, again: Some(number) });
        runs.extend(case.also.iter().map(|death| Run { case, death: *death, again: None }));
    }
    let failures = run_all(&runs);
    assert!(failures.is_empty(), "{} of {} runs failed:\n{}", failures.len(), runs.len(), failures.join("\n\n"));
}
