//! Starts of the real process on stores of every kind: adopted, replaying candle files, led ahead of the wall, long.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod process_support;

use std::{collections::BTreeMap, fs};

use process_support::*;
use serde_json::Value;
use triplegain::{
    model::{Event, Ts},
    store::{Batch, OpenInfo, Store},
};

const FAST: [&str; 2] = ["--speed", "3600"];
const SLOW: [&str; 2] = ["--speed", "1"];

fn instant(value: &Value) -> Ts {
    Ts::parse(value.as_str().unwrap()).unwrap()
}

#[test]
fn a143_a144_a_copy_that_lost_answered_records_says_so_until_it_is_reset() {
    let folder = tempfile::tempdir().unwrap();
    let (store, lost) = (folder.path().join("store"), folder.path().join("copy"));
    let program = Program::start(&store, &SLOW);
    program.done(&["pause"]);
    program.kill9();
    copy(&store, &lost);
    // Its last record is torn off, as an older backup of the journal would lack it.
    let segment = fs::read_dir(lost.join("journal")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let text = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, &text[..text.len() - 20]).unwrap();
    // The second start finds an embedded store made anew, and must not forget over it what the first has found.
    for _ in 0..2 {
        let program = Program::start(&lost, &SLOW);
        let status = program.status();
        assert!(status["halt_reason"].as_str().unwrap().starts_with("store_ahead: "), "{}", status["halt_reason"]);
        program.refused(&["reset", status["halt_id"].as_str().unwrap()], "store_moved");
        program.kill9();
    }
    let program = Program::start(&lost, &SLOW);
    let named = program.refused(&["adopt-store", "something"], "wrong_store");
    let id = records(&lost).remove(0)["data"]["store"].as_str().unwrap().to_owned();
    assert!(named.contains(&id), "{named}");
    assert_eq!(program.done(&["adopt-store", &id])["state"], "HALTED", "adopting says nothing about the loss");
    let halt = program.status()["halt_id"].as_str().unwrap().to_owned();
    assert_eq!(program.done(&["reset", &halt])["state"], "PAUSED");
    program.stop("TERM");
    assert_sound(&lost);
}

#[test]
fn a144_k45_a_copied_store_is_adopted_by_name_and_trades_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    Program::start(&store, &SLOW).stop("TERM");
    let moved = folder.path().join("copy");
    copy(&store, &moved);
    let program = Program::start(&moved, &FAST);
    let halt = program.status()["halt_id"].as_str().unwrap().to_owned();
    let named = program.refused(&["adopt-store", "something"], "wrong_store");
    let created = records(&moved).remove(0)["data"]["store"].as_str().unwrap().to_owned();
    assert!(named.contains(&created), "{named}");
    assert!(program.refused(&["reset", &halt], "store_moved").contains(&format!("adopt-store {created}")));
    // Not even a halt of the operator, which has an id of its own, is a way around it.
    let own = program.done(&["halt"])["halt_id"].as_str().unwrap().to_owned();
    program.refused(&["reset", &own], "store_moved");
    assert_eq!(program.done(&["adopt-store", &created])["state"], "PAUSED");
    assert_eq!(program.status()["state"], "PAUSED");
    program.refused(&["adopt-store", &created], "not_moved");
    program.done(&["resume"]);
    program.status_when("a plan or a trade", |status| !status["scheduled"].as_array().unwrap().is_empty());
    program.kill9();
    let again = Program::start(&moved, &SLOW);
    assert_eq!(again.status()["state"], "RUNNING", "adopted once and for all");
    again.stop("TERM");
    let adopted = assert_sound(&moved);
    assert_eq!(of_kind(&adopted, "StoreAdopted").len(), 1);
}

