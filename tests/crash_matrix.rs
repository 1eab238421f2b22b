//! The crash-point matrix: the real binary is killed at a named point, perhaps once more while it recovers, or the disk
//! fails there; then it starts cleanly and must have what the row requires. Needs `--features failpoints`.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod crash_support;
mod process_support;
mod service_support;

use std::{collections::BTreeSet, sync::Mutex};

use crash_support::{Case, Check, Death, Settings, Settled, World, drives::*, idle, others::*, outcomes::*, run};

const fn case(row: &'static str, place: &'static str, also: &'static [Death], settled: Settled, check: Check) -> Case {
    Case { row, place, also, world: World::Morning, settings: &[], drive: idle, later: idle, settled, check }
}

/// Entries of decisions only, resting as limit orders.
const ENTRIES: Settings = &[("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__ENABLED", "false"), ("-speed", "3600")];
/// The same at the market.
const MARKET_ENTRIES: Settings = &[
    ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__ENABLED", "false"),
    ("TRIPLEGAIN__EXECUTION__ENTRY_ORDER_TYPE", "market"),
    ("TRIPLEGAIN__RISK__MAX_CORRELATED_EXPOSURE_PCT", "80"),
    ("TRIPLEGAIN__RISK__COOLDOWN_MINUTES__UNUSUAL_MOVE", "0"),
    ("-speed", "3600"),
];
const PARTIAL: Settings = &[
    ("TRIPLEGAIN__EXECUTION__PAPER__PARTIAL_FILLS__ENABLED", "true"),
    ("TRIPLEGAIN__EXECUTION__PAPER__PARTIAL_FILLS__CHANCE", "1"),
];
const DRAWDOWN: Settings = &[
    ("TRIPLEGAIN__RISK__BREAKERS__DAILY_LOSS_PCT", "0.01"),
    ("TRIPLEGAIN__RISK__BREAKERS__WEEKLY_LOSS_PCT", "0.01"),
    ("TRIPLEGAIN__RISK__BREAKERS__MAX_DRAWDOWN_PCT", "0.01"),
];
const REDUCE: Settings = &[
    ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__ENABLED", "false"),
    ("TRIPLEGAIN__EXECUTION__ENTRY_ORDER_TYPE", "market"),
    ("TRIPLEGAIN__RISK__BREAKERS__DAILY_LOSS_PCT", "0.01"),
    ("TRIPLEGAIN__RISK__BREAKERS__WEEKLY_LOSS_PCT", "0.01"),
    ("-speed", "3600"),
];
const HOURLY: Settings = &[
    ("TRIPLEGAIN__PORTFOLIO__DCA__INTERVAL_HOURS", "1"),
    ("TRIPLEGAIN__LEGS__MAX_LATENESS_SECONDS", "0"),
    ("-speed", "1800"),
    ("-later-speed", "60"),
];
const CHECKPOINTS: Settings =
    &[("TRIPLEGAIN__STORE__CHECKPOINT__EVENTS", "2"), ("TRIPLEGAIN__STORE__CHECKPOINT__KEEP", "1")];

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
    case("K06", "store.durable[RunFinished]", NONE, goes_on, published_again),
    case("K06", "bus.publish[trading_signals]", NONE, goes_on, published_again),
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
    Case { settings: ENTRIES, ..case("K20", "store.durable[TradeAcked]", NONE, trades_end, rests_again) },
    Case { settings: PARTIAL, ..case("K21", "venue.answer[Filled]", NONE, trades_end, each_once) },
    Case { settings: PARTIAL, ..case("K21", "journal.append[TradeFill]", TORN, trades_end, each_once) },
    case("K23", "journal.append[TradeFill]", NONE, trades_end, settled_with_fill),
    case("K24", "journal.append[TradeSettled]", TORN, trades_end, settled_with_fill),
    case("K24", "state.transact[TradeSettled]", ERROR, trades_end, settled_with_fill),
    case("K25", "store.durable[TradeSettled]", NONE, trades_end, settled_before),
    case("K25", "announce[TradeSettled]", NONE, trades_end, settled_before),
    case("K27", "journal.sync[TradeFill]", ERROR, trades_end, settled_with_fill),
    case("K27", "journal.synced[TradeFill]", NONE, trades_end, settled_with_fill),
    Case { settings: DRAWDOWN, ..case("K28", "store.commit[BreakerTripped]", NONE, emergency_runs, halted_once) },
    Case { settings: DRAWDOWN, ..case("K28", "store.commit[EmergencyStarted]", NONE, emergency_runs, halted_once) },
    Case {
        settings: MARKET_ENTRIES,
        drive: close_two,
        ..case("K29", "store.durable[EmergencyStep]", NONE, emergency_runs, targets_reached)
    },
    Case { settings: REDUCE, ..case("K30", "store.commit[EmergencyStep]", NONE, emergency_runs, targets_reached) },
    Case { drive: pause, later: pause, ..case("K31", "commit.lane", NONE, booted, command_absent) },
    Case { drive: pause, later: pause, ..case("K31", "store.commit[CommandReceived]", NONE, booted, command_absent) },
    Case { drive: pause, later: pause, ..case("K31", "journal.append[CommandReceived]", TORN, booted, command_absent) },
    Case { drive: pause, later: pause, ..case("K32", "store.durable[CommandDone]", NONE, booted, command_held) },
    Case { drive: pause, later: pause, ..case("K32", "api.answer[pause]", NONE, booted, command_held) },
    Case { drive: halt, ..case("K33", "journal.append[StateChanged]", TORN, booted, not_more_permissive) },
    Case { drive: halt, ..case("K33", "journal.synced[StateChanged]", NONE, booted, not_more_permissive) },
    Case { settings: DRAWDOWN, ..case("K33", "journal.synced[BreakerTripped]", NONE, booted, not_more_permissive) },
    Case {
        settings: HOURLY,
        drive: late_legs,
        ..case("K34", "journal.append[LegsRespread]", TORN, respread_done, one_schedule)
    },
    Case {
        settings: HOURLY,
        drive: late_legs,
        ..case("K34", "journal.synced[LegsRespread]", NONE, respread_done, one_schedule)
    },
    case("K35", "file.create[checkpoint]", ERROR, goes_on, each_once),
    case("K35", "file.write[checkpoint]", TORN, goes_on, each_once),
    case("K35", "file.sync[checkpoint]", ERROR, goes_on, each_once),
    case("K35", "file.rename[checkpoint]", ERROR, goes_on, each_once),
    case("K35", "file.dir_sync[checkpoint]", ERROR, goes_on, each_once),
    Case { settings: CHECKPOINTS, ..case("K35", "checkpoint.prune", ERROR, goes_on, each_once) },
    case("K36", "journal.append@7", TORN, goes_on, each_once),
    Case { world: World::Evening, ..case("K37", "journal.close", ERROR, goes_on, each_once) },
    Case { world: World::Evening, ..case("K37", "journal.create", ERROR, goes_on, each_once) },
    Case { world: World::Evening, ..case("K37", "journal.dir_sync", ERROR, goes_on, each_once) },
    case("K38", "boot.epoch", NONE, goes_on, each_once),
    case("K38", "journal.append[Booted]", TORN, goes_on, each_once),
    case("K38", "journal.synced[Booted]", NONE, goes_on, each_once),
    case("K38", "state.transact[Booted]", ERROR, goes_on, each_once),
    Case { drive: stop_with_a_plan, ..case("K47", "commit.stop", NONE, trades_end, drained) },
    Case { drive: stop_with_a_plan, ..case("K47", "journal.append[CleanStop]", NONE, trades_end, drained) },
    Case { drive: stop_with_a_plan, ..case("K47", "store.durable[CleanStop]", NONE, trades_end, drained) },
];

