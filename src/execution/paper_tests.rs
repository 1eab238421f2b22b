//! Tests of the paper rules of `execution`, by the ids of the acceptance scenarios they hold.

use super::{super::testkit::*, *};
use crate::{
    execution::{ledger, settle, venue::Venue},
    model::{Event, OrderBody},
    settings::EntryOrderType,
};

fn resting_buy(limit: Decimal) -> (Book, crate::model::TradeKey) {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), limit * dec!(0.03), limit);
    let key = book.submit(&order);
    book.now = book.now.plus_ms(100);
    let above = tick(btc(), limit + dec!(10), book.now);
    book.venue(key, &above);
    assert_eq!(book.trade_state(key), TradeState::Acked);
    (book, key)
}

#[test]
fn a178_market_buy_slips_against_the_trader() {
    let rules = rules()[&btc()];
    assert_eq!(slipped(dec!(40_000), Side::Buy, dec!(0.1), dec!(0.8), &rules), Some(dec!(40_032.00)));
    assert_eq!(slipped(dec!(40_000), Side::Sell, dec!(0.1), dec!(0.8), &rules), Some(dec!(39_968.00)));
    // Rounding is against the trader too.
    assert_eq!(slipped(dec!(0.03), Side::Buy, dec!(0.1), dec!(0.5), &rules), Some(dec!(0.04)));
    assert_eq!(slipped(dec!(0.03), Side::Sell, dec!(0.1), dec!(0.5), &rules), Some(dec!(0.02)));
    assert_eq!(slipped(dec!(0.009), Side::Sell, dec!(0.1), dec!(0.5), &rules), None);
}

#[test]
fn draws_are_a_function_of_key_and_fill() {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let key = book.submit(&order);
    let trade = book.state.trades[&key].clone();
    assert_eq!(draws(&trade), draws(&trade.clone()));
    let next = Trade { fills: 1, ..trade.clone() };
    assert_ne!(draws(&trade), draws(&next));
    for seed in 0..1000u32 {
        let other = Trade { fills: seed, ..trade.clone() };
        let (u, chance, fraction) = draws(&other);
        assert!(u >= dec!(0.5) && u < Decimal::ONE, "{u}");
        assert!((0.0..1.0).contains(&chance) && (0.0..1.0).contains(&fraction));
    }
    // Same key, other attempt: the identical fill.
    let again = Trade { attempt: 3, ..trade.clone() };
    let price = tick(btc(), dec!(39_000), T0.plus_ms(200));
    let mut venue = venue(&execution());
    let now = T0.plus_ms(200);
    assert_eq!(venue.execute(&trade, Some(&price), now), venue.execute(&again, Some(&price), now));
}

