//! What each row of the matrix requires, read from the journal before and after the crash.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Evidence;
use crate::process_support::of_kind;

type Outcome = Result<(), String>;

fn require(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what()) }
}

fn text<'v>(record: &'v Value, pointer: &str) -> &'v str {
    record.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn last<'r>(records: &'r [Value], kind: &str) -> Option<&'r Value> {
    records.iter().rev().find(|record| record["kind"] == kind)
}

/// Kinds of event that end a trade.
const ENDS: [&str; 5] = ["TradeSettled", "TradeRejected", "TradeRefused", "TradeExpired", "TradeCancelled"];

pub fn key_of(record: &Value) -> &str {
    let direct = text(record, "/data/trade_key");
    if direct.is_empty() { text(record, "/data/trade/key") } else { direct }
}

/// Records about one trade.
fn of_trade<'r>(records: &'r [Value], key: &str) -> Vec<&'r str> {
    records.iter().filter(|record| key_of(record) == key).filter_map(|record| record["kind"].as_str()).collect()
}

// ---- what a clean process is waited for

/// The boot is recorded and something was claimed since.
pub fn goes_on(e: &Evidence) -> bool {
    last(e.after(), "RecoveryDone").is_some() && last(e.after(), "RunFinished").is_some()
}

pub fn booted(e: &Evidence) -> bool {
    last(e.after(), "RecoveryDone").is_some()
}

/// Every trade that was known at the crash has come to its end or rests, and a plan's leg was filled.
pub fn trades_end(e: &Evidence) -> bool {
    let known: BTreeSet<&str> = of_kind(&e.crashed, "TradeIntent").into_iter().map(key_of).collect();
    let ended = |key: &&str| {
        let steps = of_trade(&e.all, key);
        steps.iter().any(|step| ENDS.contains(step)) || steps.last() == Some(&"TradeAcked")
    };
    goes_on(e) && known.iter().all(ended) && !of_kind(&e.all, "TradeFill").is_empty()
}

// ---- outcomes

/// What holds after every row: each slot of a key is accepted once, each trade is settled once.
pub fn sound(e: &Evidence) -> Outcome {
    let mut slots: BTreeMap<String, String> = BTreeMap::new();
    for claim in of_kind(&e.all, "RunClaimed") {
        let marker = &claim["data"]["marker"];
        slots.insert(text(marker, "/run_id").to_owned(), format!("{} {}", marker["key"], marker["slot"]));
    }
    let mut accepted = BTreeSet::new();
    for run in of_kind(&e.all, "RunFinished") {
        if text(run, "/data/outcome/outcome") == "succeeded"
            && let Some(slot) = slots.get(text(run, "/data/run_id"))
        {
            require(accepted.insert(slot.clone()), || format!("two accepted runs of {slot}"))?;
        }
    }
    let mut settled = BTreeSet::new();
    for done in of_kind(&e.all, "TradeSettled") {
        require(settled.insert(key_of(done).to_owned()), || format!("settled twice: {done}"))?;
    }
    Ok(())
}

/// K01: nothing is known of the claim; the slot is claimed later.
pub fn claimed_again(e: &Evidence) -> Outcome {
    require(of_kind(&e.crashed, "RunClaimed").is_empty(), || "the claim is durable".to_owned())?;
    require(last(e.after(), "RunClaimed").is_some(), || "nothing was claimed".to_owned())?;
    sound(e)
}

/// K02 to K04: the run that was under way is listed as interrupted, never accepted, and its slot not run again.
pub fn interrupted(e: &Evidence) -> Outcome {
    let ended: BTreeSet<&str> = of_kind(&e.crashed, "RunFinished").iter().map(|r| text(r, "/data/run_id")).collect();
    let claims = of_kind(&e.crashed, "RunClaimed");
    let open = claims.iter().map(|claim| &claim["data"]["marker"]).filter(|m| !ended.contains(text(m, "/run_id")));
    let open: Vec<&Value> = open.collect();
    require(!open.is_empty(), || "no run was under way".to_owned())?;
    let listed: Vec<&Value> = of_kind(e.after(), "InFlightRecovered");
    for marker in open {
        let run = text(marker, "/run_id");
        let found = |record: &&&Value| record["data"].to_string().contains(&format!("\"{run}\""));
        let times = listed.iter().filter(found).count();
        require(times == 1, || format!("the interrupted run {run} is listed {times} times"))?;
        let finished = of_kind(e.after(), "RunFinished").iter().any(|r| text(r, "/data/run_id") == run);
        require(!finished, || format!("the interrupted run {run} was accepted"))?;
        let signals = of_kind(&e.all, "SignalReceived");
        let published = signals.iter().any(|signal| text(signal, "/data/signal/run_id") == run);
        require(!published, || format!("the interrupted run {run} was published"))?;
        let claims = of_kind(&e.all, "RunClaimed");
        let same = |claim: &&&Value| {
            claim["data"]["marker"]["slot"] == marker["slot"] && claim["data"]["marker"]["key"] == marker["key"]
        };
        require(claims.iter().filter(same).count() == 1, || format!("{} was run again", marker["slot"]))?;
    }
    sound(e)
}

