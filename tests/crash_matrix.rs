//! The crash-point matrix: the real binary is killed at a named point, perhaps once more while it recovers, or the disk
//! fails there; then it starts cleanly and must have what the row requires. Needs `--features failpoints`.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod crash_support;
mod process_support;
mod service_support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crash_support::{
    Case, Check, Death, MODES, Mode, RECOVERY, Settings, Settled, World,
    drives::*,
    idle,
    others::{Between::*, *},
    outcomes::*,
    run,
    verdict::{Failed, Outcome, judged},
};

const fn case(row: &'static str, place: &'static str, also: &'static [Death], settled: Settled, check: Check) -> Case {
    Case { row, place, also, world: World::Morning, settings: &[], drive: idle, later: idle, settled, check }
}

/// Entries of decisions only, resting as limit orders.
const ENTRIES: Settings = &[("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__ENABLED", "false"), ("-speed", "1200")];
/// The same at the market.
const MARKET_ENTRIES: Settings = &[
    ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__ENABLED", "false"),
    ("TRIPLEGAIN__EXECUTION__ENTRY_ORDER_TYPE", "market"),
    ("TRIPLEGAIN__RISK__MAX_CORRELATED_EXPOSURE_PCT", "80"),
    ("TRIPLEGAIN__RISK__COOLDOWN_MINUTES__UNUSUAL_MOVE", "0"),
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
    ("-speed", "1200"),
];
/// An hour between batches is six seconds: a batch that is to be late by less than that is so on a slow machine as well.
const HOURLY: Settings = &[
    ("TRIPLEGAIN__PORTFOLIO__DCA__INTERVAL_HOURS", "1"),
    ("TRIPLEGAIN__LEGS__MAX_LATENESS_SECONDS", "0"),
    ("-later-speed", "60"),
];
/// The whole program slower after the first death, so that its first status is that of its start.
const SLOW_LATER: Settings = &[("-later-speed", "60")];
/// Prices come every ten seconds and count as silent after three: the level of market data rises within a minute. Later
/// nothing has the time to become better.
const SILENT: Settings = &[
    ("TRIPLEGAIN__MARKET__SILENCE_SECONDS", "3"),
    ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__ENABLED", "false"),
    ("-later-speed", "1"),
];
/// The same where no level was durable: the next process has to come to one, and need not hold it.
const SILENT_ON: Settings =
    &[("TRIPLEGAIN__MARKET__SILENCE_SECONDS", "3"), ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__ENABLED", "false")];
const CHECKPOINTS: Settings =
    &[("TRIPLEGAIN__STORE__CHECKPOINT__EVENTS", "2"), ("TRIPLEGAIN__STORE__CHECKPOINT__KEEP", "1")];

const NONE: &[Death] = &[];
const ERROR: &[Death] = &[Death::Error];
const TORN: &[Death] = &[Death::Error, Death::Torn];
const PANIC: &[Death] = &[Death::Panic];

const CASES: &[Case] = &[
    case("K01", "commit.claim", PANIC, goes_on, claimed_again),
    case("K01", "store.commit[RunClaimed]", PANIC, goes_on, claimed_again),
    case("K01", "journal.append[RunClaimed]", ERROR, goes_on, claimed_again),
    case("K02", "store.durable[RunClaimed]", PANIC, goes_on, interrupted),
    case("K03", "run.ask[trading_decision]", PANIC, goes_on, interrupted),
    case("K04", "run.arrived[trading_decision]", PANIC, goes_on, interrupted),
    case("K05", "journal.append[SignalReceived]", TORN, goes_on, decision_whole),
    case("K05", "journal.synced[SignalReceived]", NONE, goes_on, decision_whole),
    case("K06", "store.durable[RunFinished]", PANIC, goes_on, published_again),
    case("K06", "bus.publish[trading_signals]", PANIC, goes_on, published_again),
    case("K07", "journal.append[PlanCreated]", TORN, trades_end, one_plan),
    case("K07", "journal.synced[PlanCreated]", NONE, trades_end, one_plan),
    case("K08", "store.durable[PlanCreated]", PANIC, trades_end, plan_held),
    case("K09", "journal.append[TradeIntent]", TORN, trades_end, each_once),
    case("K10", "journal.synced[TradeIntent]", NONE, trades_end, intent_applied),
    case("K10", "state.transact[TradeIntent]", ERROR, trades_end, intent_applied),
    case("K11", "state.flush[TradeIntent]", ERROR, trades_end, intent_held),
    case("K12", "store.durable[TradeIntent]", PANIC, trades_end, intent_held),
    case("K13", "journal.append[TradeSubmitting]", TORN, trades_end, not_sent),
    case("K14", "store.durable[TradeSubmitting]", PANIC, trades_end, submitted_once),
    case("K14", "venue.execute", PANIC, trades_end, submitted_once),
    case("K23", "venue.answer[Filled]", PANIC, trades_end, settled_with_fill),
    Case { settings: ENTRIES, ..case("K20", "store.durable[TradeAcked]", PANIC, trades_end, rests_again) },
    Case { settings: ENTRIES, ..case("K20", "journal.append[TradeAcked]", TORN, trades_end, submitted_once) },
    Case { settings: PARTIAL, ..case("K21", "venue.answer[Filled]", NONE, trades_end, each_once) },
    Case { settings: PARTIAL, ..case("K21", "journal.append[TradeFill]", TORN, trades_end, each_once) },
    case("K23", "journal.append[TradeFill]", TORN, trades_end, settled_with_fill),
    case("K24", "journal.append[TradeSettled]", TORN, trades_end, settled_with_fill),
    case("K24", "state.transact[TradeSettled]", ERROR, trades_end, settled_with_fill),
    case("K25", "store.durable[TradeSettled]", PANIC, trades_end, settled_before),
    case("K25", "announce[TradeSettled]", PANIC, trades_end, settled_before),
    case("K27", "journal.sync[TradeFill]", ERROR, trades_end, settled_with_fill),
    case("K27", "journal.synced[TradeFill]", NONE, trades_end, settled_with_fill),
    Case { settings: DRAWDOWN, ..case("K28", "store.commit[BreakerTripped]", PANIC, emergency_runs, halted_once) },
    Case { settings: DRAWDOWN, ..case("K28", "journal.append[BreakerTripped]", TORN, emergency_runs, halted_once) },
    Case { settings: DRAWDOWN, ..case("K28", "journal.append[EmergencyStarted]", TORN, emergency_runs, halted_once) },
    Case { settings: DRAWDOWN, ..case("K28", "store.commit[EmergencyStarted]", NONE, emergency_runs, halted_once) },
    Case {
        world: World::Buys,
        settings: MARKET_ENTRIES,
        drive: close_two,
        ..case("K29", "store.durable[EmergencyStep]", PANIC, emergency_runs, targets_reached)
    },
    Case {
        world: World::Buys,
        settings: MARKET_ENTRIES,
        drive: close_two,
        ..case("K29", "journal.append[EmergencyStep]", TORN, emergency_runs, targets_reached)
    },
    Case { settings: REDUCE, ..case("K30", "store.commit[EmergencyStep]", PANIC, emergency_runs, targets_reached) },
    Case { settings: REDUCE, ..case("K30", "journal.append[EmergencyStep]", TORN, emergency_runs, targets_reached) },
    Case { drive: pause, later: pause, ..case("K31", "commit.lane", NONE, booted, command_absent) },
    Case { drive: pause, later: pause, ..case("K31", "store.commit[CommandReceived]", NONE, booted, command_absent) },
    Case { drive: pause, later: pause, ..case("K31", "journal.append[CommandReceived]", TORN, booted, command_absent) },
    Case { drive: pause, later: pause, ..case("K31", "journal.append[CommandDone]", TORN, booted, command_absent) },
    Case { drive: pause, later: pause, ..case("K32", "store.durable[CommandDone]", PANIC, booted, command_held) },
    Case { drive: pause, later: pause, ..case("K32", "api.answer[pause]", NONE, booted, command_held) },
    Case { drive: halt, ..case("K33", "journal.append[StateChanged]", TORN, booted, not_more_permissive) },
    Case { drive: halt, ..case("K33", "journal.synced[StateChanged]", NONE, booted, not_more_permissive) },
    Case { settings: DRAWDOWN, ..case("K33", "journal.synced[BreakerTripped]", NONE, booted, not_more_permissive) },
    Case { settings: DRAWDOWN, ..case("K33", "journal.append[BreakerTripped]", TORN, booted, not_more_permissive) },
    Case { settings: SILENT_ON, ..case("K33", "journal.append[DegradationChanged]", TORN, level_changed, level_held) },
    // The second change: one level is durable, the next one is not.
    Case {
        settings: SILENT,
        ..case("K33", "journal.append[DegradationChanged]@2", ERROR, booted, level_changed_and_held)
    },
    Case {
        settings: SILENT,
        ..case("K33", "journal.synced[DegradationChanged]", PANIC, booted, level_changed_and_held)
    },
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
    Case { drive: stop_with_a_plan, settings: SLOW_LATER, ..case("K47", "commit.stop", NONE, trades_end, drained) },
    Case {
        drive: stop_with_a_plan,
        settings: SLOW_LATER,
        ..case("K47", "journal.append[CleanStop]", TORN, trades_end, drained)
    },
    Case {
        drive: stop_with_a_plan,
        settings: SLOW_LATER,
        ..case("K47", "store.durable[CleanStop]", PANIC, trades_end, drained)
    },
];

type Work = Box<dyn Fn() -> Outcome + Send + Sync>;

/// One run of a row.
struct Run {
    row: &'static str,
    name: String,
    modes: &'static [Mode],
    work: Work,
}

const KILL: &[Mode] = &[Mode::Kill];
const FAILS: &[Mode] = &[Mode::Error];
const AGAIN: &[Mode] = &[Mode::Again];
/// Deaths that follow one another while the start recovers.
const NESTED: &[Mode] = &[Mode::Kill, Mode::Again];

const fn only(mode: Mode) -> &'static [Mode] {
    match mode {
        Mode::Kill => KILL,
        Mode::Error => FAILS,
        Mode::Again => AGAIN,
    }
}