#[test]
fn run_replays_candle_files_in_their_own_time_and_goes_on_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = (folder.path().join("candles"), folder.path().join("csv.toml"));
    fs::create_dir(&data).unwrap();
    // Two days of minutes from 2024-01-01: a slow wave.
    let first = 1_704_067_200_i64;
    let row = |minute: i64| {
        let price = 40_000.0 + 400.0 * (minute as f64 / 180.0).sin();
        format!("{},{price:.1},{:.1},{:.1},{price:.1},3.5,7\n", first + minute * 60, price + 20.0, price - 20.0)
    };
    fs::write(data.join("XBTUSDT_1.csv"), (0..2 * 1_440).map(row).collect::<String>()).unwrap();
    let text = format!("symbols = [\"BTC/USDT\"]\n[market]\nsource = \"csv\"\n[market.csv]\ndir = {data:?}\n");
    fs::write(&config, text).unwrap();
    let store = folder.path().join("store");
    let args = ["--speed", "3600", "--config", config.to_str().unwrap()];
    let program = Program::start(&store, &args);
    let from = Ts(first * 1_000);
    let status =
        program.status_when("four hours of candles", |status| instant(&status["now"]) > from.plus_ms(4 * 3_600_000));
    assert!(instant(&status["now"]) < from.plus_ms(3 * 86_400_000), "the time of the candles: {}", status["now"]);
    program.kill9();
    let before = records(&store).last().map(|record| instant(&record["ts"])).unwrap();
    let program = Program::start(&store, &args);
    let status = program.status_when("prices again", |status| status["feeds"][0]["price"].is_string());
    assert!(instant(&status["now"]) >= before, "time went back");
    let price: f64 = status["feeds"][0]["price"].as_str().unwrap().parse().unwrap();
    assert!((39_500.0..40_500.0).contains(&price), "{price}");
    program.status_when("ten hours", |status| instant(&status["now"]) > from.plus_ms(10 * 3_600_000));
    program.stop("TERM");
    let records = assert_sound(&store);
    assert_eq!(records[0]["data"]["data_kind"], "csv");
    assert!(records.iter().all(|record| (from..from.plus_ms(3 * 86_400_000)).contains(&instant(&record["ts"]))));
}

#[test]
fn b10_a_clock_that_was_led_ahead_on_purpose_is_no_broken_clock_at_speed_1() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let program = Program::start(&store, &FAST);
    let began = instant(&program.status()["now"]);
    program.status_when("two hours ahead", |status| instant(&status["now"]) > began.plus_ms(2 * 3_600_000));
    program.stop("TERM");
    let led = records(&store).last().map(|record| instant(&record["ts"])).unwrap();
    for _ in 0..2 {
        let program = Program::start(&store, &SLOW);
        let status = program.status();
        assert_eq!((&status["state"], &status["pause_reasons"]), (&Value::from("RUNNING"), &serde_json::json!([])));
        assert!(instant(&status["now"]) >= led, "time went back to the wall's");
        program.kill9();
    }
    assert_sound(&store);
}

#[test]
fn a152_a_journal_of_a_hundred_thousand_events_is_read_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    Program::start(&store, &SLOW).stop("TERM");
    let settings = triplegain::settings::Settings::defaults();
    let info = OpenInfo {
        seed: 1,
        data_kind: "simulated".into(),
        config_hash: "a".repeat(64),
        version: "test".into(),
        now: Ts(0),
        deposits: BTreeMap::new(),
        stands_still: false,
        store_id: None,
    };
    let (mut long, _) = Store::open(&store, &settings.store, &info).unwrap();
    let note = |number: u32| {
        let facts = BTreeMap::from([("task".to_owned(), "technical_analysis BTC/USDT".to_owned())]);
        Event::Noted { what: format!("missed_{}", number % 7), facts }
    };
    for group in 0..20 {
        let events = (group * 5_000..(group + 1) * 5_000).map(note).collect();
        long.commit(Batch::new("test", "test", "test", info.now, events)).unwrap().unwrap();
    }
    let written = long.state().meta.seq;
    drop(long);
    // Without checkpoints every event is read and folded.
    fs::remove_dir_all(store.join("checkpoint")).unwrap();
    let began = std::time::Instant::now();
    let program = Program::start(&store, &SLOW);
    println!("{written} events, ready after {:.2?}", began.elapsed());
    let status = program.status();
    assert!(status["recovered"]["records"].as_u64().unwrap() >= 100_000 && written >= 100_000);
    assert!(status["journal"]["seq"].as_u64().unwrap() > written);
    assert_eq!(status["state"], "RUNNING");
    program.stop("TERM");
}
