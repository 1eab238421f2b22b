//! What each row of the matrix requires, read from the journal before and after the crash.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use triplegain::model::DegradationLevel;

use super::{
    Evidence,
    proof::fold,
    verdict::{Outcome, reached, require},
};
use crate::process_support::of_kind;

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
        let claims = of_kind(e.after(), "RunClaimed");
        let same = |claim: &&&Value| {
            claim["data"]["marker"]["slot"] == marker["slot"] && claim["data"]["marker"]["key"] == marker["key"]
        };
        require(claims.iter().filter(same).count() == 0, || format!("{} was run again", marker["slot"]))?;
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

/// What was durable and perhaps never told is announced again by the start that follows: from the newest `wanted` on.
fn announced_again(e: &Evidence, wanted: &str) -> Outcome {
    let at = e.crashed.iter().rposition(|record| record["kind"] == wanted);
    let at = at.ok_or_else(|| format!("no {wanted} was durable"))?;
    let untold = (e.crashed.len() - at) as u64;
    let said = of_kind(e.after(), "RecoveryDone");
    let most = said.iter().filter_map(|done| done["data"]["recovered"]["announced_again"].as_u64()).max().unwrap_or(0);
    require(most >= untold, || format!("{untold} records from {wanted} on were untold, {most} were announced again"))
}

/// K06: accepted and not published: published after the boot, under the run that was accepted, and accepted only once.
pub fn published_again(e: &Evidence) -> Outcome {
    announced_again(e, "RunFinished")?;
    decision_whole(e)
}

/// K07 and K08: all legs or none; at most one plan lives at a time, and each leg is claimed once.
pub fn one_plan(e: &Evidence) -> Outcome {
    let (mut living, mut legs, mut claimed) = (None::<String>, BTreeSet::new(), BTreeSet::new());
    for record in &e.all {
        match record["kind"].as_str().unwrap_or_default() {
            "PlanCreated" => {
                let id = text(record, "/data/plan/id");
                require(living.is_none(), || format!("plan {id} beside {living:?}"))?;
                living = Some(id.to_owned());
                let own = record["data"]["plan"]["legs"].as_array().map_or(0, Vec::len);
                require(own == 12, || format!("{own} of 12 legs"))?;
                legs.extend(record["data"]["plan"]["legs"].as_array().into_iter().flatten().map(|l| text(l, "/key")));
            }
            "PlanSuperseded" | "PlanExpired" | "PlanCompleted" => living = None,
            "TradeIntent" if text(record, "/data/trade/kind") == "rebalance" => {
                let key = key_of(record);
                require(legs.contains(key), || format!("{key} is no leg of a plan"))?;
                require(claimed.insert(key.to_owned()), || format!("leg {key} was claimed twice"))?;
            }
            _ => {}
        }
    }
    require(!legs.is_empty(), || "no plan".to_owned())?;
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
    // With a second kill the first of the two boots applied it and could not tell.
    require(applied || e.again, || "the start applied nothing to the embedded store".to_owned())?;
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

/// K20: the order rests again, or has ended since.
pub fn rests_again(e: &Evidence) -> Outcome {
    let key = key_of(last(&e.crashed, "TradeAcked").ok_or("no order was acknowledged")?);
    let listed = e.status["orders"].to_string().contains(key);
    let ended = of_trade(e.after(), key).iter().any(|step| ENDS.contains(step) || *step == "TradeFill");
    require(listed || ended, || format!("{key} neither rests nor ended: {}", e.status["orders"]))?;
    each_once(e)
}

/// K25: settled before the crash, and no money moved for it since.
pub fn settled_before(e: &Evidence) -> Outcome {
    let key = key_of(last(&e.crashed, "TradeSettled").ok_or("nothing was settled")?);
    let moved = of_trade(e.after(), key);
    require(moved.is_empty(), || format!("after its settlement {key} had {moved:?}"))?;
    announced_again(e, "TradeSettled")?;
    settled_with_fill(e)
}

/// K28: the emergency runs once, under the key of the breaker that tripped, and the program is HALTED.
pub fn halted_once(e: &Evidence) -> Outcome {
    let (breach, period) = ("/data/emergency/key/breach", "/data/emergency/key/period");
    let tripped = of_kind(&e.all, "BreakerTripped");
    let tripped = tripped.into_iter().find(|r| text(r, "/data/latch/breaker") == "max_drawdown");
    let tripped = tripped.ok_or("no breaker tripped")?;
    let started = of_kind(&e.all, "EmergencyStarted");
    let started: Vec<&Value> = started.into_iter().filter(|s| text(s, breach) == "max_drawdown").collect();
    require(started.len() == 1, || format!("{} emergencies", started.len()))?;
    require(text(started[0], period) == text(tripped, "/data/latch/period"), || format!("{tripped} {}", started[0]))?;
    let halted = of_kind(&e.all, "StateChanged").iter().any(|change| text(change, "/data/to") == "HALTED");
    require(halted, || "the program is not HALTED".to_owned())?;
    sound(e)
}

pub fn emergency_runs(e: &Evidence) -> bool {
    booted(e) && reducing(e).is_some_and(|started| done_of(e, started).is_some())
}

/// The emergency that closes or reduces.
fn reducing(e: &Evidence) -> Option<&Value> {
    let some = |started: &&Value| started["data"]["emergency"]["key"]["action"] != "pause_trading";
    of_kind(&e.all, "EmergencyStarted").into_iter().find(some)
}

fn done_of<'e>(e: &'e Evidence, started: &Value) -> Option<&'e Value> {
    of_kind(&e.all, "EmergencyDone").into_iter().find(|done| done["data"]["key"] == started["data"]["emergency"]["key"])
}