fn of_case(case: &'static Case, death: Death, again: Option<usize>) -> Run {
    let second = if again.is_some() { ", and a second kill in recovery" } else { "" };
    let name = format!("{}={}{second}", case.place, death.action());
    let mode = if again.is_some() { Mode::Again } else { death.mode() };
    Run { row: case.row, name, modes: only(mode), work: Box::new(move || run(case, death, again)) }
}

fn other(
    row: &'static str,
    name: impl Into<String>,
    modes: &'static [Mode],
    work: impl Fn() -> Outcome + Send + Sync + 'static,
) -> Run {
    Run { row, name: name.into(), modes, work: Box::new(work) }
}

/// The same alone, after a start that was killed at one place and after one that failed at another.
fn thrice(
    row: &'static str,
    name: &str,
    number: usize,
    work: impl Fn(Between) -> Outcome + Copy + Send + Sync + 'static,
) -> [Run; 3] {
    let place = |skip: usize| RECOVERY[(number * 3 + skip) % RECOVERY.len()];
    // What is written can fail; an embedded store that cannot be opened is made anew (K43).
    let fails = ["lock.write", "journal.append[Booted]", "state.transact[Booted]", "state.flush[Booted]", "aux.flush"];
    [Nothing, Kill(place(1)), Error(fails[number % fails.len()])]
        .map(|between| other(row, format!("{name}{}", between.text()), only(between.mode()), move || work(between)))
}

