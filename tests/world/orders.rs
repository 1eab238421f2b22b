//! Orders at the paper venue, and operator commands.

use crate::support::*;

fn closes(world: &World) -> Vec<ClosedPosition> {
    world.all(|event| match event {
        Event::PositionClosed { closed } => Some((**closed).clone()),
        _ => None,
    })
}

fn resting(world: &World) -> Option<Trade> {
    world.state().trades.values().find(|trade| trade.state == TradeState::Acked).cloned()
}

fn below() -> Wish {
    Wish { entry_pct: -1.0, ..Wish::buy() }
}

#[test]
fn a182_a_resting_limit_survives_a_restart_and_fills_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let before = Setup::new().durable(folder.path()).play(async |world| {
        world.wishes.set(btc(), below());
        world.until(150).await;
        resting(world).expect("an order rests")
    });
    Setup::new().durable(folder.path()).at(START.plus_ms(400_000)).play(async |world| {
        assert_eq!(world.system.recovered.resting_orders, 1);
        assert_eq!(resting(world).as_ref(), Some(&before));
        world.until(60).await;
        world.tape.set(btc(), 44_500.0);
        world.pass(10).await;
        let fills = world.all(|event| match event {
            Event::TradeFill { trade_key, price, liquidity, .. } => Some((*trade_key, *price, *liquidity)),
            _ => None,
        });
        assert_eq!(fills.len(), 1, "{}", world.timeline());
        assert_eq!((fills[0].0, fills[0].2), (before.key, Liquidity::Maker));
        assert!(fills[0].1 <= dec("44550"));
        assert_eq!(world.state().positions.len(), 1);
    });
}

#[test]
fn a182_a_resting_limit_expires_after_24_hours_and_gives_its_funds_back() {
    let folder = tempfile::tempdir().unwrap();
    Setup::new().durable(folder.path()).play(async |world| {
        world.wishes.set(btc(), below());
        world.until(150).await;
        assert!(resting(world).is_some() && world.state().account.locked(asset("USDT")) > Decimal::ZERO);
    });
    Setup::new().durable(folder.path()).at(START.plus_ms(24 * 3_600_000)).play(async |world| {
        world.until(100).await;
        assert!(resting(world).is_some());
        world.until(135).await;
        assert!(resting(world).is_none(), "{}", world.timeline());
        assert_eq!(world.count("TradeExpired"), 1);
        assert_eq!(world.state().account.locked(asset("USDT")), Decimal::ZERO);
        assert_eq!(world.state().account.free(asset("USDT")), dec("10000"));
    });
}

#[test]
fn a182_halt_cancels_a_resting_entry() {
    Setup::new().play(async |world| {
        world.wishes.set(btc(), below());
        world.until(150).await;
        assert!(resting(world).is_some());
        world.order("h", Command::Halt { reason: String::new() }).await;
        world.pass(2).await;
        assert!(resting(world).is_none());
        assert_eq!(world.count("TradeCancelled"), 1);
        assert_eq!(world.state().account.free(asset("USDT")), dec("10000"));
    });
}

#[test]
fn a183_buying_with_everything_never_goes_below_zero() {
    let setup = Setup::new().with(|s| {
        s.risk.max_position_pct = dec("100");
        s.risk.max_total_exposure_pct = dec("100");
        s.risk.max_correlated_exposure_pct = dec("100");
    });
    setup.play(async |world| {
        world.wishes.set(btc(), Wish { size_pct: 99.5, stop_pct: 1.0, ..Wish::buy() });
        world.wishes.set(xrp(), Wish { size_pct: 99.5, stop_pct: 1.0, ..Wish::buy() });
        world.until(200).await;
        let state = world.state();
        let usdt = asset("USDT");
        assert!(state.account.free(usdt) >= Decimal::ZERO && state.account.locked(usdt) >= Decimal::ZERO);
        assert!(state.account.total(usdt) < dec("1000"), "{}", world.timeline());
        triplegain::execution::ledger::check_conservation(&state).unwrap();
    });
}

#[test]
fn a186_a_candle_that_reaches_stop_and_target_closes_at_the_stop() {
    Setup::new().play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        // The candle the position was opened in says nothing about it.
        world.until(150).await;
        world.tape.spike(btc(), 44_000.0, 47_000.0);
        world.until(250).await;
        let closed = closes(world);
        assert_eq!(closed.len(), 1, "{}", world.timeline());
        assert_eq!(closed[0].cause, ExitCause::Stop);
        assert!(closed[0].exit <= dec("44100"));
    });
}

#[test]
fn a187_a_position_is_closed_after_48_hours() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Setup::new().durable(folder.path()).play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(150).await;
        world.state().positions.values().next().unwrap().opened_at
    });
    Setup::new().durable(folder.path()).at(START.plus_ms(48 * 3_600_000)).play(async |world| {
        world.until(115).await;
        assert_eq!(world.state().positions.len(), 1);
        world.until(140).await;
        let closed = closes(world);
        assert_eq!(closed.len(), 1, "{}", world.timeline());
        assert_eq!(closed[0].cause, ExitCause::Time);
        let late = closed[0].closed_at.since_ms(opened) - 48 * 3_600_000;
        assert!((0..=5_000).contains(&late), "{late} ms");
    });
}