#[test]
fn a180_resting_buy_pays_the_maker_fee() {
    let (mut book, key) = resting_buy(dec!(40_000));
    book.now = book.now.plus_ms(1_000);
    // At the limit is not through it.
    let at = tick(btc(), dec!(40_000), book.now);
    assert!(book.venue(key, &at).is_empty());
    let through = tick(btc(), dec!(39_999.99), book.now);
    let events = book.venue(key, &through);
    let Event::TradeFill { price, fee, liquidity, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!((*price, *fee, *liquidity), (dec!(40_000), dec!(1.92), Liquidity::Maker));
    assert_eq!(book.free("USDT"), dec!(8798.08));
    assert_eq!(book.locked("USDT"), Decimal::ZERO);
}

#[test]
fn a181_limit_sell_never_below_its_limit() {
    let context_execution = execution();
    let rules = rules()[&btc()];
    let context = PaperContext { execution: &context_execution, rules: &rules, feed: "test", price_max_age_ms: 60_000 };
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let key = book.submit(&order);
    let template = book.state.trades[&key].clone();
    let now = T0.plus_ms(200);
    for fills in 0..200 {
        let body = OrderBody { side: Side::Sell, ..template.body.clone() };
        let sell = Trade { body, fills, ..template.clone() };
        let market = dec!(40_500);
        let VenueAnswer::Filled(fill) = execute(&sell, Some(&tick(btc(), market, now)), now, &context) else {
            panic!()
        };
        assert!(fill.price < market && fill.price >= dec!(40_459.5), "{}", fill.price);
        // Slippage below the limit is not passed on.
        let VenueAnswer::Filled(fill) = execute(&sell, Some(&tick(btc(), dec!(40_001), now)), now, &context) else {
            panic!()
        };
        assert_eq!(fill.price, dec!(40_000));
        assert_eq!(fill.liquidity, Liquidity::Taker);
    }
}

#[test]
fn a182_resting_limit_lives_crosses_expires_and_cancels() {
    let (mut book, key) = resting_buy(dec!(40_000));
    // Restart: the state alone carries the order.
    let text = serde_json::to_string(&book.state).unwrap();
    book.state = serde_json::from_str(&text).unwrap();
    let (mut filled, filled_key) = resting_buy(dec!(40_000));
    filled.state = book.state.clone();
    filled.now = book.now.plus_ms(60_000);
    let through = tick(btc(), dec!(39_000), filled.now);
    filled.venue(filled_key, &through);
    assert_eq!(filled.trade_state(filled_key), TradeState::Settled);

    let trade = book.state.trades[&key].clone();
    let day = T0.plus_ms(24 * HOUR_MS);
    assert_eq!(trade.expires_at, Some(day));
    assert_eq!(settle::expired(&trade, day.plus_ms(-1)), None);
    book.now = day;
    let event = settle::expired(&trade, day).unwrap();
    let mut expired = Book { state: book.state.clone(), ..Book::usdt(dec!(1)) };
    expired.commit(vec![event]);
    assert_eq!((expired.trade_state(key), expired.free("USDT")), (TradeState::Expired, dec!(10_000)));

    book.commit(vec![Event::TradeCancelled { trade_key: key, reason: "operator".into() }]);
    assert_eq!((book.trade_state(key), book.free("USDT")), (TradeState::Cancelled, dec!(10_000)));
}

#[test]
fn e08_an_order_is_not_forgotten_before_its_end() {
    let (mut book, key) = resting_buy(dec!(40_000));
    book.now = T0.plus_ms(23 * HOUR_MS);
    let through = tick(btc(), dec!(39_000), book.now);
    book.venue(key, &through);
    assert_eq!(book.trade_state(key), TradeState::Settled);
}

#[test]
fn e03_candles_fill_only_what_rested_when_they_began() {
    let (book, key) = resting_buy(dec!(40_000));
    let trade = &book.state.trades[&key];
    let prices = [dec!(40_010), dec!(40_020), dec!(39_900), dec!(40_010)];
    // Began before the order rested: its low may be older than the order.
    assert!(!crossed(trade, &candle(btc(), prices, T0.plus_ms(60_000))));
    assert!(crossed(trade, &candle(btc(), prices, T0.plus_ms(120_000))));
    // The closing price itself counts at once.
    let closes_below = [dec!(40_010), dec!(40_020), dec!(39_900), dec!(39_950)];
    assert!(crossed(trade, &candle(btc(), closes_below, T0.plus_ms(60_000))));
    // A price from before the order rested, or after its end, proves nothing.
    assert!(!crossed(trade, &tick(btc(), dec!(39_000), T0)));
    assert!(!crossed(trade, &tick(btc(), dec!(39_000), T0.plus_ms(25 * HOUR_MS))));
}

/// Both sides of a limit, by the price itself and by the range of a candle; at the limit is not through it.
#[test]
fn a_limit_is_crossed_from_both_sides_and_not_at_itself() {
    let (book, key) = resting_buy(dec!(40_000));
    let buy = book.state.trades[&key].clone();
    let sell = Trade { body: OrderBody { side: Side::Sell, ..buy.body.clone() }, ..buy.clone() };
    let began = buy.acked_at.unwrap();
    let end = buy.expires_at.unwrap();
    for (price, bought, sold) in [(39_999, true, false), (40_000, false, false), (40_001, false, true)] {
        let at = |at| tick(btc(), Decimal::from(price), at);
        assert_eq!((crossed(&buy, &at(began)), crossed(&sell, &at(began))), (bought, sold), "{price}");
        assert_eq!((crossed(&buy, &at(end)), crossed(&sell, &at(end))), (bought, sold), "{price} at its end");
        assert!(!crossed(&buy, &at(end.plus_ms(1))) && !crossed(&sell, &at(end.plus_ms(1))));
        assert!(!crossed(&buy, &at(began.plus_ms(-1))) && !crossed(&sell, &at(began.plus_ms(-1))));
    }
    let candle = |low: i64, high: i64| {
        let price = Decimal::from(40_000);
        let range = crate::model::PriceRange { from: began, open: price, high: high.into(), low: low.into() };
        crate::model::PriceTick { range: Some(range), ..tick(btc(), price, began) }
    };
    let reach = [(40_000, 40_000, false, false), (39_999, 40_000, true, false), (40_000, 40_001, false, true)];
    for (low, high, bought, sold) in reach {
        let candle = candle(low, high);
        assert_eq!((crossed(&buy, &candle), crossed(&sell, &candle)), (bought, sold), "{low}..{high}");
    }
}

/// A part is drawn below the chance only, and only a part that is one.
#[test]
fn a_partial_fill_is_more_than_nothing_and_less_than_all() {
    let (book, key) = resting_buy(dec!(40_000));
    let trade = &book.state.trades[&key];
    let rules = rules()[&btc()];
    let all = trade.remaining();
    let mut partial = execution().paper.partial_fills;
    (partial.enabled, partial.chance, partial.min_fraction, partial.max_fraction) = (true, 0.5, 0.0, 1.0);
    let drawn = |chance, fraction| drawn_quantity(trade, &partial, chance, fraction, &rules);
    assert!(drawn(0.4, 0.5) < all && drawn(0.4, 0.5) > Decimal::ZERO);
    assert_eq!(drawn(0.5, 0.5), all, "at the chance");
    assert_eq!(drawn(0.4, 0.0), all, "nothing is no part");
    assert_eq!(drawn(0.4, 1.0), all);
    let off = PartialFillSettings { enabled: false, ..partial };
    assert_eq!(drawn_quantity(trade, &off, 0.0, 0.5, &rules), all);
}

#[test]
fn stale_or_missing_price_refuses_and_latency_waits() {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.entry_order_type = EntryOrderType::Market;
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let key = book.submit(&order);
    let trade = book.state.trades[&key].clone();
    let mut venue = venue(&book.execution);
    let fresh = tick(btc(), dec!(40_000), T0);
    assert_eq!(venue.execute(&trade, Some(&fresh), T0), VenueAnswer::TooEarly { until: T0.plus_ms(100) });
    let VenueAnswer::Filled(_) = venue.execute(&trade, Some(&fresh), T0.plus_ms(60_000)) else { panic!("inclusive") };
    for (price, now) in [(Some(&fresh), T0.plus_ms(60_001)), (None, T0.plus_ms(100))] {
        let VenueAnswer::Rejected { reason } = venue.execute(&trade, price, now) else { panic!() };
        assert!(reason.starts_with(PRICE_STALE) && reason.ends_with("within 60 s"), "{reason}");
    }
    let other = tick(symbol("XRP/USDT"), dec!(1), T0);
    let VenueAnswer::Rejected { .. } = venue.execute(&trade, Some(&other), T0.plus_ms(100)) else { panic!() };
}

#[test]
fn a192_partial_then_full_is_one_position() {
    let (mut book, key) = resting_buy(dec!(40_000));
    book.execution.paper.partial_fills.enabled = true;
    book.execution.paper.partial_fills.chance = 1.0;
    book.now = book.now.plus_ms(1_000);
    let through = tick(btc(), dec!(39_999), book.now);
    book.venue(key, &through);
    assert_eq!(book.trade_state(key), TradeState::Partial);
    let trade = &book.state.trades[&key];
    let part = trade.filled;
    assert!(part >= dec!(0.009) && part < dec!(0.027), "{part}");
    // The remainder is live: it holds its lock.
    let rest = ledger::value_of(trade.remaining(), dec!(40_000)).unwrap();
    assert!(book.locked("USDT") >= rest);
    book.execution.paper.partial_fills.enabled = false;
    book.venue(key, &through);
    assert_eq!(book.trade_state(key), TradeState::Settled);
    assert_eq!(book.state.positions.len(), 1);
    let position = book.state.positions.values().next().unwrap();
    assert_eq!((position.quantity, position.cost, position.trades.len()), (dec!(0.03), dec!(1200), 1));
    assert_eq!(book.free("USDT"), dec!(8798.08));
    assert_eq!(book.state.totals.fills, 2);
}

#[test]
fn e07_partial_market_limit_rests_with_its_remainder() {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.paper.partial_fills.enabled = true;
    book.execution.paper.partial_fills.chance = 1.0;
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let key = book.submit(&order);
    book.now = book.now.plus_ms(100);
    let price = tick(btc(), dec!(39_000), book.now);
    book.venue(key, &price);
    let trade = &book.state.trades[&key];
    assert_eq!(trade.state, TradeState::Partial);
    assert!(trade.acked_at.is_some() && trade.expires_at.is_some());
    // IOC: what does not fill at once is cancelled.
    book.execution.time_in_force = TimeInForce::Ioc;
    let order = book.entry_order(symbol("XRP/USDT"), dec!(600), dec!(0.6));
    let key = book.submit(&order);
    book.now = book.now.plus_ms(100);
    let price = tick(symbol("XRP/USDT"), dec!(0.59), book.now);
    book.venue(key, &price);
    assert_eq!(book.trade_state(key), TradeState::Cancelled);
    assert_eq!(book.state.positions.len(), 2);
    // IOC that is not marketable ends unfilled.
    let order = book.entry_order(symbol("XRP/USDT"), dec!(600), dec!(0.6));
    let key = book.submit(&order);
    book.now = book.now.plus_ms(100);
    let price = tick(symbol("XRP/USDT"), dec!(0.61), book.now);
    book.venue(key, &price);
    assert_eq!(book.trade_state(key), TradeState::Cancelled);
}
