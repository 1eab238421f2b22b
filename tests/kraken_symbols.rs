//! The real binary on a live feed of which single symbols misbehave: one that freezes, one nobody trades, one that is
//! refused for a while. The others trade on.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/kraken_home.rs"]
mod kraken_home;
#[path = "support/kraken_venue.rs"]
mod kraken_venue;
mod process_support;

use kraken_home::*;
use kraken_venue::Venue;
use process_support::*;
use serde_json::Value;

/// Nothing is rebalanced but on demand.
const ON_DEMAND: &str = "[tasks.portfolio_rebalance]\ninterval_seconds = 604800\n";

fn fills(status: &Value) -> u64 {
    status["totals"]["fills"].as_u64().unwrap()
}

fn of_symbol<'r>(records: &'r [Value], kind: &str, symbol: &str) -> Vec<&'r Value> {
    let symbol_of = |record: &Value| match kind {
        "TradeIntent" => record["data"]["trade"]["body"]["symbol"].clone(),
        _ => record["data"]["symbol"].clone(),
    };
    of_kind(records, kind).into_iter().filter(|record| symbol_of(record) == symbol).collect()
}

#[test]
fn one_frozen_symbol_takes_no_order_while_the_other_trades_and_is_told_once() {
    let venue = Venue::start();
    let home = Home::with(&venue, ON_DEMAND);
    let imported = home.import();
    assert!(imported.status.success(), "{}", stderr(&imported));
    let program = home.start();
    program.status_when("live data", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    venue.control().frozen_symbols.insert("BTC/USDT".to_owned());
    let silent = program.status_when("the silence of one symbol", |status| {
        feed(status, "BTC/USDT")["silent"] == true && feed(status, "BTC/USDT")["silences"] == 1
    });
    assert_eq!(
        (&silent["state"], &feed(&silent, "XRP/USDT")["silent"]),
        (&Value::from("RUNNING"), &Value::from(false))
    );
    assert_eq!(feed(&silent, "BTC/USDT")["connected"], true);
    let text = stdout(&program.cli(&["status"]));
    assert!(text.contains("silent: no entries"), "{text}");

    // The plan buys both; the price of the silent one is young enough to trade on by its age alone.
    program.done(&["run-task", "portfolio_rebalance", "PORTFOLIO"]);
    let traded = program.status_when("an order of the other symbol", |status| fills(status) == 1);
    let waits = |leg: &Value| leg["symbol"] == "BTC/USDT" && leg["batch"] == 0;
    assert!(traded["scheduled"].as_array().unwrap().iter().any(waits), "{}", traded["scheduled"]);
    assert!(feed(&traded, "BTC/USDT")["data_age_seconds"].as_f64().unwrap() < 60.0, "{traded}");
    venue.control().frozen_symbols.clear();
    program.status_when("an order of both", |status| fills(status) == 2 && feed(status, "BTC/USDT")["silent"] == false);

    // Noted when the feed is next looked at, which may be after the silence has ended.
    until("the note of the silence", || {
        stdout(&program.cli(&["journal", "tail", "-n", "1000"])).contains("feed_silent").then_some(())
    });

    let records = assert_sound(&program.stop("TERM"));
    let seq = |record: &Value| record["seq"].as_u64().unwrap();
    let (xrp, btc) = (of_symbol(&records, "TradeFill", "XRP/USDT"), of_symbol(&records, "TradeIntent", "BTC/USDT"));
    assert!(xrp.len() == 1 && btc.len() == 1 && seq(btc[0]) > seq(xrp[0]), "{btc:?} {xrp:?}");
    let told: Vec<&Value> =
        of_kind(&records, "Noted").into_iter().filter(|record| record["data"]["what"] == "feed_silent").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["data"]["facts"]["symbol"], "BTC/USDT");
}

#[test]
fn a_symbol_nobody_trades_is_priced_by_its_book_until_that_freezes_as_well() {
    let venue = Venue::start();
    venue.control().untraded.insert("XRP/BTC".to_owned());
    let home = Home::of_three(&venue, ON_DEMAND);
    let program = home.start();
    let priced = |status: &Value| {
        let feed = feed(status, "XRP/BTC");
        feed["data_age_seconds"].as_f64().is_some_and(|age| age < 1.9) && feed["spread_bps"].is_f64()
    };
    program.status_when("a price of the book", |status| alive(status, "XRP/BTC") && priced(status));
    let seen = venue.control().frames;
    let status = program.status_when("a later one", |status| venue.control().frames > seen + 200 && priced(status));
    let spread = feed(&status, "XRP/BTC")["spread_bps"].as_f64().unwrap();
    assert!((15.0..=25.0).contains(&spread), "{spread}");
    venue.control().frozen_symbols.insert("XRP/BTC".to_owned());
    let silent = program.status_when("its silence", |status| feed(status, "XRP/BTC")["silent"] == true);
    assert_eq!(feed(&silent, "BTC/USDT")["silent"], false);
    program.stop("TERM");
}

#[test]
fn a_symbol_that_was_refused_is_served_after_the_next_connection() {
    let venue = Venue::start();
    venue.control().refused.insert("XRP/USDT".to_owned());
    let home = Home::new(&venue);
    let program = home.start();
    program.status_when("the refusal", |status| feed(status, "XRP/USDT")["refused"].is_string());
    {
        let mut control = venue.control();
        control.refused.clear();
        control.kicks += 1;
    }
    program.status_when("both symbols", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    // Its candles came over REST like any other's.
    until("its candles", || {
        let kept = std::fs::read_to_string(home.store().join("candles/XRPUSDT_1.csv")).unwrap_or_default();
        (kept.lines().count() >= 719).then_some(())
    });
    program.stop("TERM");
}
