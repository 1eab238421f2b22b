//! Candles that are cut off, do not come, or come again, and minutes nobody traded in.

use super::{
    tests::{START, ack, at, ohlc, session, symbol, told, up},
    *,
};

const HEARTBEAT: &str = r#"{"channel":"heartbeat"}"#;

/// Candles handed out and ends of silent minutes that were declared.
fn items(actions: &[Action]) -> Vec<(String, FeedKind)> {
    let item = |action: &Action| match action {
        Action::Item(item) => Some((item.symbol.to_string(), item.kind)),
        _ => None,
    };
    actions.iter().filter_map(item).collect()
}

#[test]
fn a_candle_that_a_lost_connection_cut_off_is_not_handed_out_as_whole() {
    let mut session = session();
    let minute = START.0 / 60_000;
    session.known(symbol("BTC/USDT"), Ts((minute - 1) * 60_000));
    up(&mut session, START);
    session.heard(&ohlc(minute, 2.0), at(1));
    assert_eq!(items(&session.lost("reset".into(), at(2), 0.0)), []);
    let later = Ts((minute + 1) * 60_000).plus_ms(GRACE_MS);
    assert_eq!(session.tick(later, 0.0), [Action::Connect], "nothing closes while nothing is heard");
    session.opened(later);
    let wanted = session.heard(&ack("ohlc", "BTC/USDT"), later);
    let from = Some(Ts(minute * 60_000));
    assert_eq!(wanted, [Action::Missing { symbol: symbol("BTC/USDT"), from }], "the venue is asked for all of it");
}

#[test]
fn a_candle_that_had_ended_when_the_connection_was_lost_is_whole() {
    let mut session = session();
    up(&mut session, START);
    let minute = START.0 / 60_000;
    session.heard(&ohlc(minute, 2.0), at(1));
    let end = Ts((minute + 1) * 60_000);
    session.heard(HEARTBEAT, end);
    let handed = items(&session.lost("reset".into(), end.plus_ms(500), 0.0));
    assert!(matches!(&handed[..], [(_, FeedKind::Candle(candle))] if candle.close == 2.0), "{handed:?}");
}

#[test]
fn a_candle_closes_by_time_only_when_something_was_heard_after_its_end() {
    let mut session = session();
    up(&mut session, START);
    let minute = START.0 / 60_000;
    session.heard(&ohlc(minute, 2.0), at(1));
    let end = Ts((minute + 1) * 60_000);
    let heard = end.plus_ms(-1);
    session.heard(HEARTBEAT, heard);
    let close = end.plus_ms(GRACE_MS);
    assert_eq!(session.tick(close, 0.0), []);
    assert_eq!(session.wakes_at(), heard.plus_ms(DEAD_AFTER_MS), "nothing to do before something is heard");
    session.heard(HEARTBEAT, close);
    assert!(session.wakes_at() <= close);
    assert!(matches!(items(&session.tick(close, 0.0))[0], (_, FeedKind::Candle(_))));
}

#[test]
fn a_minute_nobody_traded_in_is_declared_once_and_a_candle_under_way_is_waited_for() {
    let mut session = session();
    up(&mut session, START);
    let minute = START.0 / 60_000;
    let quotes = |session: &mut Session, at: Ts| {
        for name in ["BTC/USDT", "XRP/BTC"] {
            session.heard(&quote(name, 2.0, at), at);
        }
    };
    session.heard(&ohlc(minute, 2.0), at(1));
    quotes(&mut session, at(1));
    let [end, second] = [minute + 1, minute + 2].map(|minute| Ts(minute * 60_000));
    session.heard(HEARTBEAT, end);
    assert_eq!(session.wakes_at(), end.plus_ms(SILENT_MS));
    assert_eq!(session.tick(end.plus_ms(SILENT_MS - 1), 0.0), []);
    let silent = |name: &str, end: Ts| (name.to_owned(), FeedKind::Settled(end));
    let declared = items(&session.tick(end.plus_ms(SILENT_MS), 0.0));
    assert_eq!(declared, [silent("XRP/BTC", end)], "the candle of BTC/USDT is held until it is closed");
    assert_eq!(session.tick(end.plus_ms(SILENT_MS + 1), 0.0), []);
    // The candle closes by time; in the minute after it nobody trades in anything.
    session.tick(end.plus_ms(GRACE_MS), 0.0);
    for ms in (0..=60_000).step_by(5_000) {
        session.heard(HEARTBEAT, end.plus_ms(ms));
        quotes(&mut session, end.plus_ms(ms));
    }
    let declared = items(&session.tick(second.plus_ms(SILENT_MS), 0.0));
    assert_eq!(declared, [silent("BTC/USDT", second), silent("XRP/BTC", second)]);
}

