//! Tests of the emergency rules of `coordinator`, by the ids of the acceptance scenarios they hold.

use super::*;
use crate::{
    model::{CoordinatorState, TradeState, state::TradeStub},
    risk::{
        fixtures::{apply, dec, emergency, position, symbols},
        rules::action_for,
    },
};

const NOW: Ts = Ts(1_000_000);

fn latch(breaker: BreakerKind) -> Latch {
    Latch { breaker, period: "7".into(), measured: dec("20"), limit: dec("20"), at: NOW }
}

fn two_longs() -> State {
    let mut state = State::default();
    for held in [position(1, "BTC/USDT", "0.8", "40000"), position(2, "XRP/USDT", "1000", "500")] {
        state.positions.insert(held.id, held);
    }
    state
}

fn trigger(state: &mut State, kind: BreakerKind) -> Vec<Event> {
    let settings = emergency();
    let action = action_for(kind, settings.breach.get(&kind));
    let events = start(state, &latch(kind), action, &symbols(), &settings, NOW);
    apply(state, NOW, &events);
    events
}

fn steps(state: &State, now: Ts) -> Vec<EmergencyOrder> {
    next_steps(state, &symbols(), &emergency(), now)
}

/// Carries out every reduction fully.
fn trade(state: &mut State, orders: &[EmergencyOrder]) {
    for order in orders {
        let EmergencyOrder::Reduce(order) = order else { continue };
        let held = state.positions.get_mut(&order.position).unwrap();
        held.quantity -= order.quantity;
        if held.quantity.is_zero() {
            state.positions.remove(&order.position);
        }
    }
}

fn finish_all(state: &mut State, orders: &[EmergencyOrder]) {
    for order in orders {
        if let EmergencyOrder::Finish { events, .. } = order {
            apply(state, NOW, events);
        }
    }
}