/// K05: output, outcome and start of the decision of a run are all there or all absent.
pub fn decision_whole(e: &Evidence) -> Outcome {
    for run in of_kind(&e.all, "RunFinished") {
        let decides = text(run, "/data/key/task") == "trading_decision";
        if !decides || text(run, "/data/outcome/outcome") != "succeeded" {
            continue;
        }
        let id = text(run, "/data/run_id");
        let signals = of_kind(&e.all, "SignalReceived");
        let count = signals.iter().filter(|signal| text(signal, "/data/signal/run_id") == id).count();
        require(count == 1, || format!("run {id} has {count} signals"))?;
    }
    for signal in of_kind(&e.all, "SignalReceived") {
        let id = text(signal, "/data/signal/run_id");
        let finished = of_kind(&e.all, "RunFinished").iter().any(|run| text(run, "/data/run_id") == id);
        require(finished, || format!("the signal of {id} has no outcome"))?;
    }
    sound(e)
}

/// K07 and K08: all legs or none, and the same plan whatever is repeated; each leg is claimed once.
pub fn one_plan(e: &Evidence) -> Outcome {
    let plans = of_kind(&e.all, "PlanCreated");
    require(plans.len() == 1, || format!("{} plans", plans.len()))?;
    let legs: BTreeSet<&str> = plans[0]["data"]["plan"]["legs"]
        .as_array()
        .map(|legs| legs.iter().map(|leg| text(leg, "/key")).collect())
        .unwrap_or_default();
    require(legs.len() == 12, || format!("{} of 12 legs", legs.len()))?;
    let rebalance = |intent: &&Value| text(intent, "/data/trade/kind") == "rebalance";
    let mut claimed = BTreeSet::new();
    for intent in of_kind(&e.all, "TradeIntent").into_iter().filter(rebalance) {
        let key = key_of(intent);
        require(legs.contains(key), || format!("{key} is no leg of the plan"))?;
        require(claimed.insert(key.to_owned()), || format!("leg {key} was claimed twice"))?;
    }
    sound(e)
}

/// The plan was durable when the process died.
pub fn plan_held(e: &Evidence) -> Outcome {
    require(of_kind(&e.crashed, "PlanCreated").len() == 1, || "no plan was durable".to_owned())?;
    one_plan(e)
}

/// K10 and K11: the journal has the intent, so the start applies it to the embedded store.
pub fn intent_applied(e: &Evidence) -> Outcome {
    let intent = last(&e.crashed, "TradeIntent").ok_or("no intent in the journal")?;
    let boots = of_kind(e.after(), "RecoveryDone");
    let applied = boots.iter().any(|done| done["data"]["recovered"]["applied"].as_u64() > Some(0));
    let again = of_kind(e.after(), "Booted").len() > 1;
    // With a second kill the first of the two boots applied it and could not tell.
    require(applied || again, || "the start applied nothing to the embedded store".to_owned())?;
    trade_once(e, key_of(intent))
}

/// The trade of `key` is submitted and executed once, or refused.
fn trade_once(e: &Evidence, key: &str) -> Outcome {
    let steps = of_trade(&e.all, key);
    let count = |kind: &str| steps.iter().filter(|step| **step == kind).count();
    require(count("TradeIntent") == 1, || format!("{key}: {steps:?}"))?;
    require(count("TradeSettled") <= 1, || format!("{key}: {steps:?}"))?;
    let ends = steps.iter().filter(|step| ENDS.contains(step)).count();
    require(ends == 1 || steps.last() == Some(&"TradeAcked"), || format!("{key} did not end once: {steps:?}"))?;
    sound(e)
}

/// Every trade that was known at the crash ends exactly once.
pub fn each_once(e: &Evidence) -> Outcome {
    let keys: BTreeSet<&str> = of_kind(&e.crashed, "TradeIntent").into_iter().map(key_of).collect();
    keys.into_iter().try_for_each(|key| trade_once(e, key))?;
    sound(e)
}

/// As [`each_once`], with a trade under way at the crash.
pub fn intent_held(e: &Evidence) -> Outcome {
    require(last(&e.crashed, "TradeIntent").is_some(), || "no intent was durable".to_owned())?;
    each_once(e)
}

/// K13: nothing was sent before its record: no fill, no submission.
pub fn not_sent(e: &Evidence) -> Outcome {
    let sent = of_kind(&e.crashed, "TradeFill").len();
    require(sent == 0, || format!("{sent} fills before anything was submitted"))?;
    intent_held(e)
}

/// K14: the submission is durable, nothing was executed; paper executes it once.
pub fn submitted_once(e: &Evidence) -> Outcome {
    let key = key_of(last(&e.crashed, "TradeSubmitting").ok_or("no submission was durable")?);
    let fills = of_trade(&e.crashed, key).into_iter().filter(|step| *step == "TradeFill").count();
    require(fills == 0, || format!("{key} was filled before the crash"))?;
    trade_once(e, key)
}

/// K23, K24, K27: the fill and its settlement come together, once.
pub fn settled_with_fill(e: &Evidence) -> Outcome {
    for (what, records) in [("at the crash", &e.crashed), ("at the end", &e.all)] {
        let fills: BTreeSet<&str> = of_kind(records, "TradeFill").into_iter().map(key_of).collect();
        let settled: BTreeSet<&str> = of_kind(records, "TradeSettled").into_iter().map(key_of).collect();
        require(fills == settled, || format!("{what} filled {fills:?} and settled {settled:?}"))?;
    }
    each_once(e)
}
