//! The real binary on a live feed: a venue on the loopback interface that also misbehaves.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/kraken_home.rs"]
mod kraken_home;
#[path = "support/kraken_venue.rs"]
mod kraken_venue;
mod process_support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use kraken_home::*;
use kraken_venue::Venue;
use process_support::*;
use serde_json::Value;

fn rows(path: &Path) -> Vec<i64> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn data_flow_are_kept_and_a_refused_symbol_takes_nobody_down() {
    let venue = Venue::start();
    venue.control().refused.insert("XRP/USDT".to_owned());
    let home = Home::new(&venue);
    let program = home.start();
    let status = program.status_when("prices of the served symbol", |status| {
        alive(status, "BTC/USDT") && status["clock"]["offset_ms"].is_i64()
    });
    let refused = program.status_when("the refusal", |status| feed(status, "XRP/USDT")["refused"].is_string());
    assert!(feed(&refused, "XRP/USDT")["refused"].as_str().unwrap().contains("not supported"));
    assert_eq!(feed(&refused, "XRP/USDT")["subscribed"], false);
    assert!(alive(&program.status(), "BTC/USDT"));
    assert!(status["clock"]["offset_ms"].as_i64().unwrap().abs() <= 2_000, "{}", status["clock"]);
    assert_eq!(status["speed"], 1);

    // The newest 719 closed candles came over REST and are kept once each, in order, for their owner alone.
    let path = home.store().join("candles/XBTUSDT_1.csv");
    let kept = rows(&path);
    assert!(kept.len() >= 719, "{} candles", kept.len());
    assert!(kept.windows(2).all(|pair| pair[1] - pair[0] == 60));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let store = program.stop("TERM");
    assert_sound(&store);

    let simulated = run_to_end(&["--store", store.to_str().unwrap(), "run"]);
    assert!(!simulated.status.success());
    assert!(stderr(&simulated).contains("live") && stderr(&simulated).contains("simulated"), "{}", stderr(&simulated));
}

#[test]
fn heartbeats_are_no_data_and_a_frozen_feed_is_shown_and_limits_the_program() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let sooner = venue.settings() + "[degradation]\nescalate_consecutive = [1, 6, 9]\n";
    fs::write(home.config(), sooner).unwrap();
    let program = home.start();
    // Candles alone look alive for a minute longer; prices between them are what is frozen here.
    let priced = |status: &Value| feed(status, "BTC/USDT")["data_age_seconds"].as_f64().is_some_and(|age| age < 2.0);
    program.status_when("live prices", |status| alive(status, "BTC/USDT") && priced(status));
    venue.control().frozen = true;
    let frozen = program.status_when("silence to be noticed", |status| feed(status, "BTC/USDT")["healthy"] == false);
    assert_eq!(feed(&frozen, "BTC/USDT")["connected"], true);
    assert!(feed(&frozen, "BTC/USDT")["last_message_age_seconds"].as_f64().unwrap() >= 2.5, "{frozen}");
    program
        .status_when("the alert of a silent symbol", |status| feed(status, "BTC/USDT")["silences"].as_u64() >= Some(1));
    program.status_when("the level to rise", |status| {
        // Whatever wakes the coordinator lets it look at the feeds.
        drop(program.cli(&["run-task", "technical_analysis", "BTC/USDT"]));
        status["degradation"] != "NORMAL"
    });
    venue.control().frozen = false;
    let thawed = program.status_when("data again", |status| alive(status, "BTC/USDT"));
    assert_eq!(feed(&thawed, "BTC/USDT")["reconnects"], 0, "the connection stood all the time");
    program.stop("TERM");
}

#[test]
fn lost_connections_wrong_books_and_refused_questions_pass() {
    let venue = Venue::start();
    {
        let mut control = venue.control();
        (control.drops, control.wrong_books, control.too_many) = (2, 1, 2);
    }
    let home = Home::new(&venue);
    let program = home.start();
    let status = program.status_when("data after two lost connections", |status| {
        alive(status, "BTC/USDT") && alive(status, "XRP/USDT") && feed(status, "BTC/USDT")["reconnects"] == 2
    });
    let broken = |symbol| feed(&status, symbol)["broken_books"].as_u64().unwrap();
    assert_eq!(broken("BTC/USDT") + broken("XRP/USDT"), 1);
    // What was refused at the start was asked again; both symbols have their history.
    until("the candles of both symbols", || {
        let kept = |name: &str| fs::read_to_string(home.store().join("candles").join(name)).ok();
        let full = |name: &str| kept(name).is_some_and(|text| text.lines().count() >= 719);
        (full("XBTUSDT_1.csv") && full("XRPUSDT_1.csv")).then_some(())
    });
    for name in ["XBTUSDT_1.csv", "XRPUSDT_1.csv"] {
        let kept = rows(&home.store().join("candles").join(name));
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] == 60), "{name} has a hole or a double");
    }
    venue.control().system = "maintenance".to_owned();
    assert!(alive(&program.status(), "BTC/USDT"));
    program.stop("TERM");
}

