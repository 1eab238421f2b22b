//! Tests of the positions rules of `execution`, by the ids of the acceptance scenarios they hold.

use super::{super::testkit::*, *};
use crate::{
    execution::supervise::ExitCall,
    model::{Decimal, TradeState, time::MINUTE_MS},
};

fn close_at(book: &mut Book, id: u64, price: Decimal) -> Vec<Event> {
    book.now = book.now.plus_ms(1_000);
    let symbol = book.state.positions[&PositionId(id)].symbol;
    let call = ExitCall {
        position: PositionId(id),
        cause: ExitCause::Stop,
        price: tick(symbol, price, book.now),
        evidence: None,
    };
    book.exit(&call)
}

#[test]
fn a179_round_trip_moves_balance_result_and_streak_together() {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.paper.slippage_pct = Decimal::ZERO;
    book.buy(btc(), dec!(1200), dec!(40_000));
    assert_eq!(book.free("USDT"), dec!(8796.88));
    let events = close_at(&mut book, 1, dec!(41_500));
    assert_eq!(book.free("USDT"), dec!(10_038.643));
    let closed = events.iter().find_map(|e| if let Event::PositionClosed { closed } = e { Some(closed) } else { None });
    let closed = closed.unwrap();
    assert_eq!((closed.gross, closed.fees, closed.net), (dec!(45), dec!(6.357), dec!(38.643)));
    assert_eq!((closed.entry, closed.exit, closed.quantity), (dec!(40_000), dec!(41_500), dec!(0.03)));
    assert_eq!((book.state.risk.wins, book.state.risk.losses), (1, 0));
    assert_eq!(book.state.risk.cooldown_until, book.now.plus_ms(5 * MINUTE_MS));
    assert!(book.state.positions.is_empty() && book.state.trades.is_empty());
    assert_eq!(book.state.totals.winning_trades, 1);
}

#[test]
fn e01_e06_a_close_cancels_its_siblings_in_the_same_commit() {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.paper.partial_fills.enabled = true;
    book.execution.paper.partial_fills.chance = 1.0;
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let entry = book.submit(&order);
    book.now = book.now.plus_ms(100);
    let price = tick(btc(), dec!(39_990), book.now);
    book.venue(entry, &price);
    assert_eq!(book.trade_state(entry), TradeState::Partial);
    book.execution.paper.partial_fills.enabled = false;
    close_at(&mut book, 1, dec!(39_000));
    assert_eq!(book.trade_state(entry), TradeState::Cancelled);
    assert_eq!((book.locked("USDT"), book.free("BTC")), (Decimal::ZERO, Decimal::ZERO));
}

#[test]
fn e15_same_side_adds_with_the_average_entry() {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.paper.slippage_pct = Decimal::ZERO;
    book.buy(btc(), dec!(1200), dec!(40_000));
    book.buy(btc(), dec!(1260), dec!(42_000));
    assert_eq!(book.state.positions.len(), 1);
    let position = &book.state.positions[&PositionId(1)];
    assert_eq!((position.quantity, position.average_entry()), (dec!(0.06), dec!(41_000)));
    assert_eq!(position.trades.len(), 2);
    assert_eq!(find(&book.state, btc(), PositionSide::Long).map(|p| p.id), Some(PositionId(1)));
}

#[test]
fn e15_opposite_side_reduces_first_and_never_opens_a_short() {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.paper.slippage_pct = Decimal::ZERO;
    book.buy(btc(), dec!(1200), dec!(40_000));
    book.execution.entry_order_type = crate::settings::EntryOrderType::Market;
    let mut order = book.entry_order(btc(), dec!(400), dec!(40_000));
    order.side = Side::Sell;
    let key = book.submit(&order);
    book.now = book.now.plus_ms(100);
    let price = tick(btc(), dec!(40_000), book.now);
    book.venue(key, &price);
    assert_eq!(book.state.positions[&PositionId(1)].quantity, dec!(0.02));
    // What a long does not cover is refused as a broken account, not turned into a short.
    let trade = crate::model::Trade { key: TradeKey([9; 32]), ..book_trade(&mut book) };
    let fill = VenueFill {
        quantity: dec!(0.03),
        price: dec!(40_000),
        value: dec!(1200),
        fee: dec!(3.12),
        liquidity: crate::model::Liquidity::Taker,
        price_id: "test:1".into(),
        evidence: None,
        venue_fill: None,
    };
    assert!(book_fill(&book, &trade, &fill).is_err());
}

