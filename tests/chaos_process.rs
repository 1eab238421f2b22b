//! Faults in the real binary (`--features failpoints`): who ends the process and with which code, what comes back by
//! itself, what stops the signs of life, and that stopping never waits for ever.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod process_support;
mod service_support;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use process_support::*;
use serde_json::Value;
use service_support::Manager;

/// An hour of program time per second.
const FAST: [&str; 2] = ["--speed", "3600"];
/// The small world of the crash matrix, whose starts are cheap, at ten minutes per second: an hourly plan within seconds,
/// and runs that end within their deadlines on a slow machine.
const BRISK: [&str; 4] =
    ["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash_support/crash.toml"), "--speed", "600"];
const SLOW: [&str; 2] = ["--speed", "2"];

fn struck(chaos: &str) -> Command {
    let mut command = triplegain();
    command.env("TRIPLEGAIN_CHAOS", chaos);
    command
}

/// Runs into its fault, ends with 70, and the next start recovers everything and trades on.
fn ends_with_70_and_recovers(store: &Path, chaos: &str) {
    let mut program = Program::spawn_with(struck(chaos), store, &BRISK);
    let ended = program.wait();
    assert_eq!(ended.code(), Some(70), "{chaos}: {}", program.said());
    let actor = chaos.split(':').next().unwrap();
    assert!(program.said().contains(&format!("{actor} panicked")), "{chaos}: {}", program.said());
    assert_sound(store);
}

#[test]
fn a_panic_of_an_actor_that_cannot_be_replaced_ends_the_process_with_70_and_the_next_start_recovers() {
    std::thread::scope(|scope| {
        for actor in ["coordinator", "store", "execution", "bus", "market"] {
            scope.spawn(move || ends_with_70_wherever_it_panics(actor));
        }
    });
}

fn ends_with_70_wherever_it_panics(actor: &str) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let spots = ["handler", "future", "interval", "start"];
    for spot in spots {
        let after = if spot == "start" { "1" } else { "300" };
        ends_with_70_and_recovers(&store, &format!("{actor}:{spot}:panic:{after}"));
    }
    let program = Program::start(&store, &BRISK);
    let status = program.status();
    assert_eq!(status["recovered"]["clean"], false);
    assert!(status["boot_epoch"].as_u64() > Some(spots.len() as u64), "every start left its epoch: {status}");
    let seq = status["journal"]["seq"].as_u64();
    program.status_when("work after the recovery", |status| status["journal"]["seq"].as_u64() > seq.map(|s| s + 5));
    program.stop("TERM");
    assert_sound(&store);
}

/// Futures that belong to no actor: the HTTP surface, the one that hears who was given up, and one of those the
/// coordinator spawns (`chaos_matrix.rs` has them all). Nobody would miss them; so the process ends, and the next start goes on.
#[test]
fn a_panic_in_a_future_of_nobody_ends_the_process_with_70_and_the_next_start_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let futures =
        ["api", "given up", "coordinator.run", "coordinator.decision", "coordinator.record", "coordinator.plan"];
    for what in futures {
        ends_with_70_and_recovers(&store, &format!("{what}:start:panic:1"));
    }
    let program = Program::start(&store, &BRISK);
    let status = program.status();
    assert_eq!(status["recovered"]["clean"], false);
    assert_eq!(status["boot_epoch"].as_u64(), Some(futures.len() as u64 + 1), "{status}");
    let seq = status["journal"]["seq"].as_u64();
    program.status_when("work after the recovery", |status| status["journal"]["seq"].as_u64() > seq.map(|s| s + 5));
    program.stop("TERM");
    assert_sound(&store);
}

#[test]
fn six_panics_of_risk_within_a_minute_end_the_process_with_70() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::spawn_with(struck("risk:start:panic:6"), &folder.path().join("store"), &SLOW);
    assert_eq!(program.wait().code(), Some(70), "{}", program.said());
    assert!(program.said().contains("risk panicked too often"), "{}", program.said());
}

#[test]
fn an_agent_that_is_given_up_leaves_the_rest_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start_with(struck("technical_analysis:start:panic:6"), &store, &FAST);
    let row = |status: &Value, task: &str| {
        status["tasks"].as_array().unwrap().iter().find(|row| row["task"] == task).unwrap().clone()
    };
    let status = program.status_when("its keys to be quarantined", |status| {
        row(status, "technical_analysis")["last_skip_reason"] == "quarantined"
    });
    assert!(row(&status, "technical_analysis")["last_success_at"].is_null());
    program.stop("TERM");
    let records = assert_sound(&store);
    let out = of_kind(&records, "Quarantined");
    assert!(out.iter().any(|record| record["data"]["key"].to_string().contains("technical_analysis")), "{out:?}");
}

/// Signs of life come, and end for good once the fault has struck.
fn goes_silent(chaos: &str, who: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::new(folder.path());
    // A manager without much patience: asked every half second, silence of one second counts.
    let mut command = manager.command(Some(Duration::from_secs(3)));
    command.env("TRIPLEGAIN_CHAOS", chaos);
    let program = Program::spawn_with(command, &folder.path().join("store"), &SLOW);
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    if let Some(who) = who {
        let told = until("a word about who is silent", || {
            manager.heard().filter(|told| told.iter().any(|line| line.contains("silent: ")))
        });
        assert!(told[0].ends_with(&format!("silent: {who}")), "{told:?}");
    }
    // Six beats in a row without a sign of life; then a manager would have ended it.
    let mut quiet = 0;
    until("silence", || {
        let told = manager.heard();
        let alive = told.iter().flatten().any(|line| line == "WATCHDOG=1");
        quiet = if alive { 0 } else { quiet + 1 };
        (quiet > 60).then_some(())
    });
    program.kill9();
}

