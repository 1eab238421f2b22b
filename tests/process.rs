//! The real process as its user meets it: first start, stop, start again, `kill -9`, a second process, a copied store,
//! every command of the command line.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod process_support;

use std::{collections::BTreeSet, net::TcpListener, path::Path};

use process_support::*;
use serde_json::Value;
use triplegain::model::Ts;

/// Program seconds per second: an hourly decision every second.
const FAST: [&str; 2] = ["--speed", "3600"];
const SLOW: [&str; 2] = ["--speed", "1"];

fn texts<'v>(list: &'v Value, field: &str) -> BTreeSet<&'v str> {
    list.as_array().unwrap().iter().map(|item| item[field].as_str().unwrap()).collect()
}

fn instant(value: &Value) -> Ts {
    let text = value.as_str().unwrap();
    assert_eq!(text.len(), "2026-11-22T20:00:00.000Z".len(), "RFC 3339 with milliseconds: {text}");
    Ts::parse(text).unwrap_or_else(|| panic!("`{text}` is no RFC 3339 instant"))
}

fn fills(store: &Path) -> usize {
    of_kind(&records(store), "TradeFill").len()
}

#[test]
fn a001_the_first_start_needs_nothing_and_status_has_every_field() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &FAST);
    let status = program.status_when("the first analysis and a decision", |status| {
        let done = |task: &Value| task["task"] == "trading_decision" && task["last_success_at"].is_string();
        status["tasks"].as_array().unwrap().iter().any(done)
    });

    for field in ["state", "halt_id", "degradation", "mode", "boot_epoch", "uptime_seconds", "recovered", "tasks"] {
        assert!(status.get(field).is_some(), "{field} is missing");
    }
    assert_eq!((&status["state"], &status["halt_id"]), (&Value::from("RUNNING"), &Value::Null));
    assert_eq!((&status["mode"], &status["boot_epoch"]), (&Value::from("paper"), &Value::from(1)));
    assert!(status["uptime_seconds"].is_u64() && status["missed_slots"].is_u64());
    assert!(status["recovered"].as_object().is_some_and(|facts| !facts.is_empty()));
    let tasks = status["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 13, "four tasks for three symbols and the portfolio");
    for task in tasks {
        let fields: BTreeSet<&str> = task.as_object().unwrap().keys().map(String::as_str).collect();
        let wanted =
            ["task", "symbol", "running", "last_success_at", "last_outcome", "next_due_at", "last_skip_reason"];
        assert!(wanted.iter().all(|field| fields.contains(field)), "{task}");
        for field in ["last_success_at", "next_due_at"] {
            assert!(task[field].is_null() || instant(&task[field]) > Ts(0));
        }
    }
    assert!(["p50", "p99", "max"].iter().all(|field| status["lateness_ms"][field].is_number()));
    assert!(status["account"]["equity"].is_string() && status["account"]["balances"]["USDT"]["free"].is_string());
    for list in ["positions", "orders", "scheduled", "feeds"] {
        assert!(status[list].is_array(), "{list} is missing");
    }
    assert_eq!(texts(&status["feeds"], "symbol"), BTreeSet::from(["BTC/USDT", "XRP/BTC", "XRP/USDT"]));
    for feed in status["feeds"].as_array().unwrap() {
        assert!(feed["data_age_seconds"].is_number() && feed["healthy"].is_boolean(), "{feed}");
    }
    assert!(status["journal"]["seq"].as_u64().unwrap() > 0);
    assert_eq!(status["journal"]["hash"].as_str().unwrap().len(), 32);
    instant(&status["now"]);

    program.status_when("scheduled legs and a fill within a simulated day", |status| {
        let dues = status["scheduled"].as_array().unwrap();
        dues.iter().for_each(|leg| assert!(instant(&leg["due_at"]) > Ts(0)));
        !dues.is_empty() && fills(&store) > 0
    });
    let shown = program.cli(&["status"]);
    assert!(shown.status.success());
    assert!(stdout(&shown).contains("RUNNING, paper"), "{}", stdout(&shown));
    program.stop("INT");
    assert_sound(&store);
}

