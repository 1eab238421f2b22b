//! Loss limits and what follows.

use crate::support::*;

/// 5 500 USDT and 0.1 BTC at 45 000: 10 000.
fn with_inventory() -> Setup {
    Setup::new().with(|s| {
        s.account.initial_balances = [("USDT", "5500"), ("BTC", "0.1")].map(|(a, m)| (asset(a), dec(m))).into();
        s.market.max_jump_pct = 200.0; // the falls of these scenarios are believed at once
    })
}

fn trips(world: &World) -> Vec<BreakerKind> {
    world.all(|event| match event {
        Event::BreakerTripped { latch, .. } => Some(latch.breaker),
        _ => None,
    })
}

const TO_MIDNIGHT: i64 = 12 * 3_600 + 120;

#[test]
fn a097_a098_a115_daily_loss_latches_at_its_limit_and_is_armed_again_at_midnight() {
    with_inventory().at(START.plus_ms(11 * 3_600_000)).play(async |world| {
        let midnight = TO_MIDNIGHT - 11 * 3_600;
        world.until(20).await;
        world.tape.set(btc(), 40_000.1);
        world.pass(20).await;
        assert_eq!(trips(world), []);
        world.tape.set(btc(), 40_000.0);
        world.pass(60).await;
        assert_eq!(trips(world), [BreakerKind::DailyLoss]);
        assert_eq!(world.is(), CoordinatorState::Paused);
        assert_eq!(world.reasons(), "breaker:daily_loss");
        let alerts = world.on_bus(Topic::RiskAlerts).await;
        let breaches: Vec<(&str, Priority)> = alerts
            .iter()
            .filter_map(|envelope| match envelope.payload() {
                Payload::RiskAlert(alert) => Some((alert.breach.as_ref(), envelope.priority())),
                _ => None,
            })
            .collect();
        assert_eq!(breaches, [("daily_loss", Priority::Urgent)]);

        world.until(160).await;
        let answer = world.order("r", Command::Resume {}).await;
        assert_eq!(answer["latched_breakers"], serde_json::json!(["daily_loss"]));
        assert_eq!(world.is(), CoordinatorState::Running);
        world.order("p", Command::Pause { reason: String::new() }).await;

        world.until(midnight + 10).await;
        let armed = world.all(|event| match event {
            Event::BreakerRearmed { breaker, .. } => Some(*breaker),
            _ => None,
        });
        assert_eq!(armed, [BreakerKind::DailyLoss], "{}", world.timeline());
        assert!((world.times("BreakerRearmed")[0] - midnight as f64).abs() <= 5.0);
        assert_eq!(world.is(), CoordinatorState::Paused);
        assert_eq!(trips(world).len(), 1);
    });
}

#[test]
fn a115_entries_are_refused_while_a_breaker_is_latched() {
    with_inventory().play(async |world| {
        world.until(20).await;
        world.tape.set(btc(), 40_000.0);
        world.until(60).await;
        world.order("r", Command::Resume {}).await;
        world.wishes.set(xrp(), Wish::buy());
        world.until(150).await;
        let codes = world.all(|event| match event {
            Event::RiskRefused { refusal, .. } => Some(refusal.code),
            _ => None,
        });
        assert_eq!(codes, [RiskCode::TradingHalted], "{}", world.timeline());
    });
}

#[test]
fn a099_a100_max_drawdown_stays_latched_over_midnight_and_reset_rebases_the_peak() {
    with_inventory().at(START.plus_ms(11 * 3_600_000)).play(async |world| {
        world.until(20).await;
        world.tape.set(btc(), 25_000.0);
        world.pass(30).await;
        assert_eq!(world.is(), CoordinatorState::Halted);
        assert!(trips(world).contains(&BreakerKind::MaxDrawdown) && trips(world).contains(&BreakerKind::DailyLoss));
        world.until(TO_MIDNIGHT - 11 * 3_600 + 10).await;
        let latched: Vec<BreakerKind> = world.state().risk.latched.keys().copied().collect();
        assert!(latched.contains(&BreakerKind::MaxDrawdown) && !latched.contains(&BreakerKind::DailyLoss));
        let halt = world.status().await.halt_id.unwrap();
        assert_eq!(world.refusal("x", Command::Reset { halt_id: "H0".into() }).await, "wrong_halt_id");
        world.order("y", Command::Reset { halt_id: halt }).await;
        assert_eq!(world.state().risk.peak, dec("8000"));
        assert_eq!(world.is(), CoordinatorState::Paused);
        world.pass(60).await;
        assert_eq!(trips(world).iter().filter(|kind| **kind == BreakerKind::MaxDrawdown).count(), 1);
        assert!(world.state().risk.latched.keys().all(|kind| *kind != BreakerKind::MaxDrawdown));
    });
}

