//! The downtime worked off by every policy, as the actor does it. Opens no store.

use super::{super::testkit::*, *};
use crate::{
    model::{DegradationLevel, ExitCause, PositionId, Trailing},
    risk::board::PriceBoard,
    settings::Settings,
};

fn minute(n: i64) -> Ts {
    Ts(T0.0 + n * 60_000)
}

/// A long from 40 000 with a stop at 39 000, a resting buy at 38 800; down from minute 1 to minute 5, in which the price
/// fell to 38 500 and came back to 41 000.
fn down(policy: RestartFillPolicy) -> (Book, crate::model::TradeKey, Settings, Vec<PriceTick>) {
    let mut book = Book::usdt(dec!(10_000));
    book.execution.paper.slippage_pct = dec!(0);
    book.buy(btc(), dec!(1200), dec!(40_000));
    let stop = Event::StopMoved { position: PositionId(1), stop: Some(dec!(39_000)), trailing: Trailing::default() };
    book.commit(vec![stop]);
    let order = book.entry_order(btc(), dec!(388), dec!(38_800));
    let resting = book.submit(&order);
    book.now = book.now.plus_ms(100);
    book.venue(resting, &tick(btc(), dec!(40_000), book.now));
    let candles = vec![
        candle(btc(), [dec!(40_000), dec!(40_000), dec!(30_000), dec!(40_000)], minute(1)),
        candle(btc(), [dec!(40_000), dec!(40_100), dec!(39_500), dec!(39_600)], minute(2)),
        candle(btc(), [dec!(39_600), dec!(39_600), dec!(38_500), dec!(39_200)], minute(3)),
        candle(btc(), [dec!(39_200), dec!(41_000), dec!(39_200), dec!(41_000)], minute(5)),
    ];
    book.now = minute(5).plus_ms(10_000);
    let mut settings = Settings::defaults();
    settings.execution = book.execution.clone();
    settings.execution.paper.restart_fill_policy = policy;
    (book, resting, settings, candles)
}

/// Works the gap off as the actor does; the committed events, batch by batch.
fn work_off(book: &mut Book, settings: &Settings, gap: &mut Gap, newest: Option<PriceTick>) -> Vec<Vec<Event>> {
    work_off_until(book, settings, gap, newest, 10)
}

/// As [`work_off`], killed after `limit` batches.
fn work_off_until(
    book: &mut Book,
    settings: &Settings,
    gap: &mut Gap,
    newest: Option<PriceTick>,
    limit: usize,
) -> Vec<Vec<Event>> {
    let board = PriceBoard::new("USDT".parse().unwrap());
    newest.into_iter().for_each(|tick| board.set(tick));
    let (prices, rules) = (board.reader(), risk_rules());
    let mut batches: Vec<Vec<Event>> = Vec::new();
    loop {
        let board = prices.read();
        let level = DegradationLevel::Normal;
        let desk = Desk { settings, rules: &rules, board: &board, level, now: book.now };
        let Some(work) = gap.next(&book.state, &mut venue(&settings.execution), &desk).unwrap() else { return batches };
        book.commit(work.events.clone());
        batches.push(work.events);
        if batches.len() == limit {
            return batches;
        }
    }
}

fn gap_of(book: &Book, candles: &[PriceTick]) -> Gap {
    let mut gap = Gap::since(minute(1), &book.state);
    candles.iter().for_each(|tick| gap.take(*tick));
    gap
}

fn fills(batches: &[Vec<Event>]) -> Vec<(rust_decimal::Decimal, String)> {
    let fill = |event: &Event| match event {
        Event::TradeFill { price, evidence, .. } => Some((*price, evidence.clone().unwrap_or_default())),
        _ => None,
    };
    batches.iter().flatten().filter_map(fill).collect()
}

#[test]
fn a190_pessimistic_gap_is_one_commit_with_evidence_and_is_never_repeated() {
    let (mut book, resting, settings, candles) = down(RestartFillPolicy::Pessimistic);
    let mut gap = gap_of(&book, &candles);
    let batches = work_off(&mut book, &settings, &mut gap, candles.last().copied());
    let [(price, evidence)] = fills(&batches).try_into().unwrap();
    assert_eq!(price, dec!(39_000), "the stop is worse than the first new price");
    assert!(evidence.contains("38500"), "{evidence}");
    assert!(gap.is_over() && batches.len() == 1 && book.state.positions.is_empty());
    assert_eq!(book.trade_state(resting), TradeState::Acked, "limits are not filled from the gap");
    // A crash before the note was removed: the same gap again.
    let mut again = gap_of(&book, &candles);
    assert!(work_off(&mut book, &settings, &mut again, candles.last().copied()).is_empty());
    assert!(again.is_over());
}

#[test]
fn a190_pessimistic_waits_for_a_first_new_price() {
    let (mut book, _, settings, candles) = down(RestartFillPolicy::Pessimistic);
    book.now = minute(30);
    let mut gap = gap_of(&book, &candles);
    assert!(work_off(&mut book, &settings, &mut gap, candles.last().copied()).is_empty());
    assert!(!gap.is_over(), "the newest price is 25 minutes old");
    let first = tick(btc(), dec!(38_000), minute(30));
    let batches = work_off(&mut book, &settings, &mut gap, Some(first));
    assert_eq!(fills(&batches)[0].0, dec!(38_000), "the first new price is worse than the stop");
    assert!(gap.is_over());
}