/// The candle before it may still come, and would be too late for the longer candles that the silent minute closes.
#[test]
fn a_silent_minute_is_not_declared_while_one_before_it_is_in_doubt() {
    let mut session = session();
    up(&mut session, START);
    let first = START.0 / 60_000;
    let ends = [1, 2, 3].map(|minute| Ts((first + minute) * 60_000));
    session.heard(HEARTBEAT, ends[0]);
    assert_eq!(session.tick(ends[0].plus_ms(SILENT_MS), 0.0), [], "nothing was heard of anybody");
    let minute = |session: &mut Session, end: Ts| {
        session.heard(&quote("XRP/BTC", 2.0, end.plus_ms(-30_000)), end.plus_ms(-30_000));
        session.heard(HEARTBEAT, end);
        session.tick(end.plus_ms(SILENT_MS), 0.0)
    };
    let actions = minute(&mut session, ends[1]);
    assert_eq!((items(&actions), holes(&actions)), (vec![], vec![ends[0].plus_ms(-60_000)]));
    session.known(symbol("XRP/BTC"), ends[0].plus_ms(-60_000));
    let actions = minute(&mut session, ends[2]);
    assert_eq!(items(&actions), [("XRP/BTC".to_owned(), FeedKind::Settled(ends[2]))]);
}