#[test]
fn a_frozen_store_ends_the_signs_of_life() {
    goes_silent("store:handler:pause:1500", Some("store"));
}

#[test]
fn a_frozen_main_thread_ends_the_signs_of_life() {
    goes_silent("coordinator:handler:pause:1500", None);
}

/// What ends a process that cannot drain.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    /// The deadline of draining, set to this many seconds, or the default one.
    Deadline(Option<u64>),
    /// A second signal, long before the longest deadline there is.
    SecondSignal,
}

/// The default of `coordinator.shutdown_seconds`, and the longest it may be.
const DRAIN: u64 = 25;
const LONGEST_DRAIN: u64 = 35;

/// Comes to a standstill, is told to stop once or again and again, and ends although nobody in it listens. Forced and
/// past its deadline it ends with the same code; what tells them apart is the deadline: nothing ends before it by it.
fn stops(chaos: &str, ends: Ends) {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::new(folder.path());
    let mut command = manager.command(None);
    command.env("TRIPLEGAIN_CHAOS", format!("{chaos}:1000"));
    let again = ends == Ends::SecondSignal;
    let set = if let Ends::Deadline(set) = ends { set } else { Some(LONGEST_DRAIN) };
    match set {
        Some(seconds) => command.env("TRIPLEGAIN__COORDINATOR__SHUTDOWN_SECONDS", seconds.to_string()),
        None => command.env_remove("TRIPLEGAIN__COORDINATOR__SHUTDOWN_SECONDS"),
    };
    let store = folder.path().join("store");
    let mut program = Program::spawn_with(command, &store, &SLOW);
    manager.hears("READY=1");
    until("the standstill", || program.try_status().is_none().then_some(()));
    let told = Instant::now();
    program.signal("TERM");
    let ended = until("the process to end", || {
        // Signals that come at the same instant are one to the kernel, so the second one is repeated.
        if again {
            program.signal("TERM");
        }
        program.ended()
    });
    let took = told.elapsed();
    assert_eq!(ended.code(), Some(1), "{chaos}: {}", program.said());
    let deadline = Duration::from_secs(set.unwrap_or(DRAIN));
    // It hears the first signal after `told` and counts from there, so the deadline cannot end it sooner.
    assert_eq!(took < deadline, again, "{chaos}: it ended after {took:?}, the deadline is {deadline:?}");
    assert_sound(&store);
    let program = Program::start(&store, &SLOW);
    assert_eq!(program.status()["recovered"]["clean"], false, "{chaos}: it was not drained");
    program.stop("TERM");
}

#[test]
fn b12_a_process_with_a_frozen_store_ends_at_the_deadline_of_draining() {
    stops("store:handler:pause", Ends::Deadline(Some(5)));
}

#[test]
fn b12_a_process_with_an_agent_that_never_returns_ends_at_the_deadline_of_draining() {
    stops("technical_analysis:handler:pause", Ends::Deadline(Some(5)));
}

#[test]
fn b12_the_deadline_of_draining_is_25_seconds_unless_it_is_set() {
    stops("store:handler:pause", Ends::Deadline(None));
}

#[test]
fn b12_a_second_signal_ends_a_frozen_process_at_once() {
    stops("execution:handler:pause", Ends::SecondSignal);
}

/// The main thread hears it; only what it waits for stands still.
#[test]
fn b12_a_second_signal_ends_a_process_that_waits_for_a_frozen_store_at_once() {
    stops("store:handler:pause", Ends::SecondSignal);
}

/// A future the coordinator spawned: it belongs to no actor, and its panic is not lost.
#[test]
fn r4_a_panic_in_a_spawned_future_ends_the_process_with_70_and_the_next_start_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    for what in ["coordinator.run", "coordinator.record", "coordinator.decision"] {
        ends_with_70_and_recovers(&store, &format!("{what}:start:panic:1"));
    }
    Program::start(&store, &BRISK).stop("TERM");
}

/// Starts that die at `place` count, or not, towards a crash loop.
fn after_three_deaths_at(place: &str, drain: bool) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let command = || {
        let mut command = triplegain();
        command.env_remove("TRIPLEGAIN__SUPERVISOR__CRASH_LOOP__STARTS");
        command
    };
    Program::start_with(command(), &store, &SLOW).stop("TERM");
    for _ in 0..3 {
        let mut command = command();
        command.env("TRIPLEGAIN_FAILPOINTS", format!("{place}=kill"));
        let mut program = Program::spawn_with(command, &store, &SLOW);
        if drain {
            program = program.answering();
            program.signal("TERM");
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&program.wait()), Some(9), "{}", program.said());
    }
    let program = Program::start_with(command(), &store, &SLOW);
    let status = program.status();
    program.stop("TERM");
    assert_sound(&store);
    status
}

#[test]
fn r6_three_starts_that_die_within_recovery_are_a_crash_loop() {
    let status = after_three_deaths_at("boot.epoch", false);
    assert_eq!((&status["state"], &status["pause_reasons"][0]), (&"PAUSED".into(), &"boot:crash_loop".into()));
}

#[test]
fn r6_three_drains_that_were_cut_short_are_no_crash_loop() {
    let status = after_three_deaths_at("commit.stop", true);
    assert_eq!((&status["state"], &status["recovered"]["clean"]), (&"RUNNING".into(), &false.into()));
}