#[test]
fn a188_nothing_to_sell_is_an_event_and_no_order() {
    Setup::new().play(async |world| {
        world.wishes.set(btc(), Wish::new(Action::Sell));
        world.wishes.set(xrp(), Wish::new(Action::CloseShort));
        world.until(150).await;
        let nothing = world.ends().iter().filter(|end| matches!(end, DecisionEnd::NothingToDo(_))).count();
        assert_eq!(nothing, 2, "{}", world.timeline());
        assert_eq!(world.count("TradeIntent"), 0);
    });
}

#[test]
fn a169_a170_commands_are_refused_by_name_and_happen_once() {
    Setup::new().play(async |world| {
        world.until(5).await;
        let wrong = Command::RunTask { task: "ta_analysis".into(), symbol: "BTC/USDT".into() };
        match world.operate("k1", wrong).await {
            Operated::Answered(CommandAnswer::Refused { reason, .. }) => assert!(reason.contains("technical_analysis")),
            other => panic!("{other:?}"),
        }
        let halt = Command::Halt { reason: "once".into() };
        let first = world.operate("k2", halt.clone()).await;
        let seq = world.state().meta.seq;
        assert_eq!(world.operate("k2", halt).await, first);
        assert_eq!((world.state().meta.seq, world.state().coordinator.halts), (seq, 1));
        assert_eq!(world.operate("k2", Command::Resume {}).await, Operated::KeyReused);
    });
}

#[test]
fn a171_a_command_holds_after_a_crash_and_its_key_gets_the_same_answer() {
    let folder = tempfile::tempdir().unwrap();
    let halt = Command::Halt { reason: "crash next".into() };
    let first = Setup::new().durable(folder.path()).play(async |world| world.operate("k", halt.clone()).await);
    Setup::new().durable(folder.path()).at(START.plus_ms(60_000)).play(async |world| {
        assert_eq!(world.is(), CoordinatorState::Halted);
        assert_eq!(world.operate("k", halt.clone()).await, first);
        assert_eq!(world.state().coordinator.halts, 1);
    });
}

/// A script that always sends the same key must not be told of a deed of yesterday while nothing is done.
#[test]
fn a170_a_command_key_is_free_again_after_a_day_and_its_command_is_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    for day in 0..3i64 {
        Setup::new().durable(folder.path()).at(START.plus_ms(day * 25 * 3_600_000)).play(async |world| {
            world.until(130).await;
            world.wishes.set(btc(), Wish::buy());
            let forced = Command::RunTask { task: "trading_decision".into(), symbol: "BTC/USDT".into() };
            world.order("run", forced).await;
            world.pass(10).await;
            assert_eq!(world.count("TradeIntent"), 1, "day {day}: {}", world.timeline());
            assert_eq!(world.state().positions.len(), 1, "day {day}: {}", world.timeline());
            world.order("close", Command::CloseAll { reason: String::new() }).await;
            world.pass(10).await;
            assert!(world.state().positions.is_empty(), "day {day}: {}", world.timeline());
        });
    }
}

/// A fill beyond what was ordered used to end the process, and every start after it.
#[test]
fn c2_f12_an_impossible_fill_waits_for_the_operator_over_restarts_until_it_is_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let key = Setup::new().durable(folder.path()).play(async |world| {
        world.faults.set(Some((1, Fault::TooMuch)));
        world.wishes.set(btc(), Wish::buy());
        world.until(150).await;
        let state = world.state();
        let manual = state.trades.values().find(|trade| trade.state == TradeState::Manual);
        manual.unwrap_or_else(|| panic!("{}", world.timeline())).key
    });
    Setup::new().durable(folder.path()).at(START.plus_ms(400_000)).play(async |world| {
        world.wishes.set(btc(), Wish::buy());
        world.until(1_000).await;
        assert_eq!(world.state().trades[&key].state, TradeState::Manual);
        assert_eq!(world.count("TradeIntent"), 0, "no entry of its symbol: {}", world.timeline());
        let shown = world.status().await.orders.iter().any(|order| order.trade_key == key.to_string());
        assert!(shown, "`status` shows what waits");

        let resolve = |trade: &str, outcome, quantity: Option<&str>, evidence: &str| Command::ResolveManual {
            trade: trade.to_owned(),
            outcome,
            quantity: quantity.map(dec),
            price: quantity.map(|_| dec("40000")),
            fee: None,
            evidence: evidence.to_owned(),
        };
        let named = key.to_string();
        let filled = |quantity| resolve(&named, ManualOutcome::Filled, quantity, "the statement");
        assert_eq!(world.refusal("a", resolve("123456", ManualOutcome::Expired, None, "x")).await, "not_manual");
        assert_eq!(world.refusal("b", resolve(&named, ManualOutcome::Expired, None, " ")).await, "no_evidence");
        assert_eq!(world.refusal("c", filled(None)).await, "incomplete");
        assert_eq!(world.refusal("d", filled(Some("5"))).await, "does_not_fit");
        assert_eq!(world.refusal("e", resolve(&named, ManualOutcome::Expired, Some("1"), "x")).await, "contradiction");
        // Two words at once: one of them counts, and whoever is told so is right.
        let first = resolve(&named[..8], ManualOutcome::Filled, Some("0.001"), "the statement");
        let second = resolve(&named, ManualOutcome::Expired, None, "another statement");
        let (first, second) = futures_util::join!(world.operate("f", first), world.operate("h", second));
        assert!(matches!(first, Operated::Answered(CommandAnswer::Ok { .. })), "{first:?}");
        let Operated::Answered(CommandAnswer::Refused { code, .. }) = second else { panic!("{second:?}") };
        assert_eq!(code, "resolved_already");
        assert_eq!(world.refusal("g", filled(Some("0.001"))).await, "not_manual");
        let state = world.state();
        assert_eq!(state.trade_index[&key].state, TradeState::Expired, "{}", world.timeline());
        assert_eq!(state.positions.values().map(|held| held.quantity).sum::<Decimal>(), dec("0.001"));
        assert_eq!(state.account.locked(asset("USDT")), Decimal::ZERO);
        triplegain::execution::ledger::check_conservation(&state).unwrap();
    });
    let verified = triplegain::cli::journal::verify(folder.path());
    assert_eq!(verified.code, 0, "{}", verified.text);
}