#[test]
fn a_clock_ten_seconds_off_the_venue_pauses() {
    let venue = Venue::start();
    venue.control().ahead_s = 10;
    let home = Home::new(&venue);
    let program = home.start();
    let status = program
        .status_when("the pause", |status| status["pause_reasons"].as_array().unwrap().contains(&Value::from("clock")));
    assert_eq!(status["state"], "PAUSED");
    assert!((8_000..=12_000).contains(&status["clock"]["offset_ms"].as_i64().unwrap()), "{}", status["clock"]);
    let shown = program.cli(&["status"]);
    assert!(stdout(&shown).contains("clock"), "{}", stdout(&shown));
    program.stop("TERM");
}

#[test]
fn with_an_imported_history_the_first_analysis_succeeds() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let imported = home.import();
    assert!(imported.status.success(), "{}", stderr(&imported));
    let lines: Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert_eq!((&lines[0]["added"], &lines[0]["holes"]), (&Value::from(270 * 60), &Value::from(0)));

    let program = home.start();
    program.status_when("live data", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    for task in ["technical_analysis", "regime_detection", "trading_decision"] {
        program.done(&["run-task", task, "BTC/USDT"]);
        program.status_when(task, |status| {
            let of = |line: &&Value| line["task"] == task && line["symbol"] == "BTC/USDT";
            let line = status["tasks"].as_array().unwrap().iter().find(of).unwrap();
            line["last_success_at"].is_string()
        });
    }
    // The seven minutes between the files and now came over REST.
    let kept = rows(&home.store().join("candles/XBTUSDT_1.csv"));
    assert!(kept.len() > 270 * 60 + 5 && kept.windows(2).all(|pair| pair[1] - pair[0] == 60));
    program.stop("TERM");
}

#[test]
fn a_bad_file_changes_nothing_and_a_hole_is_reported() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let (good, bad) = (home.path().join("XBTUSDT_1.csv"), home.path().join("XRPUSDT_1.csv"));
    let text = history("BTC/USDT", 100, 50);
    let holed: String = text
        .lines()
        .enumerate()
        .filter(|(i, _)| !(40..50).contains(i))
        .fold(String::new(), |all, (_, line)| all + line + "\n");
    fs::write(&good, holed).unwrap();
    fs::write(&bad, history("XRP/USDT", 100, 50).replacen(",3\n", ",three\n", 1).replacen("0.", "-0.", 9)).unwrap();
    let both = home.run(&["import", "kraken-csv", good.to_str().unwrap(), bad.to_str().unwrap()]);
    assert_clear(&both, 1, &["XRPUSDT_1.csv", "nothing was imported"]);
    assert_eq!(fs::read_dir(home.store().join("candles")).unwrap().count(), 0);
    let one = home.run(&["import", "kraken-csv", good.to_str().unwrap()]);
    assert!(one.status.success() && stderr(&one).contains("10 candles absent in 1 holes"), "{}", stderr(&one));
    let named = home.run(&["import", "kraken-csv", "/tmp/ABCDEF_1.csv"]);
    assert_clear(&named, 1, &["ABCDEF", "XBTUSDT"]);
    let fetched = home.run(&["import", "fetch", "--symbol", "BTC/USDT"]);
    assert!(fetched.status.success(), "{}", stderr(&fetched));
    assert!(rows(&home.store().join("candles/XBTUSDT_1.csv")).len() >= 139);
    let old = home.run(&["import", "fetch", "--symbol", "BTC/USDT", "--from", "2020-01-01"]);
    assert!(stderr(&old).contains("the venue gives nothing before"), "{}", stderr(&old));
}

#[test]
fn doctor_finds_what_is_wrong_and_says_what_to_do() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let good = home.run(&["doctor"]);
    assert!(good.status.success(), "{}", stdout(&good));
    assert!(stdout(&good).contains("data of every symbol"), "{}", stdout(&good));
    assert!(!home.store().exists(), "it changes nothing");
    {
        let mut control = venue.control();
        control.ahead_s = 10;
        control.refused.insert("XRP/USDT".to_owned());
    }
    let bad = home.run(&["--json", "doctor"]);
    assert_eq!(bad.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&bad.stdout).unwrap();
    let wrong: Vec<&Value> = answer["findings"].as_array().unwrap().iter().filter(|f| f["verdict"] == "bad").collect();
    assert_eq!(answer["healthy"], false);
    assert_eq!(wrong.iter().map(|f| f["check"].as_str().unwrap()).collect::<Vec<_>>(), ["clock", "feed"]);
    assert!(wrong.iter().all(|finding| !finding["advice"].as_str().unwrap().is_empty()));

    // Nobody there, and somebody who does not speak TLS.
    let settings = venue.settings().replace("ws://", "wss://").replace(&venue.rest_url(), "http://127.0.0.1:1");
    fs::write(home.config(), settings).unwrap();
    let nobody = home.run(&["doctor"]);
    assert_eq!(nobody.status.code(), Some(1), "{}", stderr(&nobody));
    let text = stdout(&nobody);
    assert!(text.contains("REST: ") && text.contains("WebSocket: ") && !text.contains("panicked"), "{text}");
}