/// What is more than one death.
fn others() -> Vec<Run> {
    let mut runs = Vec::new();
    for (number, place) in ["lock.write", "journal.append[Booted]", "state.flush[RunClaimed]"].into_iter().enumerate() {
        let all = thrice("K39", &format!("{place}=stop"), number, move |b| k39_a_frozen_predecessor(place, b));
        runs.extend(all.into_iter().take(if number == 1 { 3 } else { 2 }));
    }
    for (number, place) in ["journal.sync[TradeIntent]", "file.rename[checkpoint]"].into_iter().enumerate() {
        let all = thrice("K40", &format!("{place}=stop"), number + 3, move |b| k39_a_frozen_predecessor(place, b));
        runs.extend(all.into_iter().take(2));
    }
    for (number, who) in ["store", "coordinator"].into_iter().enumerate() {
        let name = format!("the thread of {who} stands still");
        let all = thrice("K40", &name, number + 5, move |b| k40_the_watchdog(who, b));
        runs.extend(all.into_iter().take(if number == 0 { 3 } else { 1 }));
    }
    for (name, from) in [("a new store", World::New), ("an old store", World::Morning), ("a torn tail", World::Torn)] {
        for first in 1..=3 {
            for (action, modes) in [("kill", NESTED), ("error", FAILS)] {
                let name = format!("{name}: {action} at every third step from {first}");
                runs.push(other("K41", name, modes, move || k41_every_step_of_boot(from, action, first, 3)));
            }
        }
    }
    for (number, (place, from, settings)) in k42_places().into_iter().enumerate() {
        let again = Kill(RECOVERY[number % RECOVERY.len()]);
        for (action, between) in [("full", Nothing), ("error", Nothing), ("error", again)] {
            // The second death at every fourth place: they meet all places of recovery.
            if between == Nothing || number % 4 == 0 {
                let name = format!("{place}={action}{}", between.text());
                let work = move || k42_a_failing_disk(place, action, from, settings, between);
                runs.push(other("K42", name, if between == Nothing { FAILS } else { AGAIN }, work));
            }
        }
    }
    let hows = ["short", "flipped", "gone", "state.open=panic", "state.transact=panic@2", "state.open=error"];
    for (number, how) in hows.into_iter().enumerate() {
        let [alone, again, fails] = thrice("K43", how, number, move |b| k43_a_damaged_embedded_store(how, b));
        let fails = Some(fails).filter(|_| number < 2);
        runs.extend([alone, again].into_iter().chain(fails));
    }
    for rule in ["aside.rename", "aside.dir_sync", "state.clear", "state.open@2", "state.rebuild", "state.rebuild@2"] {
        let (place, hit) = rule.split_once('@').unwrap_or((rule, "1"));
        for (action, modes) in [("kill", AGAIN), ("error", FAILS)] {
            let rule = format!("{place}={action}@{hit}");
            runs.push(other("K43", rule.clone(), modes, move || k43_ended_while_rebuilding(&rule)));
        }
    }
    for between in [Nothing, Kill("lock.write"), Error("lock.write")] {
        let name = format!("journal and embedded store damaged{}", between.text());
        runs.push(other("K44", name, only(between.mode()), move || k44_both_damaged(between)));
    }
    runs.extend(thrice("K45", "a copied directory", 0, k45_a_copied_directory));
    runs.extend(thrice("K46", "one day forward", 1, |b| k46_another_day(1, b)));
    runs.extend(thrice("K46", "one day back", 2, |b| k46_another_day(-1, b)));
    runs.extend(thrice("K48", "a symbol removed, a task off", 3, k48_another_configuration));
    for (number, what) in ["identity", "record", "kind"].into_iter().enumerate() {
        let all = thrice("K49", &format!("a newer {what}"), number, move |b| k49_another_schema(what, b));
        runs.extend(all.into_iter().take(if number == 0 { 3 } else { 1 }));
    }
    runs.push(other("K49", "another version of the program", KILL, k49_another_version));
    runs
}

