//! Check 5: what waits for something that is over is a violation, and only after time in which the program could act.

use super::*;
use crate::model::{Capability, CoordinatorState, DegradationLevel};

/// The first order of the story up to its submission, then these events, and a record a minute for so long; what check 5
/// says of what waits in the end.
fn waits(events: &[Event], minutes: i64) -> Vec<String> {
    let (mut records, _) = story();
    records.truncate(at(&records, "TradeSubmitting", 0) + 1);
    let from = records.last().unwrap().ts;
    // After a boot everything is ten hours later: nobody was there in between.
    let is_boot = |event: &Event| matches!(event, Event::Booted { .. });
    let down = if events.iter().any(is_boot) { 600 } else { 0 };
    let events = events.iter().map(|event| (if is_boot(event) { down } else { 0 }, event.clone()));
    let note = || Event::Noted { what: "x".into(), facts: BTreeMap::new() };
    for (minute, event) in events.chain((0..=minutes).map(|minute| (down + minute, note()))) {
        again(&mut records, 0);
        let last = records.last_mut().unwrap();
        (last.ts, last.event) = (from.plus_ms(minute * 60_000), event);
    }
    let oracle = judged(&records);
    oracle.violations().iter().filter(|v| v.check == Check::Waiting).map(ToString::to_string).collect()
}

fn submitted() -> (TradeKey, Ts) {
    let (records, _) = story();
    let record = &records[at(&records, "TradeSubmitting", 0)];
    let Event::TradeSubmitting { trade_key, .. } = record.event else { panic!() };
    (trade_key, record.ts)
}

#[test]
fn check_5_sees_waits_whose_end_has_passed_while_the_program_ran_on() {
    let (trade_key, from) = submitted();
    let hour = Some(from.plus_ms(3_600_000));
    let none = Vec::<String>::new();
    let acked = |expires_at| Event::TradeAcked { trade_key, expires_at };
    assert_eq!(waits(&[acked(hour)], 170), none);
    assert!(waits(&[acked(hour)], 190)[0].contains("it was to rest until"));
    assert_eq!(waits(&[acked(None)], 600), none, "it rests until it is cancelled");
    let cancel = Event::TradeCancelRequested { trade_key, reason: "x".into() };
    assert_eq!(waits(&[acked(hour), cancel], 600), none, "only the venue can end it");
    let boot = Event::Booted { epoch: 2, version: "0".into(), config_hash: String::new() };
    assert_eq!(waits(&[acked(hour), boot], 100), none, "nobody was there to end it");

    let refused = Event::TradeNotExecuted { trade_key, reason: "x".into(), retry_at: hour };
    assert_eq!(waits(std::slice::from_ref(&refused), 170), none);
    assert!(waits(std::slice::from_ref(&refused), 190)[0].contains("the next attempt waited until"));
    let (state, paused) = (CoordinatorState::Running, CoordinatorState::Paused);
    let pause = Event::StateChanged { from: state, to: paused, reason: "x".into(), halt: None };
    assert_eq!(waits(&[refused, pause], 600), none, "nothing leaves while paused");

    let unknown = Event::TradeUnknown { trade_key, reason: "x".into() };
    assert_eq!(waits(std::slice::from_ref(&unknown), 1_430), none);
    assert!(waits(&[unknown], 1_450)[0].contains("neither found out its fate nor left it to the operator"));
}

#[test]
fn check_5_sees_a_leg_that_outlives_the_time_of_its_plan() {
    let (records, _) = story();
    let plan = records[at(&records, "PlanCreated", 0)].event.clone();
    // The last leg is due after an hour, the spacing is another one; then a leg may be late by a day.
    let about_plans = |events: &[Event], minutes| -> usize {
        waits(events, minutes).iter().filter(|what| what.contains("the time of its plan was over")).count()
    };
    assert_eq!(about_plans(std::slice::from_ref(&plan), 27 * 60), 0);
    assert_eq!(about_plans(std::slice::from_ref(&plan), 29 * 60), 2);
    let degraded = Event::DegradationChanged {
        capability: Capability::MarketData,
        from: DegradationLevel::Normal,
        to: DegradationLevel::Limited,
    };
    assert_eq!(about_plans(&[plan, degraded], 29 * 60), 0, "legs wait while degraded");
}