/// A paused store and its status, with no fill between that status and the stop.
fn stopped_while_paused(store: &Path, signal: &str) -> Value {
    for _ in 0..5 {
        let program = Program::start(store, &FAST);
        program.status_when("legs and holdings", |status| {
            status["account"]["balances"]["BTC"].is_object() && !status["scheduled"].as_array().unwrap().is_empty()
        });
        program.done(&["pause", "--reason", "to compare"]);
        let before = program.status_when("no order under way", |status| status["orders"] == Value::Array(Vec::new()));
        program.stop(signal);
        let later = |fill: &&Value| fill["seq"].as_u64() > before["journal"]["seq"].as_u64();
        if of_kind(&records(store), "TradeFill").into_iter().filter(later).count() == 0 {
            return before;
        }
    }
    panic!("something was filled between the last look and the stop, five times in a row");
}

#[test]
fn a117_a_second_start_continues_where_a_clean_stop_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let before = stopped_while_paused(&store, "TERM");
    let stopped = assert_sound(&store);
    assert_eq!(stopped.last().unwrap()["kind"], "CleanStop");

    let program = Program::start(&store, &SLOW);
    let after = program.status();
    assert_eq!(after["state"], "PAUSED");
    assert_eq!(after["pause_reasons"], before["pause_reasons"]);
    for field in ["positions", "orders"] {
        let without_prices = |list: &Value| texts(list, if field == "orders" { "trade_key" } else { "id" }).len();
        assert_eq!(without_prices(&after[field]), without_prices(&before[field]), "{field}");
    }
    assert_eq!(after["account"]["balances"], before["account"]["balances"]);
    assert_eq!(texts(&after["scheduled"], "trade_key"), texts(&before["scheduled"], "trade_key"));
    assert!(instant(&after["now"]) >= instant(&before["now"]), "{} then {}", before["now"], after["now"]);
    assert_eq!(after["recovered"]["clean"], true);
    assert_eq!(after["recovered"]["interrupted_runs"], 0);
    assert!(after["boot_epoch"].as_u64() > before["boot_epoch"].as_u64());
    assert!(program.said().contains("continuing the store"), "it says so: {}", program.said());
    let last_success = |status: &Value| {
        let tasks = status["tasks"].as_array().unwrap().clone();
        tasks.into_iter().filter_map(|task| task["last_success_at"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert!(last_success(&after).iter().all(|at| Ts::parse(at).unwrap() <= instant(&after["now"])));
    program.stop("INT");
    let records = assert_sound(&store);
    assert_eq!(of_kind(&records[stopped.len()..], "InFlightRecovered").len(), 0);
}

#[test]
fn a150_kill_9_at_many_moments_loses_nothing_that_was_shown() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let mut shown: Option<(Value, Ts)> = None;
    for round in 1..=6u64 {
        let program = Program::start(&store, &FAST);
        let now = program.status();
        if let Some((before, recorded)) = &shown {
            // The clock itself is noted about every second, so what was on show may be a little later than this.
            assert!(instant(&now["now"]) >= *recorded, "behind what was recorded: {before:#} {now:#}");
            assert_eq!(now["recovered"]["clean"], false);
        }
        assert_eq!(now["boot_epoch"], round);
        let from = fills(&store);
        let last = match round % 3 {
            1 => program.status_when("an order that was not settled yet, or a fill", |status| {
                !status["orders"].as_array().unwrap().is_empty() || fills(&store) > from
            }),
            2 => program.status_when("a task that is running, or a decision", |status| {
                let running = |task: &Value| task["running"] == true;
                status["tasks"].as_array().unwrap().iter().any(running)
                    || status["journal"]["seq"].as_u64() > now["journal"]["seq"].as_u64().map(|seq| seq + 5)
            }),
            _ => now,
        };
        program.kill9();
        let lines = lines(&store);
        let seq = last["journal"]["seq"].as_u64().unwrap();
        let line = &lines[usize::try_from(seq).unwrap() - 1];
        assert_eq!(last["journal"]["hash"], line_hash(line), "what was shown as durable is in the journal");
        let recorded = assert_sound(&store).iter().map(|record| instant(&record["ts"])).max().unwrap();
        shown = Some((last, recorded));
    }
    let program = Program::start(&store, &SLOW);
    assert_eq!(program.status()["boot_epoch"], 7);
    program.stop("TERM");
    let records = assert_sound(&store);
    for found in of_kind(&records, "InFlightRecovered") {
        let runs = found["data"]["runs"].as_array().unwrap();
        let keys: BTreeSet<String> =
            runs.iter().map(|run| run["marker"]["key"].to_string() + &run["marker"]["slot"].to_string()).collect();
        assert_eq!(keys.len(), runs.len(), "each interrupted run is listed once: {found}");
    }
}

#[test]
fn program_time_does_not_go_back_when_a_quiet_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &FAST);
    program.done(&["halt"]);
    let began = instant(&program.status()["now"]);
    let quiet = 5 * 3_600_000;
    let last = program.status_when("five quiet program hours", |status| instant(&status["now"]) > began.plus_ms(quiet));
    program.kill9();
    let program = Program::start(&store, &["--speed", "2"]);
    // The time is noted every second, an hour of this clock, and flushed within another one; a slow disk may take
    // several. Without the note it would begin again where the last record was made.
    let now = instant(&program.status()["now"]);
    assert!(now >= began.plus_ms(3_600_000), "{} then {now}", last["now"]);
}

