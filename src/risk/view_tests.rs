//! Tests of the view rules of `risk`, by the ids of the acceptance scenarios they hold.

use super::*;
use crate::{
    model::*,
    risk::fixtures::{self, apply, dec, key, position, sym, usdt},
};

fn prices() -> PriceBook {
    let mut book = PriceBook::new(usdt());
    book.set(sym("BTC/USDT"), dec("50000"), Ts(1_000));
    book.set(sym("XRP/USDT"), dec("0.5"), Ts(2_000));
    book
}

fn funded() -> State {
    let mut state = State::default();
    let deposits = [("USDT", "10000"), ("BTC", "0.1")];
    for (asset, amount) in deposits {
        apply(&mut state, Ts(0), &[Event::Deposit { asset: asset.parse().unwrap(), amount: dec(amount) }]);
    }
    state
}

fn reservation(n: u8, symbol: &str, usd: &str, funds: &str) -> Reservation {
    Reservation { key: key(n), symbol: sym(symbol), notional_usd: dec(usd), funds: dec(funds), leverage: 1 }
}

fn look(state: &State, now: i64) -> RiskView {
    RiskView::from_state(state, &prices(), &fixtures::rules(), Money::ZERO, Ts(now))
}

#[test]
fn d02_r01_equity_comes_from_balances_and_is_as_old_as_its_oldest_price() {
    let view = look(&funded(), 3_000);
    assert_eq!((view.equity, view.equity_at), (dec("15000.0"), Some(Ts(1_000))));
}

#[test]
fn a101_an_asset_without_a_price_leaves_no_account_view() {
    let mut state = funded();
    apply(&mut state, Ts(0), &[Event::Deposit { asset: "ETH".parse().unwrap(), amount: dec("1") }]);
    assert_eq!(look(&state, 3_000).equity_at, None);
}

#[test]
fn r02_r03_inventory_is_equity_but_no_exposure_and_positions_own_their_base() {
    let mut state = funded();
    state.positions.insert(PositionId(1), position(1, "BTC/USDT", "0.04", "1900"));
    let view = look(&state, 3_000);
    assert_eq!(view.held.len(), 1);
    assert_eq!(view.held[0].notional_usd, dec("2000"));
    assert_eq!(view.free_of("BTC".parse().unwrap()), dec("0.06"), "only inventory may fund XRP/BTC");
}

#[test]
fn an_exit_under_way_has_its_base_in_the_lock_and_takes_it_from_free_once() {
    let mut state = funded();
    state.positions.insert(PositionId(1), position(1, "BTC/USDT", "0.04", "1900"));
    let btc = "BTC".parse().unwrap();
    let mut exit = entry_trade(1, "0.03", "0");
    exit.body.side = Side::Sell;
    exit.body.position = Some(PositionId(1));
    exit.lock = Some(Lock { asset: btc, amount: dec("0.03") });
    apply(&mut state, Ts(0), &[Event::TradeIntent { trade: Box::new(exit) }]);
    assert_eq!(state.account.free(btc), dec("0.07"));
    assert_eq!(look(&state, 3_000).free_of(btc), dec("0.06"), "0.01 of the position is still among the free");
}

#[test]
fn r03_reservations_hold_exposure_funds_and_a_slot_until_released() {
    let mut view = look(&funded(), 3_000);
    let reserved = reservation(1, "BTC/USDT", "2000", "2005.2");
    view.reserve(&reserved);
    view.reserve(&reserved);
    assert_eq!((view.held.len(), view.free_of(usdt())), (1, dec("7994.8")));
    view.release(key(1));
    assert_eq!((view.held.len(), view.free_of(usdt())), (0, dec("10000")));
    view.reserve(&Reservation { leverage: 4, ..reserved });
    assert_eq!((view.held[0].notional_usd, view.held[0].margin_usd), (dec("2000"), dec("500")));
}