#[test]
fn a190_cancel_gap_cancels_entries_and_exits() {
    let (mut book, resting, settings, candles) = down(RestartFillPolicy::Cancel);
    let mut gap = gap_of(&book, &candles);
    let batches = work_off(&mut book, &settings, &mut gap, candles.last().copied());
    assert_eq!(book.trade_state(resting), TradeState::Cancelled);
    assert_eq!(fills(&batches).len(), 1);
    assert!(gap.is_over() && book.state.positions.is_empty());
}

#[test]
fn a190_replay_gap_walks_the_candles_at_their_own_instants() {
    let (mut book, resting, settings, candles) = down(RestartFillPolicy::Replay);
    let mut gap = gap_of(&book, &candles);
    let batches = work_off(&mut book, &settings, &mut gap, candles.last().copied());
    let filled = fills(&batches);
    assert_eq!(filled.iter().map(|(price, _)| *price).collect::<Vec<_>>(), [dec!(39_000), dec!(38_800)]);
    assert!(filled.iter().all(|(_, evidence)| evidence.contains("candle")), "{filled:?}");
    assert_eq!(book.trade_state(resting), TradeState::Settled);
    let bought = book.state.positions.values().next().unwrap();
    assert_eq!(bought.opened_at, minute(3), "opened when the candle closed, not when the program came back");
    let before = book.state.clone();
    let mut again = gap_of(&book, &candles);
    assert!(work_off(&mut book, &settings, &mut again, candles.last().copied()).is_empty());
    assert_eq!(book.state, before);
}

#[test]
fn a190_no_candle_after_the_stored_instant_is_no_gap() {
    for policy in [RestartFillPolicy::Pessimistic, RestartFillPolicy::Replay, RestartFillPolicy::Cancel] {
        let (mut book, resting, settings, candles) = down(policy);
        let mut gap = gap_of(&book, &candles[..1]);
        assert!(work_off(&mut book, &settings, &mut gap, None).is_empty(), "{policy:?}");
        assert!(gap.is_over());
        assert_eq!(book.trade_state(resting), TradeState::Acked);
    }
}

/// Works `candles` off with a kill after every batch: each start replays the same gap from the store alone.
fn killed_after_every_batch(book: &mut Book, settings: &Settings, candles: &[PriceTick]) -> Vec<Vec<Event>> {
    let mut batches = Vec::new();
    loop {
        let mut gap = gap_of(book, candles);
        let made = work_off_until(book, settings, &mut gap, candles.last().copied(), 1);
        if made.is_empty() {
            assert!(gap.is_over());
            return batches;
        }
        batches.extend(made);
        assert!(batches.len() < 10, "{batches:?}");
    }
}

/// A long from 40 000 with a stop at 39 000 that trails 1.5 % behind from 40 400 on.
fn trailing() -> (Book, Settings) {
    let (mut book, resting, mut settings, _) = down(RestartFillPolicy::Replay);
    book.commit(vec![Event::TradeCancelled { trade_key: resting, reason: "not of interest".into() }]);
    settings.execution.trailing.enabled = true;
    (book, settings)
}

#[test]
fn a_crash_inside_a_replayed_gap_judges_no_early_candle_by_the_moved_stop() {
    let candles = [
        candle(btc(), [dec!(40_000), dec!(40_000), dec!(39_500), dec!(40_000)], minute(2)),
        candle(btc(), [dec!(40_000), dec!(41_000), dec!(40_000), dec!(41_000)], minute(3)),
        candle(btc(), [dec!(42_000), dec!(42_000), dec!(42_000), dec!(42_000)], minute(4)),
        candle(btc(), [dec!(42_000), dec!(42_100), dec!(41_900), dec!(42_000)], minute(5)),
    ];
    let (mut whole, settings) = trailing();
    let mut gap = gap_of(&whole, &candles);
    work_off(&mut whole, &settings, &mut gap, candles.last().copied());
    let (mut killed, _) = trailing();
    let batches = killed_after_every_batch(&mut killed, &settings, &candles);
    assert!(fills(&batches).is_empty(), "39 500 was before the stop moved to 41 370: {batches:?}");
    assert_eq!(killed.state, whole.state);
    let [held] = killed.state.positions.values().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(held.stop, Some(dec!(41_370)));
}

#[test]
fn a_crash_between_a_replayed_fill_and_the_stop_of_its_candle_loses_no_stop() {
    let lives = |killed: bool| {
        let (_, _, settings, mut candles) = down(RestartFillPolicy::Replay);
        let mut book = Book { execution: settings.execution.clone(), ..Book::usdt(dec!(10_000)) };
        let order = intent::EntryOrder { stop: Some(dec!(38_900)), ..book.entry_order(btc(), dec!(390), dec!(39_000)) };
        let resting = book.submit(&order);
        book.now = book.now.plus_ms(100);
        book.venue(resting, &tick(btc(), dec!(40_000), book.now));
        book.now = minute(5).plus_ms(10_000);
        candles.truncate(3);
        let batches = if killed {
            killed_after_every_batch(&mut book, &settings, &candles)
        } else {
            let mut gap = gap_of(&book, &candles);
            work_off(&mut book, &settings, &mut gap, candles.last().copied())
        };
        let closed = |event: &Event| match event {
            Event::PositionClosed { closed } => Some((closed.exit, closed.cause)),
            _ => None,
        };
        (batches.iter().flatten().filter_map(closed).collect::<Vec<_>>(), book.state)
    };
    let (stops, state) = lives(false);
    assert_eq!(stops, [(dec!(38_900), ExitCause::Stop)], "filled at 39 000, stopped on the way to 38 500");
    assert_eq!(lives(true), (stops, state));
}