/// Runs everything, several processes at a time: they mostly wait for their clock. What failed, how many ran again, and how
/// many of those did not reach their point then either: a machine too slow for them, which says nothing about the rule.
fn run_all(runs: &[Run]) -> (Vec<String>, usize, usize, BTreeSet<&'static str>) {
    let (next, repeated, missed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let (failures, reached) = (Mutex::new(Vec::new()), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                while let Some(Run { row, name, work, .. }) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = std::time::Instant::now();
                    let mut done = judged(work);
                    // The program runs in real time here: a machine that stood still may keep a run from its point. What
                    // must hold and does not is never tried again.
                    if let Err(Failed::NotReached(why)) = &done {
                        println!("{row} {name}: run again, because: {why}");
                        repeated.fetch_add(1, Ordering::Relaxed);
                        done = judged(work);
                    }
                    let word = match &done {
                        Ok(_) => "ok",
                        Err(Failed::NotReached(_)) => "NOT REACHED",
                        Err(_) => "FAILED",
                    };
                    println!("{row} {name}: {word}, {:.1} s", began.elapsed().as_secs_f64());
                    if let Err(why) = done {
                        println!("{row} {name}: {why}");
                        if matches!(why, Failed::NotReached(_)) {
                            missed.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        failures.lock().unwrap().push(format!("{row} {name}: {why}"));
                    }
                    reached.lock().unwrap().insert(*row);
                }
            });
        }
    });
    let reached = reached.into_inner().unwrap();
    (failures.into_inner().unwrap(), repeated.into_inner(), missed.into_inner(), reached)
}

