//! Tests of the cooldown rules of `risk`, by the ids of the acceptance scenarios they hold.

use super::*;
use crate::{
    model::State,
    risk::{
        AccountMode,
        fixtures::{self, apply, dec, rules, sym},
    },
};

const START: Ts = Ts(1_700_000_000_000);

fn close(state: &mut State, net: &str, at: Ts) -> Vec<Event> {
    let events = on_close(&state.risk, &rules(), dec(net), at);
    apply(state, at, &events);
    events
}

#[test]
fn a096_r08_a_win_does_not_shorten_the_cooldown_of_five_losses() {
    let mut state = State::default();
    for _ in 0..5 {
        close(&mut state, "-1", START);
    }
    assert_eq!(state.risk.cooldown_until, START.plus_ms(60 * MINUTE_MS));
    let events = close(&mut state, "1", START.plus_ms(10 * MINUTE_MS));
    assert!(!events.iter().any(|event| matches!(event, Event::CooldownSet { .. })), "{events:?}");
    assert_eq!(state.risk.cooldown_until, START.plus_ms(60 * MINUTE_MS));
}

#[test]
fn a104_a_flat_close_changes_no_streak() {
    let mut state = State::default();
    close(&mut state, "-1", START);
    assert!(close(&mut state, "0", START).is_empty());
    assert_eq!(state.risk.losses, 1);
}

#[test]
fn five_losses_latch_once_and_a_win_rearms() {
    let mut state = State::default();
    let mut trips = 0;
    for _ in 0..7 {
        let events = close(&mut state, "-1", START);
        trips += events.iter().filter(|event| matches!(event, Event::BreakerTripped { .. })).count();
    }
    assert_eq!(trips, 1);
    assert_eq!(state.risk.latched[&BreakerKind::ConsecutiveLosses].period, "1");
    close(&mut state, "1", START);
    assert!(state.risk.latched.is_empty());
    assert_eq!((state.risk.losses, state.risk.wins), (0, 1));
}

#[test]
fn cooldowns_grow_with_the_streak() {
    let mut state = State::default();
    for minutes in [10, 10, 30, 30, 60] {
        close(&mut state, "-1", START);
        assert_eq!(state.risk.cooldown_until, START.plus_ms(minutes * MINUTE_MS));
    }
}

#[test]
fn a116_d55_three_order_errors_start_a_cooldown_and_one_alert() {
    let mut state = State::default();
    let mut noted = Vec::new();
    for _ in 0..3 {
        let events = on_order_error(&state.risk, &rules(), "connection refused", START);
        noted.extend(events.iter().filter_map(|event| match event {
            Event::Noted { what, .. } => Some(what.clone()),
            _ => None,
        }));
        apply(&mut state, START, &events);
    }
    assert_eq!(noted, ["order_error", "order_error", "order_error", "order_errors_alert"]);
    assert_eq!(state.risk.cooldown_until, START.plus_ms(15 * MINUTE_MS));
    let success = on_order_success(&state.risk).unwrap();
    apply(&mut state, START, &[success]);
    assert_eq!((state.risk.order_errors, on_order_success(&state.risk)), (0, None));
}

#[test]
fn an_unusual_move_is_more_than_3_percent_within_5_minutes_and_fires_once() {
    let mut watch = MoveWatch::default();
    let mut see = |price: &str, minute: i64| {
        let at = START.plus_ms(minute * MINUTE_MS);
        watch.observe(&RiskState::default(), &rules(), sym("BTC/USDT"), dec(price), at)
    };
    assert_eq!(see("100", 0), None);
    assert_eq!(see("103", 4), None, "exactly 3 % is usual");
    let until = START.plus_ms(15 * MINUTE_MS);
    assert_eq!(see("103.01", 5), Some(Event::CooldownSet { until, cause: CooldownCause::UnusualMove }));
    assert_eq!(see("110", 6), None, "once per window");
    assert_eq!(see("103.5", 30), None, "the old low is outside the window");
}

#[test]
fn a_fall_is_unusual_too() {
    let mut watch = MoveWatch::default();
    let symbol = sym("BTC/USDT");
    assert_eq!(watch.observe(&RiskState::default(), &rules(), symbol, dec("100"), START), None);
    assert!(watch.observe(&RiskState::default(), &rules(), symbol, dec("96.99"), START.plus_ms(1)).is_some());
}

#[test]
fn restricted_hours_may_cross_midnight() {
    let mut settings = fixtures::risk();
    settings.restricted_hours = vec!["22:00-02:00".into()];
    let rules = fixtures::rules_for(&settings, AccountMode::Spot);
    let at = |text: &str| Ts::parse(text).unwrap();
    for (now, end) in [
        ("2026-01-01T21:59", None),
        ("2026-01-01T22:00", Some("2026-01-02T02:00")),
        ("2026-01-02T01:59", Some("2026-01-02T02:00")),
        ("2026-01-02T02:00", None),
    ] {
        assert_eq!(restricted_until(&rules, at(now)), end.map(at), "{now}");
    }
}

#[test]
fn a_volatility_spike_waits_15_minutes_and_never_shortens_a_longer_wait() {
    let mut state = State::default();
    let until = START.plus_ms(15 * MINUTE_MS);
    let event = cooldown(&state.risk, &rules(), CooldownCause::VolatilitySpike, START).unwrap();
    assert_eq!(event, Event::CooldownSet { until, cause: CooldownCause::VolatilitySpike });
    state.risk.cooldown_until = until;
    assert_eq!(cooldown(&state.risk, &rules(), CooldownCause::VolatilitySpike, START), None);
}