fn book_trade(book: &mut Book) -> Trade {
    let mut order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    order.side = Side::Sell;
    let rules = rules()[&btc()];
    crate::execution::intent::entry(book.state.meta.store, &order, &rules, &book.execution, book.now).unwrap()
}

fn book_fill(book: &Book, trade: &Trade, fill: &VenueFill) -> Result<Booked, Violation> {
    super::book(&book.state, trade, fill, Money::ONE, book.now)
}

#[test]
fn a188_nothing_to_sell_without_a_position() {
    let mut book = Book::usdt(dec!(10_000));
    assert_eq!(find(&book.state, btc(), PositionSide::Long), None);
    assert_eq!(find(&book.state, btc(), PositionSide::Short), None);
    book.buy(btc(), dec!(1200), dec!(40_000));
    assert_eq!(find(&book.state, btc(), PositionSide::Short), None);
    assert_eq!(find(&book.state, symbol("XRP/BTC"), PositionSide::Long), None);
}

#[test]
fn e12_e14_partial_closes_keep_cost_fees_and_result() {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.paper.slippage_pct = Decimal::ZERO;
    book.buy(btc(), dec!(1000.01), dec!(33_333.33));
    let bought = book.state.positions[&PositionId(1)].clone();
    let rules = rules()[&btc()];
    let third = rules.floor_quantity(bought.quantity / dec!(3));
    let store = book.state.meta.store;
    let purpose = crate::execution::intent::ExitFor::Cause(ExitCause::Signal);
    let trade = crate::execution::intent::exit(store, &bought, purpose, third, &rules, book.now).unwrap();
    let key = book.submit_trade(trade);
    assert_eq!(book.state.positions[&PositionId(1)].exiting, Some(key));
    book.now = book.now.plus_ms(100);
    let price = tick(btc(), dec!(40_000), book.now);
    book.venue(key, &price);
    let rest = book.state.positions[&PositionId(1)].clone();
    assert_eq!((rest.quantity, rest.exiting, rest.exit_seq), (bought.quantity - third, None, 1));
    assert_eq!(rest.cost + rest.past.cost, bought.cost);
    assert_eq!((book.state.risk.wins, book.state.risk.losses), (0, 0), "a partial close is no close");
    let events = close_at(&mut book, 1, dec!(40_000));
    let closed = events.iter().find_map(|e| if let Event::PositionClosed { closed } = e { Some(closed) } else { None });
    let closed = closed.unwrap();
    assert_eq!(closed.quantity, bought.quantity);
    assert_eq!(closed.gross, closed.quantity * dec!(40_000) - bought.cost);
    assert_eq!(closed.net, book.free("USDT") - dec!(10_000));
}

#[test]
fn flat_closes_change_nothing_and_streaks_choose_the_cooldown() {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.paper.slippage_pct = Decimal::ZERO;
    (book.execution.paper.maker_fee_pct, book.execution.paper.taker_fee_pct) = (Decimal::ZERO, Decimal::ZERO);
    book.buy(btc(), dec!(1200), dec!(40_000));
    let events = close_at(&mut book, 1, dec!(40_000));
    assert!(!events.iter().any(|e| matches!(e, Event::StreakChanged { .. } | Event::CooldownSet { .. })));
    for (number, minutes) in [(1, 10), (2, 10), (3, 30), (4, 30), (5, 60)] {
        book.buy(btc(), dec!(1200), dec!(40_000));
        close_at(&mut book, number + 1, dec!(39_000));
        assert_eq!(book.state.risk.losses as u64, number);
        assert_eq!(book.state.risk.cooldown_until, book.now.plus_ms(minutes * MINUTE_MS), "{number} losses");
    }
    // A win resets the streak; its shorter cooldown does not replace the longer one.
    let until = book.state.risk.cooldown_until;
    book.buy(btc(), dec!(1200), dec!(40_000));
    close_at(&mut book, 7, dec!(41_000));
    assert_eq!((book.state.risk.losses, book.state.risk.wins, book.state.risk.cooldown_until), (0, 1, until));
}