/// Runs at a time. Each is a busy program: on a machine with few cores more of them only keep one another from their
/// points.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(4, |cores| (4 * cores.get()).clamp(4, 8))
}

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
/// Cells of the table without a run, and why.
const EMPTY: &[(&str, Mode, &str)] = &[("K42", Mode::Kill, "K41 kills at each of these writes")];

/// Runs by row and mode. Every cell has one, or stands in one of the lists above, not in both.
fn table(runs: &[Run]) -> BTreeMap<String, BTreeMap<Mode, usize>> {
    let rows = (1..=50).map(|number| (format!("K{number:02}"), BTreeMap::new()));
    let mut table: BTreeMap<String, BTreeMap<Mode, usize>> = rows.collect();
    for run in runs {
        for mode in run.modes {
            *table.get_mut(run.row).unwrap().entry(*mode).or_default() += 1;
        }
    }
    for (row, cells) in &table {
        for mode in MODES {
            let absent = ABSENT.iter().any(|(absent, _)| absent == row);
            let excused = absent || EMPTY.iter().any(|(empty, of, _)| empty == row && *of == mode);
            assert!(cells.contains_key(&mode) != excused, "{row} {mode:?}: a run or a reason, and not both");
        }
    }
    table
}

/// The first run of every cell and every `nth` of the others.
fn thinned(runs: Vec<Run>, nth: usize) -> Vec<Run> {
    let (mut met, mut number) = (BTreeSet::new(), 0);
    let keep = |run: &Run| {
        let first = run.modes.iter().fold(false, |any, mode| met.insert((run.row, *mode)) | any);
        number += usize::from(!first);
        first || number % nth == 0
    };
    runs.into_iter().filter(keep).collect()
}

/// `CRASH_ROW=K07,K41` runs these rows alone, `CRASH_MATRIX_EVERY=3` the short form: every cell, and a third of the rest.
#[test]
fn every_crash_point_recovers_as_its_row_requires() {
    let wanted = std::env::var("CRASH_ROW").unwrap_or_default();
    let mut runs = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        runs.push(of_case(case, Death::Kill, None));
        runs.push(of_case(case, Death::Kill, Some(number)));
        runs.extend(case.also.iter().map(|death| of_case(case, *death, None)));
    }
    runs.extend(others());
    let table = table(&runs);
    runs.retain(|run| wanted.split(',').any(|wanted| run.row.starts_with(wanted)));
    // The longest first: none of them is left alone at the end.
    runs.sort_by_key(|run| !["K34", "K41", "K46"].contains(&run.row));
    let all = runs.len();
    if let Some(nth) = std::env::var("CRASH_MATRIX_EVERY").ok().and_then(|nth| nth.parse().ok()) {
        runs = thinned(runs, usize::max(nth, 1));
    }
    let count = runs.len();
    let (failures, repeated, missed, reached) = run_all(&runs);
    println!("cells: row   kill  error  second death   (runs)");
    for (row, cells) in &table {
        let shown = |mode: &Mode| cells.get(mode).map_or_else(|| "-".to_owned(), usize::to_string);
        let why = ABSENT.iter().filter(|(of, _)| of == row).map(|(_, why)| *why);
        let why: Vec<&str> = why.chain(EMPTY.iter().filter(|(of, ..)| of == row).map(|(.., why)| *why)).collect();
        let [kill, error, again] = MODES.map(|mode| shown(&mode));
        println!("cells: {row}  {kill:>5}  {error:>5}  {again:>12}   {}", why.join("; "));
    }
    // A row of which no run came to its point is not covered, whatever was planned.
    let covered = reached.iter().filter(|row| !PARTLY.iter().any(|(partly, _)| partly == *row)).count();
    println!(
        "crash points covered: {covered} / {}, {} more in part, by {count} of {all} runs",
        table.len(),
        PARTLY.len()
    );
    for (row, why) in PARTLY {
        println!("in part: {row}: {why}");
    }
    for (row, why) in ABSENT {
        println!("not covered: {row}: {why}");
    }
    println!("run again: {repeated}, not reached then either: {missed} of {count}");
    assert!(missed == 0, "{missed} of {count} runs twice did not reach their point: they prove nothing");
    assert!(failures.is_empty(), "{} of {} runs failed:\n{}", failures.len(), runs.len(), failures.join("\n\n"));
}
