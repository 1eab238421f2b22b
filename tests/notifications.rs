//! The real binary posts what a person should know to an address on loopback: a freeze of the feed once, nothing twice after
//! a crash that is not marked, and a sink that hangs holds nothing up.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/kraken_home.rs"]
mod kraken_home;
#[path = "support/kraken_venue.rs"]
mod kraken_venue;
mod process_support;
#[path = "support/webhook_sink.rs"]
mod webhook_sink;

use std::{fs, os::unix::fs::PermissionsExt};

use kraken_home::*;
use kraken_venue::Venue;
use process_support::*;
use serde_json::Value;
use webhook_sink::Sink;

fn paused(status: &Value) -> bool {
    status["state"] == "PAUSED"
}

#[test]
fn a_freeze_of_the_feed_is_posted_once_and_a_crash_repeats_only_what_it_marks() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let (sink, settings) = Sink::start(home.path(), false);
    fs::write(home.config(), venue.settings() + &settings).unwrap();
    let program = home.start();
    program.status_when("live data", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    venue.control().frozen = true;
    program.status_when("the pause", paused);
    let told = until("the notification", || sink.about("feed_frozen").pop());
    assert_eq!(
        (&told["level"], &told["text"]),
        (&Value::from("warning"), &Value::from("feed_frozen: no_price_for_seconds 3"))
    );
    assert!(told["seq"].is_u64() && told["at"].is_string(), "{told}");
    until("the change of state", || sink.about("StateChanged").pop());
    let status = program.status_when("all of them to be taken", |status| status["notifications"]["waiting"] == 0);
    assert!(status["notifications"]["sent"].as_u64() >= Some(2), "{}", status["notifications"]);
    assert_eq!((&status["notifications"]["dropped"], sink.about("feed_frozen").len()), (&Value::from(0), 1));
    assert!(stdout(&program.cli(&["status"])).contains("notifications: "));
    assert!(!program.said().contains("secret-token"), "the address is in no log");
    program.kill9();

    // The same process again: what it was told of is not told again, unless marked.
    venue.control().frozen = false;
    let before = sink.all().len();
    let program = home.start();
    program.status_when("the end of the pause", |status| status["state"] == "RUNNING" && status["boot_epoch"] == 2);
    program.status_when("all of them to be taken", |status| status["notifications"]["waiting"] == 0);
    program.stop("TERM");
    let posted = sink.all();
    let known = |line: &Value| posted[..before].iter().any(|other| other["seq"] == line["seq"]);
    for line in posted[before..].iter().filter(|line| known(line)) {
        assert!(line["text"].as_str().unwrap().starts_with("(again) "), "{line}");
    }
    assert!(posted.iter().all(|line| line["level"] != "info"), "the least is a warning");
}

#[test]
fn a177_a_sink_that_hangs_holds_nothing_up_and_is_shown() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let (sink, settings) = Sink::start(home.path(), true);
    fs::write(home.config(), venue.settings() + &settings + "min_level = \"info\"\n").unwrap();
    let program = home.start();
    program.done(&["pause", "--reason", "test"]);
    program.status_when("a line on its way", |status| {
        status["notifications"]["waiting"].as_u64() > Some(0) && !sink.all().is_empty()
    });
    program.done(&["resume"]);
    for _ in 0..3 {
        program.done(&["pause", "--reason", "test"]);
        program.done(&["resume"]);
    }
    let status = program.status_when("live data", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    assert_eq!((&status["state"], &status["notifications"]["sent"]), (&Value::from("RUNNING"), &Value::from(0)));
    let store = program.stop("TERM");
    assert_sound(&store);
}

#[test]
fn an_address_that_others_may_read_is_refused_and_doctor_says_so() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    let (_, settings) = Sink::start(home.path(), false);
    fs::write(home.config(), venue.settings() + &settings).unwrap();
    let good = home.run(&["doctor"]);
    assert!(stdout(&good).contains("ok   notifications: from `warning` on"), "{}", stdout(&good));
    fs::set_permissions(home.path().join("webhook"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = home.run(&["run"]);
    assert_clear(&refused, 2, &["notify.webhook_url_file", "chmod 0600"]);
    let bad = home.run(&["doctor"]);
    assert!(
        stdout(&bad).contains("BAD  notifications: ") && !stdout(&bad).contains("secret-token"),
        "{}",
        stdout(&bad)
    );
}
