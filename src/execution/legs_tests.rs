//! Tests of the legs rules of `execution`, by the ids of the acceptance scenarios they hold.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use uuid::Uuid;

use super::{super::testkit::*, *};
use crate::model::{Money, TradeKind};

const MIN: i64 = 60_000;
const HOUR: i64 = 60 * MIN;

/// Six batches four hours apart, each one buy of BTC and one of XRP.
pub(crate) fn plan(batches: u32, spacing_ms: i64) -> Plan {
    let id = Uuid::from_u128(42);
    let mut legs = Vec::new();
    for batch in 0..batches {
        for pair in [btc(), symbol("XRP/USDT")] {
            let name = format!("{batch}:{}", pair.base);
            legs.push(Leg {
                key: TradeKey::derive(
                    Uuid::from_u128(1),
                    TradeKind::Rebalance,
                    &id.to_string(),
                    &name,
                    pair,
                    Side::Buy,
                ),
                batch,
                asset: pair.base,
                symbol: pair,
                side: Side::Buy,
                amount: dec!(555.55),
                due_at: T0.plus_ms(i64::from(batch) * spacing_ms),
                state: TradeState::Planned,
            });
        }
    }
    Plan {
        id,
        created_at: T0,
        spacing_ms,
        legs,
        deviation_pct: dec!(33),
        state: PlanState::Active,
        ended_at: None,
        last_executed_at: None,
    }
}

fn executed(plan: &mut Plan, batch: u32, at: Ts) {
    plan.legs.iter_mut().filter(|leg| leg.batch == batch).for_each(|leg| leg.state = TradeState::Settled);
    plan.last_executed_at = Some(at);
}

fn run(plan: &Plan, now: Ts) -> LegAction {
    step(plan, now, &leg_settings(), Gate::Open)
}

fn sum(plan: &Plan) -> Money {
    plan.legs.iter().map(|leg| leg.amount).sum()
}

#[test]
fn f07_table_of_lateness() {
    let mut plan = plan(6, 4 * HOUR);
    assert_eq!(max_lateness_ms(&plan, &leg_settings()), 1_440_000);
    executed(&mut plan, 0, T0);
    let due = T0.plus_ms(4 * HOUR);
    assert_eq!(run(&plan, due.plus_ms(-1)), LegAction::Nothing(Some(due)));
    let keys: Vec<TradeKey> = plan.legs[2..4].iter().map(|leg| leg.key).collect();
    assert_eq!(run(&plan, due), LegAction::Execute(keys.clone()));
    assert_eq!(run(&plan, due.plus_ms(1_440_000)), LegAction::Execute(keys.clone()));
    let LegAction::Commit(Event::LegsRespread { .. }) = run(&plan, due.plus_ms(1_440_001)) else { panic!() };
    let LegAction::Commit(Event::LegsRespread { .. }) = run(&plan, due.plus_ms(4 * HOUR)) else { panic!() };
    let LegAction::Commit(Event::PlanSuperseded { .. }) = run(&plan, due.plus_ms(4 * HOUR + 1)) else { panic!() };
    let end = T0.plus_ms(20 * HOUR);
    let LegAction::Commit(Event::PlanSuperseded { .. }) = run(&plan, end.plus_ms(4 * HOUR)) else { panic!() };
    let LegAction::Commit(Event::PlanExpired { .. }) = run(&plan, end.plus_ms(4 * HOUR + 1)) else { panic!() };
    // Executed late, so the next one keeps its distance.
    executed(&mut plan, 1, due.plus_ms(3 * HOUR));
    let next = T0.plus_ms(8 * HOUR);
    assert_eq!(run(&plan, next), LegAction::Wait(due.plus_ms(5 * HOUR)));
}

#[test]
fn a158_d16_pause_defers_and_resume_decides_by_lateness() {
    let mut plan = plan(6, 4 * HOUR);
    executed(&mut plan, 0, T0);
    let due = T0.plus_ms(4 * HOUR);
    for reason in ["paused", "halted", "degraded"] {
        assert_eq!(
            step(&plan, due.plus_ms(9 * HOUR), &leg_settings(), Gate::Closed(reason)),
            LegAction::Deferred(reason)
        );
    }
    assert_eq!(gate(CoordinatorState::Running, DegradationLevel::Normal), Gate::Open);
    assert_eq!(gate(CoordinatorState::Running, DegradationLevel::Reduced), Gate::Closed("degraded"));
    assert_eq!(gate(CoordinatorState::Paused, DegradationLevel::Normal), Gate::Closed("paused"));
    assert_eq!(gate(CoordinatorState::Halted, DegradationLevel::Normal), Gate::Closed("halted"));

    assert!(matches!(run(&plan, due.plus_ms(20 * MIN)), LegAction::Execute(_)), "20 minutes");
    let now = due.plus_ms(2 * HOUR);
    let LegAction::Commit(event) = run(&plan, now) else { panic!("2 hours") };
    let mut book = Book::usdt(dec!(10_000));
    let before = sum(&plan);
    book.commit(vec![Event::PlanCreated { plan: Box::new(plan.clone()) }]);
    // The stored plan carries its executed legs as they are.
    book.commit(vec![event]);
    let moved = &book.state.plans[&plan.id];
    assert_eq!((sum(moved), moved.legs.len()), (before, 12));
    let dues: Vec<i64> = (1..6).map(|n| moved.legs[2 * n].due_at.since_ms(now) / MIN).collect();
    assert_eq!(dues, [0, 120, 360, 600, 840], "now, then at least 2 h apart, none earlier than planned");
    assert!(matches!(run(moved, now), LegAction::Execute(_)));
    assert!(matches!(run(&plan, due.plus_ms(5 * HOUR)), LegAction::Commit(Event::PlanSuperseded { .. })), "5 hours");
}