/// The process is suspended for ten minutes; meanwhile the price falls below the stop and comes back.
#[test]
fn a_stop_crossed_while_the_process_stood_still_is_owed_at_the_first_fresh_price() {
    let mut setup = Setup::new();
    setup.wall_jump = Some((170_000, 10 * 60_000));
    setup.play(async |world| {
        world.tape.follow(|symbol, at| match at.since_ms(START) / 1_000 {
            200..=400 if symbol == xrp() => 0.56,
            _ if symbol == xrp() => 0.60,
            _ if symbol == btc() => 45_000.0,
            _ => 0.000_013_33,
        });
        world.wishes.set(xrp(), Wish::buy());
        world.until(160).await;
        let stop = world.state().positions.values().next().unwrap().stop.unwrap();
        assert!(dec("0.57") < stop && stop < dec("0.60"), "{stop}");
        world.until(180 + 600).await;
        let closed = world.all(|event| match event {
            Event::PositionClosed { closed } => Some(closed.clone()),
            _ => None,
        });
        assert_eq!(closed.len(), 1, "{}", world.timeline());
        assert_eq!(closed[0].cause, ExitCause::Stop);
        assert!(closed[0].exit <= stop, "{:?}", closed[0]);
        assert!(world.state().positions.is_empty());
    });
}

/// A position of a symbol that the settings have no more: `close-all` says that it stays open and why, and what was owed
/// is done once when the symbol is back.
#[test]
fn close_all_names_what_it_cannot_close_and_closes_it_once_the_symbol_is_back() {
    for (has_rules, why) in [(false, "market.symbol"), (true, "has no price")] {
        let folder = tempfile::tempdir().unwrap();
        let id = Setup::new().durable(folder.path()).play(async |world| {
            world.wishes.set(xrp(), Wish::buy());
            world.wishes.set(btc(), Wish::buy());
            world.until(150).await;
            let state = world.state();
            state.positions.values().find(|held| held.symbol == xrp()).unwrap().id
        });
        let setup = Setup::new().durable(folder.path()).at(START.plus_ms(400_000)).with(|s| {
            s.symbols.retain(|symbol| *symbol != xrp());
            s.market.symbol.retain(|symbol, _| has_rules || *symbol != xrp());
        });
        setup.play(async |world| {
            world.until(60).await;
            let answer = world.order("c", Command::CloseAll { reason: String::new() }).await;
            assert_eq!(answer["positions_to_close"], 2, "{answer}");
            let stuck = answer["cannot_be_closed_now"].as_object().unwrap();
            assert_eq!(stuck.keys().collect::<Vec<_>>(), [&id.to_string()], "{answer}");
            assert!(stuck[&id.to_string()].as_str().unwrap().contains(why), "{answer}");
            world.until(600).await;
            assert_eq!(world.state().positions.keys().collect::<Vec<_>>(), [&id], "{}", world.timeline());
            assert_eq!(world.is(), CoordinatorState::Running);
        });
        let setup = Setup::new().durable(folder.path()).at(START.plus_ms(1_200_000));
        // Meanwhile its stop is crossed as well.
        setup.tape.follow(|symbol, _| match symbol {
            _ if symbol == xrp() => 0.56,
            _ if symbol == btc() => 45_000.0,
            _ => 0.000_013_33,
        });
        setup.play(async |world| {
            world.until(120).await;
            assert!(world.state().positions.is_empty(), "{}", world.timeline());
            let state = world.state();
            let sold = state.account.total(asset("XRP"));
            assert_eq!(sold, Decimal::ZERO, "sold once: {}", world.timeline());
        });
        let lines = crate::recovery::lines(folder.path());
        let closed = lines.iter().filter(|line| line.contains("\"kind\":\"PositionClosed\"")).count();
        assert_eq!(closed, 2, "{lines:#?}");
    }
}