#[test]
fn a025_a026_commands_are_refused_with_a_reason_and_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(&folder.path().join("store"), &SLOW);
    let text = program.refused(&["run-task", "ta_analysis", "BTC/USDT"], "unknown");
    assert!(text.contains("technical_analysis"), "{text}");
    let text = program.refused(&["run-task", "technical_analysis", "BTC/EUR"], "unknown");
    assert!(text.contains("BTC/USDT"), "{text}");
    program.refused(&["run-task", "sentiment_analysis", "BTC/USDT"], "disabled");
    let started = program.done(&["run-task", "technical_analysis", "BTC/USDT"]);
    let slot = started["slot"].as_str().unwrap();
    assert!(slot.starts_with("manual:"), "{started}");

    assert!(program.refused(&["disable", "technical_analysis"], "required").contains("disable regime_detection first"));
    program.refused(&["enable", "tecnical_analysis"], "unknown_task");
    program.refused(&["enable", "sentiment_analysis"], "no_provider");
    program.done(&["disable", "portfolio_rebalance"]);
    program.refused(&["run-task", "portfolio_rebalance", "PORTFOLIO"], "disabled");
    program.done(&["enable", "portfolio_rebalance"]);
    program.refused(&["reset", "H1"], "not_halted");
    let typo = program.cli(&["pausse"]);
    assert_clear(&typo, 2, &["pause"]);
}

#[test]
fn a109_a111_halt_survives_kill_9_and_only_its_own_id_resets_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &SLOW);
    let halted = program.done(&["halt", "--reason", "drill"]);
    let id = halted["halt_id"].as_str().unwrap().to_owned();
    program.kill9();

    let program = Program::start(&store, &FAST);
    let status = program.status();
    assert_eq!((&status["state"], &status["halt_id"]), (&Value::from("HALTED"), &Value::from(id.clone())));
    assert_eq!(status["halt_reason"], "drill");
    let intents = of_kind(&records(&store), "TradeIntent").len();
    program.done(&["pause"]);
    assert_eq!(program.status()["state"], "HALTED", "a pause does not lift a halt");
    let started = instant(&program.status()["now"]);
    program.status_when("three program hours", |status| instant(&status["now"]) > started.plus_ms(3 * 3_600_000));
    assert_eq!(of_kind(&records(&store), "TradeIntent").len(), intents, "no order while HALTED");
    program.refused(&["resume"], "halted");
    assert!(program.refused(&["reset", "H99"], "wrong_halt_id").contains(&id));
    program.refused(&["run-task", "technical_analysis", "BTC/USDT"], "state_halted");
    assert_eq!(program.done(&["reset", &id])["state"], "PAUSED");
    assert_eq!(program.status()["halt_id"], Value::Null);
    program.refused(&["reset", &id], "not_halted");
    assert_eq!(program.done(&["resume"])["state"], "RUNNING");
    program.stop("INT");
    assert_sound(&store);
}

