//! What is said to a process so that it reaches its failpoint.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use triplegain::model::Ts;

use super::{command, proof};
use crate::process_support::*;

const KEY: &str = "the-one-command";

pub fn pause(program: &Program) -> Value {
    command(program, KEY, &json!({"command": "pause", "reason": "drill"}))
}

pub fn halt(program: &Program) -> Value {
    command(program, KEY, &json!({"command": "halt", "reason": "drill"}))
}

/// Waits for a status and keeps what it shows.
fn status_when(program: &Program, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    let status = program.status_when(what, good);
    proof::shown(&program.store, &status);
    status
}

fn list<'s>(status: &'s Value, field: &str) -> &'s [Value] {
    status[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Closes everything once there are two positions.
pub fn close_two(program: &Program) -> Value {
    status_when(program, "two positions", |status| list(status, "positions").len() == 2);
    command(program, KEY, &json!({"command": "close_all", "reason": "drill"}))
}

/// Lets the next batch of legs become late by pausing over its instant, and again with the one after it while the program
/// lives: on a slow machine the level of market data may rise meanwhile, and a plan that waits too long is replaced.
pub fn late_legs(program: &Program) -> Value {
    let at = |value: &Value| value.as_str().and_then(Ts::parse).unwrap();
    let filled = || of_kind(&records(&program.store), "TradeSettled").len() >= 2;
    let mut heard = Value::Null;
    for round in 0..6 {
        let planned = |status: &Value| !list(status, "scheduled").is_empty() && filled();
        let Some(status) = shown_within(program, Duration::from_secs(60), planned) else { break };
        command(program, &format!("pause-{round}"), &json!({"command": "pause", "reason": "drill"}));
        let due = list(&status, "scheduled").iter().map(|leg| at(&leg["due_at"])).min().unwrap();
        let late = |status: &Value| at(&status["now"]) > due.plus_ms(10 * 60_000);
        if shown_within(program, Duration::from_secs(60), late).is_none() {
            break;
        }
        heard = command(program, &format!("resume-{round}"), &json!({"command": "resume"}));
        // It moves the legs as soon as it runs again, and ends with that.
        shown_within(program, Duration::from_secs(10), |_| false);
    }
    heard
}

/// A status that satisfies `good`; none when the process is gone or the time over. Keeps what was shown.
fn shown_within(program: &Program, time: Duration, good: impl Fn(&Value) -> bool) -> Option<Value> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let status = program.try_status()?;
        proof::shown(&program.store, &status);
        if good(&status) {
            return Some(status);
        }
        std::thread::park_timeout(Duration::from_millis(25));
    }
    None
}

/// Tells it to stop while a plan is under way; what it was before that.
pub fn stop_with_a_plan(program: &Program) -> Value {
    let before = status_when(program, "a plan", |status| !list(status, "scheduled").is_empty());
    program.signal("TERM");
    before
}
