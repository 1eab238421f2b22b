//! What is said to a process so that it reaches its failpoint.

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

/// Lets the next batch of legs become late by pausing over its instant.
pub fn late_legs(program: &Program) -> Value {
    let filled = || of_kind(&records(&program.store), "TradeSettled").len() >= 2;
    let status = status_when(program, "the first batch", |status| !list(status, "scheduled").is_empty() && filled());
    let at = |value: &Value| value.as_str().and_then(Ts::parse).unwrap();
    command(program, "a-pause", &json!({"command": "pause", "reason": "drill"}));
    let due = list(&status, "scheduled").iter().map(|leg| at(&leg["due_at"])).min().unwrap();
    status_when(program, "the next batch to be late", |status| at(&status["now"]) > due.plus_ms(10 * 60_000));
    command(program, KEY, &json!({"command": "resume"}))
}

/// Tells it to stop while a plan is under way; what it was before that.
pub fn stop_with_a_plan(program: &Program) -> Value {
    let before = status_when(program, "a plan", |status| !list(status, "scheduled").is_empty());
    program.signal("TERM");
    before
}