#[test]
fn a105_d27_a_halt_is_durable_first_then_every_position_is_closed() {
    let mut state = two_longs();
    let events = trigger(&mut state, BreakerKind::MaxDrawdown);
    assert!(matches!(events[0], Event::StateChanged { to: CoordinatorState::Halted, .. }));
    assert!(matches!(events[1], Event::EmergencyStarted { .. }));
    let orders = steps(&state, NOW);
    let sizes: Vec<_> = orders
        .iter()
        .map(|order| match order {
            EmergencyOrder::Reduce(order) => (order.side, order.quantity),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [(Side::Sell, dec("0.8")), (Side::Sell, dec("1000"))]);
    trade(&mut state, &orders);
    let orders = steps(&state, NOW);
    let EmergencyOrder::Finish { events, .. } = &orders[0] else { panic!("{orders:?}") };
    let Event::EmergencyDone { results, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!(results.values().collect::<Vec<_>>(), ["closed", "closed"]);
    finish_all(&mut state, &orders);
    assert!(steps(&state, NOW).is_empty());
}

#[test]
fn a106_a_failed_close_is_tried_again_at_5_and_10_seconds() {
    let mut state = two_longs();
    state.positions.remove(&PositionId(2));
    trigger(&mut state, BreakerKind::MaxDrawdown);
    let mut now = NOW;
    let mut legs = Vec::new();
    for wait in [5_000, 10_000] {
        let orders = steps(&state, now);
        let EmergencyOrder::Reduce(order) = &orders[0] else { panic!("{orders:?}") };
        legs.push(order.leg.clone());
        let failed = record_step(&state, &order.emergency, order.position, Err("venue"), &emergency(), now);
        let Event::EmergencyStep { result, .. } = &failed else { panic!("{failed:?}") };
        assert_eq!(*result, format!("failed: venue (attempt {})", legs.len()));
        apply(&mut state, now, &[failed]);
        assert!(steps(&state, now.plus_ms(wait - 1)).is_empty());
        now = now.plus_ms(wait);
    }
    assert_eq!(steps(&state, now).len(), 1);
    assert_eq!(legs, ["P1", "P1:1"]);
    let waits: Vec<i64> = (0..6).map(|n| backoff_ms(n, &emergency())).collect();
    assert_eq!(waits, [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
}

#[test]
fn a107_d28_f15_a_reduction_reaches_its_targets_once_and_then_pauses() {
    let mut state = two_longs();
    trigger(&mut state, BreakerKind::WeeklyLoss);
    assert_eq!(state.coordinator.state, CoordinatorState::Running, "paused afterwards");
    let orders = steps(&state, NOW);
    trade(&mut state, &orders[..1]);
    let held = &state.emergencies.values().next().unwrap().targets;
    assert_eq!(held.values().copied().collect::<Vec<_>>(), [dec("0.4"), dec("500")]);
    let orders = steps(&state, NOW);
    assert_eq!(orders.len(), 1, "a crash in between repeats nothing");
    trade(&mut state, &orders);
    let orders = steps(&state, NOW);
    finish_all(&mut state, &orders);
    assert_eq!(state.coordinator.state, CoordinatorState::Paused);
    assert!(state.coordinator.pause_reasons.contains("breaker:weekly_loss"));
    for _ in 0..5 {
        assert!(trigger(&mut state, BreakerKind::WeeklyLoss).is_empty());
        assert!(steps(&state, NOW).is_empty());
    }
    assert_eq!(state.positions[&PositionId(1)].quantity, dec("0.4"));
}

/// A quantity that cannot be halved in whole steps: the stored target is what is left when the trade is done.
#[test]
fn k30_the_target_of_a_reduction_is_reached_to_the_last_unit() {
    let mut state = State::default();
    for held in [position(1, "BTC/USDT", "0.80000001", "40000"), position(2, "XRP/USDT", "1001", "500")] {
        state.positions.insert(held.id, held);
    }
    trigger(&mut state, BreakerKind::WeeklyLoss);
    let orders = steps(&state, NOW);
    trade(&mut state, &orders);
    let reached: BTreeMap<PositionId, Qty> = state.positions.values().map(|held| (held.id, held.quantity)).collect();
    assert_eq!(reached, state.emergencies.values().next().unwrap().targets);
    assert_eq!(reached[&PositionId(2)], dec("501"), "500 of 1001 can be sold");
}

#[test]
fn a097_a108_a_daily_loss_pauses_and_never_lowers_a_halt() {
    let mut state = two_longs();
    trigger(&mut state, BreakerKind::DailyLoss);
    assert_eq!(state.coordinator.state, CoordinatorState::Paused);
    assert!(steps(&state, NOW).is_empty());

    let mut halted = two_longs();
    let event = states::halt(&halted.coordinator, "operator", "ann", NOW);
    apply(&mut halted, NOW, &[event]);
    trigger(&mut halted, BreakerKind::DailyLoss);
    assert_eq!(halted.coordinator.state, CoordinatorState::Halted);
    assert!(halted.coordinator.pause_reasons.contains("breaker:daily_loss"));
}

#[test]
fn a_step_that_was_traded_but_not_recorded_gets_a_new_key() {
    let mut state = two_longs();
    trigger(&mut state, BreakerKind::MaxDrawdown);
    let orders = steps(&state, NOW);
    let EmergencyOrder::Reduce(first) = &orders[0] else { panic!("{orders:?}") };
    let key =
        TradeKey::derive(state.meta.store, TradeKind::Emergency, &first.plan, &first.leg, first.symbol, first.side);
    state.trade_index.insert(key, TradeStub { body_hash: 0, state: TradeState::Rejected });
    let orders = steps(&state, NOW);
    let EmergencyOrder::Reduce(second) = &orders[0] else { panic!("{orders:?}") };
    assert_eq!(second.leg, "P1:1");
}

#[test]
fn a_position_under_exit_waits_and_dust_counts_as_reached() {
    let mut state = two_longs();
    trigger(&mut state, BreakerKind::MaxDrawdown);
    state.positions.get_mut(&PositionId(1)).unwrap().exiting = Some(TradeKey([1; 32]));
    state.positions.get_mut(&PositionId(2)).unwrap().quantity = dec("9");
    assert!(steps(&state, NOW).is_empty());
    state.positions.remove(&PositionId(1));
    let orders = steps(&state, NOW);
    let EmergencyOrder::Finish { events, .. } = &orders[0] else { panic!("{orders:?}") };
    let Event::EmergencyDone { results, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!(results["P2"], "9 left");
}

#[test]
fn close_all_runs_once_per_command() {
    let mut state = two_longs();
    let events = start_close_all(&state, &symbols(), "cmd-1", NOW);
    apply(&mut state, NOW, &events);
    assert!(start_close_all(&state, &symbols(), "cmd-1", NOW).is_empty());
    let orders = steps(&state, NOW);
    assert_eq!(orders.len(), 2);
    trade(&mut state, &orders);
    let orders = steps(&state, NOW);
    finish_all(&mut state, &orders);
    assert_eq!(state.coordinator.state, CoordinatorState::Running);
    // A key is remembered for a day; the same word afterwards is another command.
    for number in [2, 3] {
        let events = start_close_all(&state, &symbols(), "cmd-1", NOW);
        let Some(Event::EmergencyStarted { emergency }) = events.first() else { panic!("{events:?}") };
        assert_eq!(emergency.key.period, format!("cmd-1#{number}"));
        apply(&mut state, NOW, &events);
        let orders = steps(&state, NOW);
        finish_all(&mut state, &orders);
    }
}

#[test]
fn an_emergency_that_started_cannot_start_again() {
    let mut state = two_longs();
    let events = trigger(&mut state, BreakerKind::MaxDrawdown);
    let event = events.into_iter().find(|event| matches!(event, Event::EmergencyStarted { .. })).unwrap();
    let again = crate::model::Record {
        v: 1,
        seq: state.meta.seq + 1,
        epoch: state.meta.epoch,
        ts: NOW,
        n: None,
        actor: "test".into(),
        corr: String::new(),
        cause: String::new(),
        event,
    };
    assert!(state.apply(&again).unwrap_err().why.contains("started already"));
}