/// K29 and K30: every position reached its target by one trade of the emergency, none by two.
pub fn targets_reached(e: &Evidence) -> Outcome {
    let started = reducing(e).ok_or("no emergency")?;
    let key = |part: &str| text(started, &format!("/data/emergency/key/{part}"));
    let emergency = format!("{}:{}:{}", key("breach"), key("period"), key("action"));
    let targets = started["data"]["emergency"]["targets"].as_object().ok_or("no targets")?;
    reached(!targets.is_empty(), || "the emergency had nothing to do".to_owned())?;
    let done = done_of(e, started).ok_or("the emergency did not end")?;
    let done = e.all.iter().position(|record| record["seq"] == done["seq"]).unwrap_or_default();
    for (position, target) in targets {
        let of = |record: &&Value| {
            let id = record.pointer("/data/position/id").or_else(|| record.pointer("/data/closed/id"));
            id.is_some_and(|id| id.as_u64() == position.parse().ok()) && record["kind"] != "PositionOpened"
        };
        let since: Vec<&Value> =
            e.all[..done].iter().filter(|r| r["seq"].as_u64() > started["seq"].as_u64()).filter(of).collect();
        let closed = |record: &Value| record["kind"] == "PositionClosed";
        let whole = |record: &Value| match record.pointer("/data/position/quantity") {
            Some(now) => number(now) == number(target),
            None => target == "0" && closed(record),
        };
        // Its stop or target may have been faster, or come later: then nothing is left of it.
        let own: Vec<&&Value> = since.iter().filter(|record| text(record, "/corr") == emergency).collect();
        let reached = own.iter().all(|record| whole(record)) && since.last().is_some_and(|r| closed(r) || whole(r));
        require(own.len() <= 1 && reached, || format!("position {position} should be {target}: {since:?}"))?;
    }
    each_once(e)
}

fn number(value: &Value) -> Option<triplegain::model::Decimal> {
    value.as_str().and_then(|text| text.parse().ok())
}

/// K31: no effect, and nobody was told of one.
pub fn command_absent(e: &Evidence) -> Outcome {
    require(e.heard["status"] != "ok", || format!("the client heard {}", e.heard))?;
    require(of_kind(&e.crashed, "CommandReceived").is_empty(), || "the command is durable".to_owned())?;
    require(e.status["state"] == "RUNNING", || format!("the state is {}", e.status["state"]))?;
    require(e.later["status"] == "ok", || format!("the repetition was answered {}", e.later))?;
    sound(e)
}

/// K32: the effect holds and the same key has the same answer.
pub fn command_held(e: &Evidence) -> Outcome {
    require(e.heard["status"].is_null(), || format!("the client heard {}", e.heard))?;
    let stored = last(&e.crashed, "CommandDone").ok_or("the command is not durable")?;
    require(e.status["state"] == "PAUSED", || format!("the state is {}", e.status["state"]))?;
    require(e.later["result"] == stored["data"]["result"], || format!("{} instead of {stored}", e.later))?;
    require(of_kind(&e.all, "CommandReceived").len() == 1, || "the command was taken twice".to_owned())?;
    sound(e)
}