/// A ticker of the price the symbol was traded at last; the same again is no trade.
fn quote(name: &str, last: f64, at: Ts) -> String {
    format!(r#"{{"channel":"ticker","data":[{{"symbol":"{name}","bid":1,"ask":2,"last":{last},"timestamp":"{at}"}}]}}"#)
}

/// Where holes begin, and what was handed out.
fn holes(actions: &[Action]) -> Vec<Ts> {
    let hole = |action: &Action| if let Action::Hole { from, .. } = action { Some(*from) } else { None };
    actions.iter().filter_map(hole).collect()
}

/// The minute ends with trades of BTC/USDT every five seconds and without candles.
fn minute_of_trades(session: &mut Session, minute: i64) -> Vec<Action> {
    let mut all = Vec::new();
    for second in (0..60).step_by(5) {
        let now = Ts(minute * 60_000 + second * 1_000);
        let price = (minute % 100) as f64 + second as f64 / 100.0 + 1.0;
        all.extend(session.heard(&quote("BTC/USDT", price, now), now));
        all.extend(session.tick(now, 0.0));
    }
    all
}

fn without_prices(actions: Vec<Action>) -> Vec<Action> {
    let is_price = |action: &Action| {
        matches!(action, Action::Item(FeedItem { kind: FeedKind::Price(_) | FeedKind::Settled(_), .. }))
    };
    actions.into_iter().filter(|action| !is_price(action)).collect()
}

#[test]
fn candles_that_stand_still_while_there_are_trades_are_asked_for_told_after_three_and_told_when_they_come_again() {
    let mut session = session();
    up(&mut session, START);
    let (minute, btc) = (START.0 / 60_000 + 1, symbol("BTC/USDT"));
    let start = |minute: i64| Ts(minute * 60_000);
    session.known(btc, start(minute - 1));
    // A candle that stops before the last trades of its minute is not handed out as if it were whole.
    session.heard(&ohlc(minute, 2.0), start(minute).plus_ms(1_000));
    let mut told_at = Vec::new();
    for number in minute..minute + 5 {
        let end = start(number + 1);
        let during = minute_of_trades(&mut session, number);
        session.heard(HEARTBEAT, end.plus_ms(SILENT_MS));
        let after = session.tick(end.plus_ms(SILENT_MS), 0.0);
        let settled = [&during[..], &after[..]].concat().into_iter().any(
            |action| matches!(action, Action::Item(FeedItem { symbol, kind: FeedKind::Settled(_), .. }) if symbol == btc),
        );
        assert!(!settled, "a minute with trades is not declared silent");
        assert_eq!(without_prices(during), []);
        assert_eq!(holes(&after), [start(minute)], "the venue is asked for all of them");
        told_at.extend(told(&after).into_iter().map(|notice| (number - minute, notice.clone())));
    }
    assert_eq!(told_at, [(2, Notice::CandlesFrozen(btc, 3))], "told once");
    // REST had the first three. The next candle waits for the others.
    session.known(btc, start(minute + 2));
    let back = session.heard(&ohlc(minute + 5, 7.0), start(minute + 5).plus_ms(30_000));
    assert_eq!(back, [Action::Tell(Notice::CandlesBack(btc))]);
    let next = session.heard(&ohlc(minute + 6, 8.0), start(minute + 6).plus_ms(1_000));
    let [Action::Hole { from, .. }, Action::Item(FeedItem { kind: FeedKind::Candle(_), .. })] = &next[..] else {
        panic!("{next:?}")
    };
    assert_eq!(*from, start(minute + 3));
    session.known(btc, start(minute + 5));
    let whole = session.heard(&ohlc(minute + 7, 9.0), start(minute + 7).plus_ms(1_000));
    assert!(matches!(&whole[..], [Action::Item(_)]), "nothing is missing any more: {whole:?}");
}

#[test]
fn a_minute_in_which_nothing_was_heard_of_a_symbol_is_not_called_silent_and_is_asked_for_with_its_next_candle() {
    let mut session = session();
    up(&mut session, START);
    let minute = START.0 / 60_000;
    let start = |minute: i64| Ts(minute * 60_000);
    session.known(symbol("BTC/USDT"), start(minute));
    for second in (60..=180).step_by(5) {
        let now = start(minute).plus_ms(second * 1_000);
        session.heard(HEARTBEAT, now);
        assert_eq!(session.tick(now, 0.0).iter().filter(|action| matches!(action, Action::Hole { .. })).count(), 0);
    }
    session.heard(&ohlc(minute + 3, 2.0), start(minute + 3).plus_ms(10_000));
    let next = session.heard(&ohlc(minute + 4, 2.0), start(minute + 4).plus_ms(1_000));
    assert_eq!(holes(&next), [start(minute + 1)]);
}

#[test]
fn the_minute_a_connection_was_opened_in_is_declared_by_what_the_venue_sends_and_earlier_ones_are_not() {
    let mut session = session();
    up(&mut session, START);
    let end = START.floor_to(60_000).plus_ms(60_000);
    session.lost("reset".into(), at(2), 0.0);
    let later = end.plus_ms(200_000);
    up(&mut session, later);
    let actions = session.tick(later.plus_ms(SILENT_MS), 0.0);
    assert_eq!(items(&actions), [], "nobody heard what was traded while there was no connection");
}

#[test]
fn a_row_from_the_future_is_counted_and_closes_nothing() {
    let mut session = session();
    up(&mut session, START);
    let minute = START.0 / 60_000;
    session.heard(&ohlc(minute, 2.0), at(1));
    assert_eq!(session.heard(&ohlc(minute + 600, 9.0), at(2)), []);
    let next = items(&session.heard(&ohlc(minute + 1, 3.0), at(40)));
    assert!(matches!(&next[..], [(_, FeedKind::Candle(candle))] if candle.close == 2.0), "{next:?}");
    assert_eq!((session.counts().future_rows, session.counts().late_rows), (1, 0));
}