#[test]
fn a159_d51_no_burst_after_any_downtime() {
    for seed in 0..300u64 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut book = Book::usdt(dec!(10_000));
        let id = plan(6, 4 * HOUR).id;
        book.commit(vec![Event::PlanCreated { plan: Box::new(plan(6, 4 * HOUR)) }]);
        let mut executions: Vec<Ts> = Vec::new();
        let mut downtimes = 3;
        while book.state.plans[&id].state == PlanState::Active {
            let down = downtimes > 0 && random.next_u64().is_multiple_of(200);
            downtimes -= i64::from(down);
            let hours = if down { 1 + random.next_u64() % 13 } else { 0 };
            book.now = book.now.plus_ms(MIN + hours as i64 * HOUR);
            let current = book.state.plans[&id].clone();
            match run(&current, book.now) {
                LegAction::Execute(keys) => {
                    executions.push(book.now);
                    let late = book.now.since_ms(current.legs.iter().find(|l| l.key == keys[0]).unwrap().due_at);
                    assert!(late <= 1_440_000, "seed {seed}: executed {late} ms late");
                    let plan = book.state.plans.get_mut(&id).unwrap();
                    plan.legs.iter_mut().filter(|l| keys.contains(&l.key)).for_each(|l| l.state = TradeState::Settled);
                    plan.last_executed_at = Some(book.now);
                }
                LegAction::Commit(event) => book.commit(vec![event]),
                LegAction::Complete => book.commit(vec![Event::PlanCompleted { plan: id }]),
                _ => {}
            }
        }
        assert!(executions.windows(2).all(|w| w[1].since_ms(w[0]) >= 2 * HOUR), "seed {seed}: {executions:?}");
        assert!(executions.len() <= 6, "seed {seed}");
    }
}

#[test]
fn d19_one_active_plan_and_d50_all_legs_in_one_event() {
    let mut book = Book::usdt(dec!(10_000));
    book.commit(vec![Event::PlanCreated { plan: Box::new(plan(6, 4 * HOUR)) }]);
    assert!(plan(6, 4 * HOUR).legs.iter().all(|leg| book.trade_state(leg.key) == TradeState::Planned));
    let second = Plan { id: Uuid::from_u128(43), ..plan(1, HOUR) };
    assert!(book.try_commit(vec![Event::PlanCreated { plan: Box::new(second) }]).unwrap_err().contains("active"));
}

#[test]
fn sells_come_before_buys_of_the_batch() {
    let mut plan = plan(1, 4 * HOUR);
    plan.legs[1].side = Side::Sell;
    let (buy, sell) = (plan.legs[0].key, plan.legs[1].key);
    assert_eq!(run(&plan, T0), LegAction::Execute(vec![sell]));
    for state in [TradeState::Intent, TradeState::Submitting, TradeState::NotExecuted] {
        plan.legs[1].state = state;
        assert_eq!(run(&plan, T0), LegAction::Nothing(None), "{state:?}");
    }
    for state in [TradeState::Settled, TradeState::Rejected] {
        plan.legs[1].state = state;
        plan.last_executed_at = Some(T0);
        assert_eq!(run(&plan, T0), LegAction::Execute(vec![buy]), "{state:?}");
    }
    plan.legs[0].state = TradeState::Rejected;
    assert_eq!(run(&plan, T0), LegAction::Complete);
}

#[test]
fn policies_skip_and_ask_operator() {
    let mut plan = plan(6, 4 * HOUR);
    executed(&mut plan, 0, T0);
    let now = T0.plus_ms(6 * HOUR);
    let skip = LegSettings { late_policy: LatePolicy::Skip, ..leg_settings() };
    let LegAction::Commit(Event::LegsCancelled { legs, .. }) = step(&plan, now, &skip, Gate::Open) else { panic!() };
    assert_eq!(legs, [plan.legs[2].key, plan.legs[3].key]);
    let ask = LegSettings { late_policy: LatePolicy::AskOperator, ..leg_settings() };
    assert_eq!(step(&plan, now, &ask, Gate::Open), LegAction::AskOperator(plan.legs[2].key));
    let expired = step(&plan, T0.plus_ms(24 * HOUR + 1), &ask, Gate::Open);
    assert!(matches!(expired, LegAction::Commit(Event::PlanExpired { .. })));
}

#[test]
fn cancelling_pending_legs_ends_the_plan_when_none_is_left() {
    let mut book = Book::usdt(dec!(10_000));
    let plan = plan(2, 4 * HOUR);
    book.commit(vec![Event::PlanCreated { plan: Box::new(plan.clone()) }]);
    let keys: Vec<TradeKey> = plan.legs.iter().map(|leg| leg.key).collect();
    let events = cancel(&book.state.plans[&plan.id], &keys[..1], "operator").unwrap();
    book.commit(events);
    assert!(cancel(&book.state.plans[&plan.id], &keys[..1], "operator").is_err());
    let events = cancel(&book.state.plans[&plan.id], &keys[1..], "operator").unwrap();
    book.commit(events);
    assert_eq!(book.state.plans[&plan.id].state, PlanState::Cancelled);
    assert_eq!(book.trade_state(keys[3]), TradeState::Cancelled);
    assert_eq!(run(&book.state.plans[&plan.id], T0), LegAction::Nothing(None));
}
