//! Tests of the states rules of `coordinator`, by the ids of the acceptance scenarios they hold.

use super::*;
use crate::{
    model::{Decimal, State},
    risk::fixtures::apply,
};

const NOW: Ts = Ts(1_000);

fn go(state: &mut State, events: Vec<Event>) {
    apply(state, NOW, &events);
    let view = &state.coordinator;
    assert_eq!(view.halt.is_some(), view.state == CoordinatorState::Halted);
    if view.state != CoordinatorState::Halted {
        assert_eq!(view.pause_reasons.is_empty(), view.state == CoordinatorState::Running, "{view:?}");
    }
}

fn halted() -> State {
    let mut state = State::default();
    let event = halt(&state.coordinator, "max_drawdown", "risk", NOW);
    go(&mut state, vec![event]);
    state
}

fn id(state: &State) -> String {
    state.coordinator.halt.as_ref().unwrap().id.clone()
}

fn resumed(state: &State) -> Result<Resumed, StateRefusal> {
    resume(&state.coordinator, &state.risk.latched, true)
}

#[test]
fn a108_a109_d25_a_pause_while_halted_only_adds_its_reason() {
    let mut state = halted();
    for reason in [OPERATOR, "breaker:daily_loss"] {
        let events = pause(&state.coordinator, reason);
        assert_eq!(events, [Event::PauseReasonAdded { reason: reason.into() }]);
        go(&mut state, events);
    }
    assert_eq!(state.coordinator.state, CoordinatorState::Halted);
    assert_eq!(state.coordinator.pause_reasons.len(), 2);
}

#[test]
fn a111_reset_needs_the_current_halt_id() {
    let mut state = halted();
    let first = id(&state);
    assert_eq!(reset(&state.coordinator, "H9-9").unwrap_err().code, "wrong_halt_id");
    assert_eq!(resumed(&state).unwrap_err().code, "halted");
    let event = halt(&state.coordinator, "operator", "ann", NOW);
    go(&mut state, vec![event]);
    assert_ne!(id(&state), first, "a halt that races a reset wins");
    assert_eq!(reset(&state.coordinator, &first).unwrap_err().code, "wrong_halt_id");
    let events = reset(&state.coordinator, &id(&state)).unwrap();
    go(&mut state, events);
    assert_eq!(state.coordinator.state, CoordinatorState::Paused);
    assert_eq!(reset(&state.coordinator, &first).unwrap_err().code, "not_halted");
    let events = resumed(&state).unwrap().events;
    go(&mut state, events);
    assert_eq!(state.coordinator.state, CoordinatorState::Running);
}

#[test]
fn d22_halt_ids_never_repeat() {
    let mut state = halted();
    let mut ids = vec![id(&state)];
    for round in 0..6 {
        if round % 3 == 2 {
            let events = reset(&state.coordinator, &id(&state)).unwrap();
            go(&mut state, events);
        }
        let event = halt(&state.coordinator, "again", "ann", NOW);
        go(&mut state, vec![event]);
        ids.push(id(&state));
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "{ids:?}");
}

#[test]
fn a115_resume_lists_latched_breakers() {
    let mut state = State::default();
    let latch = Latch {
        breaker: BreakerKind::DailyLoss,
        period: "1".into(),
        measured: Decimal::ONE,
        limit: Decimal::ONE,
        at: NOW,
    };
    state.risk.latched.insert(BreakerKind::DailyLoss, latch);
    let events = pause(&state.coordinator, &breaker_reason("daily_loss"));
    go(&mut state, events);
    let answer = resumed(&state).unwrap();
    assert_eq!((answer.state, answer.latched), (CoordinatorState::Running, vec![BreakerKind::DailyLoss]));
    go(&mut state, answer.events);
    assert_eq!(state.coordinator.state, CoordinatorState::Running);
}

#[test]
fn pause_is_idempotent_and_resume_keeps_what_has_not_ended() {
    let mut state = State::default();
    for reason in [OPERATOR, CLOCK, VENUE, DEGRADATION, "boot:crash_loop"] {
        let events = pause(&state.coordinator, reason);
        go(&mut state, events);
        assert!(pause(&state.coordinator, reason).is_empty());
    }
    let answer = resumed(&state).unwrap();
    assert_eq!(answer.state, CoordinatorState::Paused);
    assert_eq!(answer.remaining, [CLOCK, DEGRADATION, VENUE]);
    go(&mut state, answer.events);
    for reason in [CLOCK, VENUE] {
        let events = clear(&state.coordinator, reason);
        go(&mut state, events);
        assert_eq!(state.coordinator.state, CoordinatorState::Paused);
    }
    let events = follow_degradation(&state.coordinator, DegradationLevel::Reduced, true);
    go(&mut state, events);
    assert_eq!(state.coordinator.state, CoordinatorState::Running);
    assert!(resumed(&state).unwrap().events.is_empty());
}

#[test]
fn a123_the_degradation_pause_comes_at_emergency_and_goes_at_reduced() {
    let mut state = State::default();
    let events = follow_degradation(&state.coordinator, DegradationLevel::Emergency, true);
    go(&mut state, events);
    assert!(follow_degradation(&state.coordinator, DegradationLevel::Emergency, true).is_empty());
    assert!(follow_degradation(&state.coordinator, DegradationLevel::Limited, true).is_empty());
    assert!(follow_degradation(&state.coordinator, DegradationLevel::Normal, false).is_empty());
    assert_eq!(state.coordinator.state, CoordinatorState::Paused);
    let events = follow_degradation(&state.coordinator, DegradationLevel::Reduced, true);
    go(&mut state, events);
    assert_eq!(state.coordinator.state, CoordinatorState::Running);
}

#[test]
fn reasons_gathered_while_halted_hold_after_the_reset() {
    let mut state = halted();
    let events = pause(&state.coordinator, DEGRADATION);
    go(&mut state, events);
    let events = clear(&state.coordinator, DEGRADATION);
    go(&mut state, events);
    assert_eq!(state.coordinator.state, CoordinatorState::Halted, "no cause ends a halt");
}