#[test]
fn a_stored_reservation_survives_a_restart_and_is_not_counted_twice_once_locked() {
    let mut state = funded();
    let reserved = reservation(1, "BTC/USDT", "2000", "2005.2");
    let approved = Event::RiskApproved {
        decision: DecisionId::default(),
        reservation: reserved,
        notional_usd: dec("2000"),
        notes: vec![],
    };
    apply(&mut state, Ts(0), &[approved]);
    assert_eq!(look(&state, 3_000).free_of(usdt()), dec("7994.8"));
    let trade = entry_trade(1, "0.04", "2005.2");
    apply(&mut state, Ts(0), &[Event::TradeIntent { trade: Box::new(trade) }]);
    assert_eq!(look(&state, 3_000).free_of(usdt()), dec("7994.8"));

    // Half filled: half is a position, half is still reserved, one slot in all.
    let trade = state.trades.get_mut(&key(1)).unwrap();
    trade.state = TradeState::Partial;
    trade.filled = dec("0.02");
    let mut half = position(1, "BTC/USDT", "0.02", "1000");
    half.trades.push(key(1));
    state.positions.insert(half.id, half);
    let view = look(&state, 3_000);
    let exposure: Decimal = view.held.iter().map(|held| held.notional_usd).sum();
    assert_eq!((exposure, view.held.iter().filter(|held| held.slot).count()), (dec("2000"), 1));
}

#[test]
fn a_trade_of_unknown_outcome_blocks_its_symbol() {
    let mut state = funded();
    apply(&mut state, Ts(0), &[Event::TradeIntent { trade: Box::new(entry_trade(1, "0.04", "2005.2")) }]);
    state.trades.get_mut(&key(1)).unwrap().state = TradeState::Unknown;
    assert_eq!(look(&state, 3_000).blocked, [sym("BTC/USDT")]);
}

#[test]
fn drawdown_is_from_the_higher_of_both_peaks_and_total_loss_is_100() {
    let mut view = fixtures::view(Ts(0));
    view.equity = dec("9000");
    assert_eq!(view.drawdown_pct(), dec("10"));
    view.equity = dec("0");
    assert_eq!(view.drawdown_pct(), dec("100"));
}

fn entry_trade(n: u8, quantity: &str, lock: &str) -> Trade {
    Trade {
        key: key(n),
        kind: TradeKind::Decision,
        plan: String::new(),
        leg: "0".into(),
        decision: None,
        body: OrderBody {
            symbol: sym("BTC/USDT"),
            side: Side::Buy,
            quantity: dec(quantity),
            order_type: OrderType::Limit { limit: dec("50000") },
            time_in_force: TimeInForce::Gtc,
            stop: None,
            target: None,
            leverage: 1,
            position: None,
            exit_cause: None,
        },
        state: TradeState::Intent,
        lock: Some(Lock { asset: usdt(), amount: dec(lock) }),
        attempt: 0,
        created_at: Ts(0),
        acked_at: None,
        expires_at: None,
        retry_at: None,
        filled: Decimal::ZERO,
        filled_value: Decimal::ZERO,
        fees: Decimal::ZERO,
        fills: 0,
        remote: None,
        resolution: None,
    }
}

#[test]
fn the_margin_of_a_position_is_its_notional_over_its_leverage() {
    let mut state = funded();
    let held = Position { leverage: 2, ..position(1, "BTC/USDT", "0.1", "5000") };
    state.positions.insert(held.id, held);
    let view = look(&state, 3_000);
    assert_eq!((view.held[0].notional_usd, view.held[0].margin_usd), (dec("5000.0"), dec("2500.0")));
}

#[test]
fn the_larger_peak_and_a_latched_breaker_reach_the_view() {
    let mut state = funded();
    state.risk.peak = dec("20000");
    for (running, expected) in [("10000", "20000"), ("30000", "30000")] {
        let view = RiskView::from_state(&state, &prices(), &fixtures::rules(), dec(running), Ts(3_000));
        assert_eq!((view.peak, view.halting), (dec(expected), None));
    }
    let kind = BreakerKind::MaxDrawdown;
    let latch = Latch { breaker: kind, period: "1".into(), measured: dec("11"), limit: dec("10"), at: Ts(1) };
    state.risk.latched.insert(kind, latch);
    assert_eq!(look(&state, 3_000).halting, Some(kind));
}

