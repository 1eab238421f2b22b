//! The real binary: imports that must not be, a first start without one, and the status in words.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/kraken_home.rs"]
mod kraken_home;
#[path = "support/kraken_venue.rs"]
mod kraken_venue;
mod process_support;

use std::fs;

use kraken_home::*;
use kraken_venue::Venue;
use process_support::*;

#[test]
fn an_import_beside_a_running_process_is_refused_and_changes_nothing() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let files = home.history_files();
    let program = home.start();
    program.status_when("live data", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    for args in [vec!["import", "kraken-csv", &files[0]], vec!["import", "fetch", "--symbol", "BTC/USDT"]] {
        let refused = home.run(&args);
        assert_clear(&refused, 73, &["in use by", &format!("process {}", program.id()), "Nothing was imported"]);
    }
    let kept = fs::read_to_string(home.store().join("candles/XBTUSDT_1.csv")).unwrap();
    assert!(kept.lines().count() < 1_000, "nothing of the 270 hours was merged");
    program.stop("TERM");
    let free = home.run(&["import", "kraken-csv", &files[0]]);
    assert!(free.status.success(), "{}", stderr(&free));
    // The lock of an import goes with it: the program starts at once.
    home.start().stop("TERM");
}

#[test]
fn an_unknown_symbol_is_refused_with_the_nearest_one_before_anything_is_asked() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let refused = home.run(&["import", "fetch", "--symbol", "BTC/USTD"]);
    assert_clear(&refused, 1, &["unknown symbol `BTC/USTD`", "did you mean `BTC/USDT`?", "market.symbol"]);
    assert!(venue.control().asked.is_empty(), "{:?}", venue.control().asked);
    assert!(!home.store().exists(), "nothing was made");
}

#[test]
fn a_first_start_without_import_begins_its_hours_with_those_of_the_venue() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let program = home.start();
    program.status_when("live data", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    {
        let control = venue.control();
        let hours = |symbol: &str| {
            control.asked.iter().filter(|path| path.contains(symbol) && path.contains("interval=60")).count()
        };
        assert_eq!((hours("XBTUSDT"), hours("XRPUSDT")), (1, 1), "{:?}", control.asked);
    }
    let status = program.status_when("the first analysis", |status| {
        // Asked again each time: one on the edge of a minute may find its candle a moment too old.
        program.cli(&["run-task", "technical_analysis", "BTC/USDT"]);
        let lines = status["tasks"].as_array().unwrap();
        let line = lines.iter().find(|line| line["task"] == "technical_analysis" && line["symbol"] == "BTC/USDT");
        line.is_some_and(|line| line["last_success_at"].is_string())
    });
    assert_eq!(feed(&status, "BTC/USDT")["gaps"], 0, "hours are no candles that could be missing: {status}");

    let text = stdout(&program.cli(&["status"]));
    for word in ["socket", "data age s", "last gap", "reconnects", "the venue's clock is", " up "] {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
    program.stop("TERM");
    // The hours are kept: a start while REST is silent is warm as well, and asks for the newest alone.
    let kept = fs::read_to_string(home.store().join("candles/XBTUSDT_60.csv")).unwrap();
    assert_eq!(kept.lines().count(), 719);
}