/// Opens one long in XRP/USDT and one in XRP/BTC.
async fn two_longs(world: &World) {
    for symbol in [xrp(), sym("XRP/BTC")] {
        world.wishes.set(symbol, Wish { size_pct: 5.0, ..Wish::buy() });
    }
    world.until(160).await;
    assert_eq!(world.state().positions.len(), 2, "{}", world.timeline());
}

#[test]
fn a105_max_drawdown_halts_first_and_closes_everything_at_the_market() {
    let setup = with_inventory().with(|s| {
        let breakers = &mut s.risk.breakers;
        (breakers.max_drawdown_pct, breakers.daily_loss_pct, breakers.weekly_loss_pct) =
            (dec("1.2"), dec("50"), dec("50"));
        s.account.initial_balances = [("USDT", "5500"), ("BTC", "0.1")].map(|(a, m)| (asset(a), dec(m))).into();
    });
    setup.play(async |world| {
        for symbol in [btc(), xrp()] {
            let wish = Wish { size_pct: 5.0, stop_pct: 2.9, target_pct: 6.0, ..Wish::buy() };
            world.wishes.set(symbol, wish);
        }
        world.until(160).await;
        let held: Vec<Position> = world.state().positions.values().cloned().collect();
        assert_eq!(held.len(), 2, "{}", world.timeline());
        let before = world.state().account.free(asset("USDT"));
        // 2.6 %: no stop is reached, but 0.1 BTC and a position fell.
        world.tape.set(btc(), 43_830.0);
        world.pass(60).await;
        assert_eq!(world.is(), CoordinatorState::Halted, "{}", world.timeline());
        assert!(world.state().positions.is_empty(), "{}", world.timeline());

        let records = world.records();
        let halted =
            records.iter().position(|r| matches!(&r.event, Event::StateChanged { to: CoordinatorState::Halted, .. }));
        let begun = held.iter().map(|position| {
            let of = |r: &Record| matches!(&r.event, Event::TradeIntent { trade } if trade.body.position == Some(position.id));
            records.iter().position(of)
        });
        assert!(begun.flatten().all(|at| halted.unwrap() < at), "HALTED is durable before an exit is even meant");

        // Both are sold whole, at the market less slippage, and pay the taker's fee.
        let mut proceeds = Decimal::ZERO;
        for position in &held {
            let fills = world.all(|event| match event {
                Event::TradeFill { symbol, side: Side::Sell, quantity, price, fee, .. } if *symbol == position.symbol => {
                    Some((*quantity, *price, *fee))
                }
                _ => None,
            });
            let [(quantity, price, fee)] = fills[..] else { panic!("{fills:?}") };
            assert_eq!(quantity, position.quantity);
            let market = if position.symbol == btc() { dec("43830") } else { dec("0.60") };
            assert!(price < market && price >= market * dec("0.998"), "{price} at {market}");
            assert_eq!(fee, quantity * price * dec("0.0026"));
            proceeds += quantity * price - fee;
        }
        let account = world.state().account.clone();
        let usdt = asset("USDT");
        assert_eq!((account.free(usdt), account.locked(usdt)), (before + proceeds, Decimal::ZERO));
        assert_eq!(account.free(usdt).normalize(), dec("5481.22091528578426"), "the figure of this seed");
        assert_eq!((account.total(asset("XRP")), account.total(asset("BTC")).normalize()), (Decimal::ZERO, dec("0.1")));

        let done: Vec<_> = world.on_bus(Topic::SystemEvents).await;
        let done: Vec<_> = done
            .iter()
            .filter_map(|envelope| match envelope.payload() {
                Payload::System(system) => match &system.record().event {
                    Event::EmergencyDone { results, .. } => Some((envelope.priority(), results.clone())),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        let results = held.iter().map(|position| (position.id.to_string(), "closed".to_owned())).collect();
        assert_eq!(done, [(Priority::Urgent, results)]);
    });
}

#[test]
fn a106_a_close_that_fails_twice_is_tried_again_after_5_and_10_seconds() {
    let setup = with_inventory().with(|s| {
        s.execution.max_attempts_definite = 1;
        s.risk.breakers.weekly_loss_pct = dec("90");
    });
    setup.play(async |world| {
        world.wishes.set(xrp(), Wish { size_pct: 5.0, ..Wish::buy() });
        world.until(160).await;
        assert_eq!(world.state().positions.len(), 1);
        world.faults.set(Some((2, Fault::Definite)));
        world.tape.set(btc(), 22_000.0);
        world.pass(120).await;
        assert!(world.state().positions.is_empty(), "{}", world.timeline());
        let failures = world.times("TradeNotExecuted");
        let fill = world.all(|event| matches!(event, Event::PositionClosed { .. }).then_some(()));
        assert_eq!(fill.len(), 1);
        let closed = world.times("PositionClosed")[0];
        let rejected = world.times("TradeRejected");
        let tries: Vec<f64> = if rejected.is_empty() { failures } else { rejected };
        assert_eq!(tries.len(), 2, "{}", world.timeline());
        let waits = [tries[1] - tries[0], closed - tries[1]];
        assert!(
            (5.0..=6.0).contains(&waits[0]) && (10.0..=11.0).contains(&waits[1]),
            "{waits:?}\n{}",
            world.timeline()
        );
    });
}

#[test]
fn a107_weekly_loss_halves_every_position_once_and_then_pauses() {
    with_inventory().play(async |world| {
        two_longs(world).await;
        let before: Vec<Qty> = world.state().positions.values().map(|p| p.quantity).collect();
        world.tape.set(btc(), 33_000.0);
        world.pass(300).await;
        assert!(trips(world).contains(&BreakerKind::WeeklyLoss), "{}", world.timeline());
        assert!(!trips(world).contains(&BreakerKind::MaxDrawdown));
        let after: Vec<Qty> = world.state().positions.values().map(|p| p.quantity).collect();
        assert_eq!(after.len(), 2);
        for (before, after) in before.iter().zip(&after) {
            let gone = before - after;
            assert!((gone - before / dec("2")).abs() <= Decimal::ONE, "{before} {after}");
        }
        assert!(world.reasons().contains("breaker:weekly_loss"));
        let reduced = world.times("PositionChanged").len();
        world.pass(600).await;
        assert_eq!(world.times("PositionChanged").len(), reduced);
    });
}

#[test]
fn a108_a_daily_loss_while_halted_stays_halted() {
    with_inventory().play(async |world| {
        world.until(20).await;
        world.order("h", Command::Halt { reason: "x".into() }).await;
        let id = world.status().await.halt_id;
        world.tape.set(btc(), 40_000.0);
        world.until(60).await;
        assert_eq!(trips(world), [BreakerKind::DailyLoss]);
        assert_eq!((world.is(), world.status().await.halt_id), (CoordinatorState::Halted, id));
        assert!(world.reasons().contains("breaker:daily_loss"), "{}", world.reasons());
        world.order("p", Command::Pause { reason: String::new() }).await;
        assert_eq!(world.is(), CoordinatorState::Halted, "A109");
    });
}

#[test]
fn a110_a_halt_survives_a_crash_and_stops_still_work() {
    let folder = tempfile::tempdir().unwrap();
    let halted = Setup::new().durable(folder.path()).play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(150).await;
        assert_eq!(world.state().positions.len(), 1);
        world.order("h", Command::Halt { reason: "enough".into() }).await;
        world.state().coordinator.halt.clone().unwrap()
    });
    let later = Setup::new().durable(folder.path()).at(START.plus_ms(600_000));
    later.tape.set(btc(), 43_500.0);
    later.play(async |world| {
        world.until(60).await;
        assert_eq!(world.state().coordinator.halt.as_ref(), Some(&halted));
        assert!(world.state().positions.is_empty(), "{}", world.timeline());
        // The candles of the downtime crossed the stop: the exit was made before anyone could listen.
        assert_eq!(world.state().totals.closed_trades, 1);
        assert!(world.seen.of(TaskName::TradingDecision, btc()).is_empty());
    });
}

#[test]
fn a126_a_stop_is_executed_while_the_level_is_emergency() {
    Setup::new().play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(130).await;
        world.tape.silence(sym("XRP/BTC"));
        world.until(1_500).await;
        assert_eq!(world.status().await.degradation, "EMERGENCY");
        assert_eq!(world.reasons(), "degradation");
        world.tape.set(btc(), 44_090.0);
        world.pass(10).await;
        assert!(world.state().positions.is_empty(), "{}", world.timeline());
    });
}

#[test]
fn k28_a_crash_between_a_tripped_breaker_and_its_action_starts_the_action_once() {
    let folder = tempfile::tempdir().unwrap();
    with_inventory().durable(folder.path()).play(async |world| {
        two_longs(world).await;
    });
    // The breaker trips, and the process is killed before anybody hears of it.
    let later = with_inventory().durable(folder.path()).at(START.plus_ms(200_000));
    let latch = Latch {
        breaker: BreakerKind::MaxDrawdown,
        period: "1".into(),
        measured: dec("20.5"),
        limit: dec("20"),
        at: START.plus_ms(199_000),
    };
    later.commit(vec![Event::BreakerTripped { latch, action: EmergencyAction::HaltAll }]);
    for life in 0..2 {
        with_inventory().durable(folder.path()).at(START.plus_ms(260_000 + life * 100_000)).play(async |world| {
            world.until(30).await;
            assert_eq!(world.is(), CoordinatorState::Halted, "{}", world.timeline());
            let state = world.state();
            assert!(state.positions.is_empty(), "{}", world.timeline());
            assert_eq!((state.coordinator.halts, state.emergencies.len(), state.totals.closed_trades), (1, 1, 2));
            assert_eq!(trips(world), [], "it is latched");
        });
    }
}