#[test]
fn what_the_state_knows_of_waits_and_losses_reaches_the_view() {
    let mut state = funded();
    state.risk.cooldown_until = Ts(9_000);
    state.risk.cooldown_cause = Some(CooldownCause::AfterLoss);
    state.risk.losses = 3;
    let view = look(&state, 3_000);
    assert_eq!((view.cooldown_until, view.cooldown_cause, view.losses), (Ts(9_000), Some(CooldownCause::AfterLoss), 3));
    assert_eq!(view.asset_cooldowns, []);
}

fn plan(n: u128, created_at: Ts, asset: &str) -> Plan {
    let leg = Leg {
        key: key(n as u8),
        batch: 0,
        asset: asset.parse().unwrap(),
        symbol: sym("BTC/USDT"),
        side: Side::Buy,
        amount: dec("100"),
        due_at: created_at,
        state: TradeState::Planned,
    };
    Plan {
        id: uuid::Uuid::from_u128(n),
        created_at,
        spacing_ms: 0,
        legs: vec![leg],
        deviation_pct: Decimal::ZERO,
        state: PlanState::Active,
        ended_at: None,
        last_executed_at: None,
    }
}

#[test]
fn the_assets_of_a_young_plan_wait_half_an_hour_and_the_youngest_plan_counts() {
    let mut state = funded();
    let half_an_hour = 30 * 60_000;
    for (n, created_at) in [(1, 0), (2, 1_000)] {
        state.plans.insert(uuid::Uuid::from_u128(n), plan(n, Ts(created_at), "BTC"));
    }
    let waits = |now| look(&state, now).asset_cooldowns;
    assert_eq!(waits(half_an_hour - 1), [("BTC".parse().unwrap(), Ts(half_an_hour + 1_000))]);
    assert_eq!(waits(half_an_hour + 999).len(), 1);
    assert_eq!(waits(half_an_hour + 1_000), []);
}

#[test]
fn equity_counts_what_is_locked_and_the_gain_of_positions_only_with_margin() {
    let mut state = funded();
    apply(&mut state, Ts(0), &[Event::TradeIntent { trade: Box::new(entry_trade(1, "0.04", "2005.2")) }]);
    state.positions.insert(PositionId(1), position(1, "BTC/USDT", "0.04", "1900"));
    assert_eq!(look(&state, 3_000).equity, dec("15000"), "spot: the base is among the balances");
    let margin = RiskView::from_state(&state, &prices(), &fixtures::margin_rules(), Money::ZERO, Ts(3_000));
    assert_eq!(margin.equity, dec("15100"));
}

#[test]
fn a_partly_filled_trade_of_unknown_fate_holds_its_whole_reservation() {
    let mut state = funded();
    let approved = Event::RiskApproved {
        decision: DecisionId::default(),
        reservation: reservation(1, "BTC/USDT", "2000", "2005.2"),
        notional_usd: dec("2000"),
        notes: vec![],
    };
    apply(&mut state, Ts(0), &[approved, Event::TradeIntent { trade: Box::new(entry_trade(1, "0.04", "2005.2")) }]);
    let trade = state.trades.get_mut(&key(1)).unwrap();
    trade.filled = dec("0.02");
    for (fate, held) in [(TradeState::Unknown, "2000"), (TradeState::Partial, "1000")] {
        state.trades.get_mut(&key(1)).unwrap().state = fate;
        assert_eq!(look(&state, 3_000).held[0].notional_usd, dec(held), "{fate:?}");
    }
}

#[test]
fn a_losing_streak_latches_and_refuses_no_entry() {
    for kind in [BreakerKind::DailyLoss, BreakerKind::WeeklyLoss, BreakerKind::MaxDrawdown] {
        assert!(refuses_entries(kind), "{kind}");
    }
    assert!(!refuses_entries(BreakerKind::ConsecutiveLosses));
}