#[test]
fn a112_paused_survives_kill_9_and_analysis_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &SLOW);
    program.done(&["pause", "--reason", "lunch"]);
    program.kill9();
    let program = Program::start(&store, &FAST);
    let status = program.status();
    assert_eq!((&status["state"], &status["pause_reasons"][0]), (&Value::from("PAUSED"), &Value::from("operator")));
    let trades = of_kind(&records(&store), "TradeIntent").len();
    program.status_when("skips of paused tasks and successes of analysis", |status| {
        let tasks = status["tasks"].as_array().unwrap();
        let skipped = |task: &Value| task["last_skip_reason"] == "state_paused";
        let analysed = |task: &Value| task["task"] == "technical_analysis" && task["last_success_at"].is_string();
        tasks.iter().any(skipped) && tasks.iter().any(analysed)
    });
    assert_eq!(of_kind(&records(&store), "TradeIntent").len(), trades, "no order while PAUSED");
    assert_eq!(program.done(&["resume"])["state"], "RUNNING");
    program.stop("TERM");
}

#[test]
fn scheduled_legs_can_be_cancelled_one_by_one_and_as_a_plan() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &FAST);
    let status = program.status_when("a plan", |status| status["scheduled"].as_array().unwrap().len() > 2);
    program.done(&["pause"]);
    program.refused(&["cancel-scheduled", "nothing"], "unknown");
    let legs = status["scheduled"].as_array().unwrap();
    let key = legs[legs.len() - 1]["trade_key"].as_str().unwrap();
    assert_eq!(program.done(&["cancel-scheduled", key])["cancelled_legs"], 1);
    assert!(!texts(&program.status()["scheduled"], "trade_key").contains(key));
    let plan = legs[0]["plan"].as_str().unwrap();
    assert!(program.done(&["cancel-scheduled", plan])["cancelled_legs"].as_u64() >= Some(1));
    assert_eq!(program.status()["scheduled"], Value::Array(Vec::new()));
    program.kill9();
    let program = Program::start(&store, &SLOW);
    assert_eq!(program.status()["scheduled"], Value::Array(Vec::new()), "cancelled legs stay cancelled");
    program.stop("TERM");
    assert_sound(&store);
}

#[test]
fn close_all_is_answered_with_the_number_of_positions_and_repeats_harmlessly() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &FAST);
    program.status_when("a fill", |_| fills(&store) > 0);
    program.done(&["pause"]);
    let first = program.done(&["close-all", "--reason", "drill"]);
    assert!(first["positions_to_close"].is_u64(), "{first}");
    program.status_when("no position", |status| status["positions"] == Value::Array(Vec::new()));
    assert_eq!(program.done(&["close-all"])["positions_to_close"], 0);
    program.stop("INT");
    assert_sound(&store);
}