/// K33: what was durable at the crash holds: no state above it, no latch forgotten.
pub fn not_more_permissive(e: &Evidence) -> Outcome {
    if let Some(change) = last(&e.crashed, "StateChanged") {
        let to = &change["data"]["to"];
        require(e.status["state"] == *to, || format!("{to} became {}", e.status["state"]))?;
    }
    for tripped in of_kind(&e.crashed, "BreakerTripped") {
        let name = text(tripped, "/data/latch/breaker");
        let again = of_kind(e.after(), "BreakerTripped").iter().any(|r| text(r, "/data/latch/breaker") == name);
        require(!again, || format!("{name} was forgotten and tripped again"))?;
    }
    sound(e)
}

/// K34: the schedule is the old one or the new one, and the sum of the legs is what it was.
pub fn one_schedule(e: &Evidence) -> Outcome {
    let spreads = of_kind(&e.all, "LegsRespread");
    reached(!spreads.is_empty(), || "nothing was respread".to_owned())?;
    one_plan(e)
}

pub fn respread_done(e: &Evidence) -> bool {
    booted(e) && !of_kind(&e.all, "LegsRespread").is_empty()
}

/// K33: the level of every capability is what was durable; the program uses no more than that.
pub fn level_held(e: &Evidence) -> Outcome {
    let crashed = fold(&e.store, e.crashed.len()).coordinator.degradation;
    let back = fold(&e.store, recovered_at(e)?).coordinator.degradation;
    require(crashed == back, || format!("levels {crashed:?} became {back:?}"))?;
    let worst = crashed.values().copied().max().unwrap_or_default();
    let now: DegradationLevel = serde_json::from_value(e.status["degradation"].clone()).map_err(|w| w.to_string())?;
    require(now >= worst, || format!("{worst:?} was durable, the program is at {now:?}"))?;
    sound(e)
}

/// As [`level_held`], with a change that was durable when the process died.
pub fn level_changed_and_held(e: &Evidence) -> Outcome {
    let changed = last(&e.crashed, "DegradationChanged").ok_or("no change of a level was durable")?;
    let (from, to) = (&changed["data"]["from"], &changed["data"]["to"]);
    require(from != to, || format!("nothing changed: {changed}"))?;
    level_held(e)
}

pub fn level_changed(e: &Evidence) -> bool {
    booted(e) && last(&e.all, "DegradationChanged").is_some()
}

/// Number of records up to the end of the first whole recovery after the crash.
fn recovered_at(e: &Evidence) -> Result<usize, String> {
    let after = e.after().iter().position(|record| record["kind"] == "RecoveryDone");
    Ok(e.crashed.len() + after.ok_or("no recovery was recorded")? + 1)
}

/// K47: what a stop that was cut short leaves is what the next start has: state, reasons, plans with their legs, trades,
/// positions and balances; and it is what the program showed before it was told to stop.
pub fn drained(e: &Evidence) -> Outcome {
    let found = fold(&e.store, e.crashed.len());
    let back = fold(&e.store, recovered_at(e)?);
    let (was, is) = (&found.coordinator, &back.coordinator);
    require((was.state, &was.pause_reasons, &was.halt) == (is.state, &is.pause_reasons, &is.halt), || {
        format!("{:?} {:?} became {:?} {:?}", was.state, was.pause_reasons, is.state, is.pause_reasons)
    })?;
    require(!found.plans.is_empty(), || "no plan was under way".to_owned())?;
    require(found.plans == back.plans, || format!("plans {:?} became {:?}", found.plans, back.plans))?;
    require(found.trades == back.trades, || format!("trades {:?} became {:?}", found.trades, back.trades))?;
    require(found.positions == back.positions, || "the positions are others".to_owned())?;
    require(found.account == back.account, || format!("{:?} became {:?}", found.account, back.account))?;
    for field in ["state", "pause_reasons", "halt_id", "latched_breakers"] {
        let (shown, now) = (&e.heard[field], &e.status[field]);
        require(shown == now, || format!("{field} was {shown} before the stop and is {now}"))?;
    }
    each_once(e)
}