type Work = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// One run of a row.
struct Run {
    row: &'static str,
    name: String,
    work: Work,
}

fn of_case(case: &'static Case, death: Death, again: Option<usize>) -> Run {
    let second = if again.is_some() { ", and a second kill in recovery" } else { "" };
    let name = format!("{}={}{second}", case.place, death.action());
    Run { row: case.row, name, work: Box::new(move || run(case, death, again)) }
}

fn other(
    row: &'static str,
    name: impl Into<String>,
    work: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) -> Run {
    Run { row, name: name.into(), work: Box::new(work) }
}

/// What is more than one death.
fn others() -> Vec<Run> {
    let mut runs = Vec::new();
    for place in ["lock.write", "journal.append[Booted]", "state.flush[RunClaimed]"] {
        runs.push(other("K39", format!("{place}=stop"), move || k39_a_frozen_predecessor(place)));
    }
    for place in ["journal.sync[TradeIntent]", "file.rename[checkpoint]"] {
        runs.push(other("K40", format!("{place}=stop"), move || k39_a_frozen_predecessor(place)));
    }
    for who in ["store", "coordinator"] {
        runs.push(other("K40", format!("the thread of {who} stands still"), move || k40_the_watchdog(who)));
    }
    for (name, from) in [("a new store", World::New), ("an old store", World::Morning), ("a torn tail", World::Torn)] {
        for first in 1..=3 {
            let work = move || k41_every_step_of_boot(from, first, 3);
            runs.push(other("K41", format!("{name}: every third step from {first}"), work));
        }
    }
    for (place, from, settings) in k42_places() {
        for action in ["full", "error"] {
            let work = move || k42_a_failing_disk(place, action, from, settings);
            runs.push(other("K42", format!("{place}={action}"), work));
        }
    }
    for how in ["short", "flipped", "gone", "state.open=panic", "state.transact=panic@2", "state.open=error"] {
        runs.push(other("K43", how, move || k43_a_damaged_embedded_store(how)));
    }
    for rule in ["aside.rename=kill", "state.open=kill@2", "state.rebuild=kill", "state.rebuild=kill@2"] {
        runs.push(other("K43", rule, move || k43_killed_while_rebuilding(rule)));
    }
    runs.push(other("K44", "journal and embedded store damaged", k44_both_damaged));
    runs.push(other("K45", "a copied directory", k45_a_copied_directory));
    runs.push(other("K46", "one day forward", || k46_another_day(1)));
    runs.push(other("K46", "one day back", || k46_another_day(-1)));
    runs.push(other("K48", "a symbol removed, a task off", k48_another_configuration));
    for what in ["identity", "record", "kind"] {
        runs.push(other("K49", format!("a newer {what}"), move || k49_another_schema(what)));
    }
    runs.push(other("K49", "another version of the program", k49_another_version));
    runs
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
                    let Some(Run { row, name, work }) = runs.get(index) else { return };
                    let began = std::time::Instant::now();
                    let once = || match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
                        Ok(Ok(())) => None,
                        Ok(Err(why)) => Some(why),
                        Err(panic) => Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panic".into())),
                    };
                    // The program runs in real time here: a machine that stood still may keep a run from its point. What
                    // fails twice is wrong, and a second run is never silent.
                    let why = once().and_then(|first| {
                        println!("{row} {name}: run again, because: {first}");
                        once()
                    });
                    let word = if why.is_some() { "FAILED" } else { "ok" };
                    println!("{row} {name}: {word}, {:.1} s", began.elapsed().as_secs_f64());
                    if let Some(why) = why {
                        failures.lock().unwrap().push(format!("{row} {name}: {why}"));
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

const WORKERS: usize = 8;

const LIVE: &str = "of a live venue only";
/// Rows whose runs check less than the row requires.
const PARTLY: &[(&str, &str)] = &[];
/// Rows without a run, and why.
const ABSENT: &[(&str, &str)] = &[
    ("K15", LIVE),
    ("K16", LIVE),
    ("K17", LIVE),
    ("K18", LIVE),
    ("K19", LIVE),
    ("K22", LIVE),
    ("K26", LIVE),
    ("K50", LIVE),
];

#[test]
fn every_crash_point_recovers_as_its_row_requires() {
    let only = std::env::var("CRASH_ROW").unwrap_or_default();
    let mut runs = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        runs.push(of_case(case, Death::Kill, None));
        runs.push(of_case(case, Death::Kill, Some(number)));
        runs.extend(case.also.iter().map(|death| of_case(case, *death, None)));
    }
    runs.extend(others());
    let covered: BTreeSet<&str> = runs.iter().map(|run| run.row).collect();
    let known: BTreeSet<&str> = covered.iter().copied().chain(ABSENT.iter().map(|(row, _)| *row)).collect();
    let all: Vec<String> = (1..=50).map(|number| format!("K{number:02}")).collect();
    assert!(all.iter().all(|row| known.contains(row.as_str())), "a row is neither covered nor excused: {known:?}");
    runs.retain(|run| run.row.starts_with(&only));
    let count = runs.len();
    let failures = run_all(&runs);
    let whole = covered.len() - PARTLY.len();
    println!("crash points covered: {whole} / {}, {} more in part, by {count} runs", all.len(), PARTLY.len());
    for (row, why) in PARTLY {
        println!("in part: {row}: {why}");
    }
    for (row, why) in ABSENT {
        println!("not covered: {row}: {why}");
    }
    assert!(failures.is_empty(), "{} of {} runs failed:\n{}", failures.len(), runs.len(), failures.join("\n\n"));
}