#[test]
fn a145_a_second_process_on_the_same_store_ends_with_73_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &SLOW);
    program.done(&["halt"]);
    until("a journal that stands still", || {
        let before = lines(&store);
        program.status();
        (lines(&store) == before).then_some(())
    });
    let before = lines(&store);
    let listen = format!("127.0.0.1:{}", free_port());
    let second = run_to_end(&["--store", store.to_str().unwrap(), "--listen", &listen]);
    assert_clear(&second, 73, &["in use by process", store.to_str().unwrap()]);
    assert_eq!(lines(&store)[..before.len()], before[..]);
    let boots = of_kind(&records(&store), "Booted").len();
    assert_eq!(boots, 1, "the second process wrote nothing");
    assert!(program.status()["state"] == "HALTED", "the first one goes on");
    program.stop("INT");
    assert_sound(&store);
}

#[test]
fn a144_a_copied_store_starts_halted_and_trades_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &FAST);
    program.status_when("scheduled legs", |status| !status["scheduled"].as_array().unwrap().is_empty());
    program.stop("TERM");
    let moved = folder.path().join("copy");
    copy(&store, &moved);
    let before = of_kind(&records(&moved), "TradeIntent").len();
    let program = Program::start(&moved, &FAST);
    let status = program.status();
    assert_eq!(status["state"], "HALTED");
    assert!(status["halt_reason"].as_str().unwrap().contains("store_moved"), "{}", status["halt_reason"]);
    let began = instant(&status["now"]);
    program.status_when("two program hours", |status| instant(&status["now"]) > began.plus_ms(2 * 3_600_000));
    program.stop("TERM");
    assert_eq!(of_kind(&records(&moved), "TradeIntent").len(), before);
    let program = Program::start(&store, &SLOW);
    assert_eq!(program.status()["state"], "RUNNING", "the original is not affected");
    program.stop("TERM");
}

#[test]
fn a_taken_port_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let store = folder.path().join("store");
    let output = run_to_end(&["--store", store.to_str().unwrap(), "--listen", &address]);
    assert_clear(&output, 1, &[&address, "--listen"]);
    let far = run_to_end(&["--store", store.to_str().unwrap(), "--listen", "0.0.0.0:0"]);
    assert_clear(&far, 2, &["0.0.0.0"]);
    Program::start(&store, &SLOW).stop("INT");
}

#[test]
fn two_signals_end_it_at_once_and_the_store_stays_sound() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let mut program = Program::start(&store, &SLOW);
    // Both wait for a process that stands still, so that it hears of the second one before it has begun to drain.
    program.signal("STOP");
    program.signal("TERM");
    program.signal("INT");
    program.signal("CONT");
    let ended = program.wait();
    assert_eq!(ended.code(), Some(1), "a drain that was cut short: {ended}: {}", program.said());
    let records = assert_sound(&store);
    assert!(of_kind(&records, "CleanStop").is_empty(), "it was not drained");
    let program = Program::start(&store, &SLOW);
    assert_eq!(program.status()["recovered"]["clean"], false);
    program.stop("TERM");
}

#[test]
fn without_a_process_the_commands_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let at = ["--store", store.to_str().unwrap()];
    assert_clear(&run_to_end(&[&at[..], &["status"]].concat()), 1, &["no token file", "triplegain run", "--store"]);
    assert_clear(&run_to_end(&[&at[..], &["journal", "verify"]].concat()), 1, &["no journal"]);
    let program = Program::start(&store, &SLOW);
    let listen = format!("127.0.0.1:{}", program.port);
    program.stop("TERM");
    let args = [&at[..], &["--listen", &listen, "pause"]].concat();
    let refused = run_to_end(&args);
    assert_clear(&refused, 1, &[&format!("nobody answers at http://{listen}"), "triplegain run", "--listen"]);
    // What the library says of it is nothing for people.
    assert!(!stderr(&refused).contains("error sending request"), "{}", stderr(&refused));
}

#[test]
fn what_journal_export_prints_is_records_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    Program::start(&store, &SLOW).stop("TERM");
    let output = run_to_end(&["--store", store.to_str().unwrap(), "journal", "export"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let parsed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(parsed.iter().all(|record| record["kind"].is_string()));
    assert_eq!(parsed.len(), records(&store).len());
}
