//! Connections as a timeline: what is asked, lost, tried again and handed out.

use super::*;

pub(super) const START: Ts = Ts(1_000_000_000);

pub(super) fn symbol(name: &str) -> Symbol {
    name.parse().unwrap()
}

pub(super) fn session() -> Session {
    Session::new(vec![symbol("BTC/USDT"), symbol("XRP/BTC")], Timeframe::M1, START)
}

pub(super) fn at(seconds: i64) -> Ts {
    START.plus_ms(seconds * 1_000)
}

pub(super) fn ack(channel: &str, symbol: &str) -> String {
    format!(r#"{{"method":"subscribe","result":{{"channel":"{channel}","symbol":"{symbol}"}},"success":true}}"#)
}

pub(super) fn ohlc(minute: i64, close: f64) -> String {
    let begin = Ts(minute * 60_000);
    format!(
        r#"{{"channel":"ohlc","type":"update","data":[{{"symbol":"BTC/USDT","open":1,"high":9,"low":0.5,"close":{close},"volume":1,"interval_begin":"{begin}","interval":1}}]}}"#
    )
}

pub(super) fn told(actions: &[Action]) -> Vec<&Notice> {
    actions.iter().filter_map(|action| if let Action::Tell(notice) = action { Some(notice) } else { None }).collect()
}

/// Connected with everything acknowledged.
pub(super) fn up(session: &mut Session, now: Ts) {
    assert_eq!(session.tick(now, 0.0), [Action::Connect]);
    assert_eq!(session.opened(now).len(), 3);
    for channel in CHANNELS {
        for name in ["BTC/USDT", "XRP/BTC"] {
            session.heard(&ack(channel, name), now);
        }
    }
}

#[test]
fn a_connection_subscribes_and_is_complete_when_all_is_acknowledged() {
    let mut session = session();
    assert_eq!(session.wakes_at(), START);
    assert_eq!(session.tick(START, 0.0), [Action::Connect]);
    session.opened(START);
    let mut complete = 0;
    for channel in CHANNELS {
        for name in ["BTC/USDT", "XRP/BTC"] {
            let actions = session.heard(&ack(channel, name), START);
            complete += usize::from(told(&actions).contains(&&Notice::Connected));
        }
    }
    assert_eq!(complete, 1);
}

#[test]
fn a_silent_socket_is_given_up_and_tried_again_with_growing_waits() {
    let mut session = session();
    let mut now = START;
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(session.tick(now, 1.0), [Action::Connect]);
        session.opened(now);
        now = now.plus_ms(DEAD_AFTER_MS);
        let actions = session.tick(now, 1.0);
        assert_eq!(actions[0], Action::Close);
        waits.push(session.wakes_at().since_ms(now) / 1_000);
        now = session.wakes_at();
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(session.counts().losses, 8);
}

#[test]
fn a_good_connection_starts_the_waits_over_and_chance_spreads_them() {
    let mut session = session();
    up(&mut session, START);
    for seconds in 0..70 {
        session.heard(r#"{"channel":"heartbeat"}"#, at(seconds));
    }
    let actions = session.lost("reset by the venue".into(), at(70), 0.0);
    let again_at = at(70).plus_ms(500);
    let why = "reset by the venue".to_owned();
    assert_eq!(actions, [Action::Tell(Notice::Disconnected { why, again_at })]);
    assert_eq!(session.lost("twice".into(), at(70), 0.0), [], "one loss is counted once");
}

#[test]
fn an_answer_that_never_comes_is_named() {
    let mut session = session();
    session.tick(START, 0.0);
    session.opened(START);
    for seconds in 1..10 {
        session.heard(r#"{"channel":"heartbeat"}"#, at(seconds));
    }
    let actions = session.tick(at(10), 0.0);
    let notices = told(&actions);
    assert!(matches!(notices[0], Notice::Disconnected { why, .. } if why.contains("book XRP/BTC")), "{notices:?}");
}

#[test]
fn a_symbol_the_venue_does_not_serve_leaves_the_others_alone() {
    let mut session = session();
    session.tick(START, 0.0);
    session.opened(START);
    for channel in CHANNELS {
        session.heard(&ack(channel, "BTC/USDT"), START);
    }
    let refusal =
        r#"{"error":"Currency pair not supported XRP/BTC","method":"subscribe","success":false,"symbol":"XRP/BTC"}"#;
    let actions = session.heard(refusal, START);
    assert!(matches!(told(&actions)[..], [Notice::Refused { .. }, Notice::Connected]), "{actions:?}");
    assert_eq!(session.heard(refusal, START), [], "the same refusal is told once");
    assert_eq!(session.refused().len(), 1);
}

const REFUSAL: &str =
    r#"{"error":"Currency pair not supported XRP/BTC","method":"subscribe","success":false,"symbol":"XRP/BTC"}"#;

/// Connected, one of the two symbols refused.
fn up_with_one_refused(session: &mut Session) {
    session.tick(START, 0.0);
    session.opened(START);
    CHANNELS.iter().for_each(|channel| drop(session.heard(&ack(channel, "BTC/USDT"), START)));
    session.heard(REFUSAL, START);
}

/// The symbols of what is sent.
fn asked_for(actions: &[Action]) -> Vec<bool> {
    let sent = actions.iter().filter_map(|action| if let Action::Send(text) = action { Some(text) } else { None });
    sent.map(|text| text.contains("XRP/BTC") && !text.contains("BTC/USDT")).collect()
}

#[test]
fn a_refused_symbol_is_asked_for_again_after_a_reconnect_and_nobody_waits_for_it() {
    let mut session = session();
    up_with_one_refused(&mut session);
    session.lost("x".into(), at(1), 0.0);
    session.tick(at(2), 0.0);
    let Action::Send(asked) = &session.opened(at(2))[0] else { panic!("a subscription") };
    assert!(asked.contains("XRP/BTC") && asked.contains("BTC/USDT"), "{asked}");
    let complete: Vec<Action> =
        CHANNELS.iter().flat_map(|channel| session.heard(&ack(channel, "BTC/USDT"), at(2))).collect();
    assert!(told(&complete).contains(&&Notice::Connected), "{complete:?}");
    assert_eq!(session.heard(REFUSAL, at(2)), [], "the same answer is not told again");
    assert!(!session.is_subscribed(symbol("XRP/BTC")));
}

#[test]
fn a_refused_symbol_is_asked_for_every_five_minutes_and_when_the_engine_is_back() {
    let mut session = session();
    up_with_one_refused(&mut session);
    let mut asked = Vec::new();
    for second in (6..=600).step_by(6) {
        session.heard(r#"{"channel":"heartbeat"}"#, at(second));
        let actions = session.tick(at(second), 0.0);
        asked.extend((!asked_for(&actions).is_empty()).then_some(second));
        assert!(asked_for(&actions).iter().all(|alone| *alone), "{actions:?}");
        assert!(session.wakes_at() > at(second), "it does not spin");
    }
    assert_eq!(asked, [300, 600]);
    let status = |system: &str| format!(r#"{{"channel":"status","type":"update","data":[{{"system":"{system}"}}]}}"#);
    assert!(asked_for(&session.heard(&status("maintenance"), at(611))).is_empty());
    assert_eq!(asked_for(&session.heard(&status("online"), at(612))), [true; 3]);
    let served = session.heard(&ack("ohlc", "XRP/BTC"), at(613));
    assert_eq!(served[0], Action::Tell(Notice::Served(symbol("XRP/BTC"))));
    assert_eq!(served[1], Action::Missing { symbol: symbol("XRP/BTC"), from: None });
    assert!(session.is_subscribed(symbol("XRP/BTC")) && session.refused().is_empty());
    session.heard(r#"{"channel":"heartbeat"}"#, at(1_000));
    assert!(asked_for(&session.tick(at(1_000), 0.0)).is_empty(), "nothing is refused any more");
}

#[test]
fn a_remark_of_the_venue_is_told_once() {
    let mut session = session();
    session.tick(START, 0.0);
    session.opened(START);
    let remark = |symbol: &str| {
        ack("ohlc", symbol).replace(r#""channel""#, r#""warnings":["timestamp is deprecated"],"channel""#)
    };
    let first = session.heard(&remark("BTC/USDT"), START);
    assert_eq!(told(&first), [&Notice::Remark("timestamp is deprecated".to_owned())]);
    assert_eq!(told(&session.heard(&remark("XRP/BTC"), START)), Vec::<&Notice>::new());
}

fn book(bid: &str, ask: &str, at: Ts) -> String {
    let digits = [ask, bid].map(|price| price.replace('.', "").trim_start_matches('0').to_owned() + "100");
    let checksum = crc32fast::hash(digits.concat().as_bytes());
    format!(
        r#"{{"channel":"book","type":"snapshot","data":[{{"symbol":"BTC/USDT","bids":[{{"price":{bid},"qty":1.00}}],"asks":[{{"price":{ask},"qty":1.00}}],"checksum":{checksum},"timestamp":"{at}"}}]}}"#
    )
}

fn kinds(actions: &[Action]) -> Vec<FeedKind> {
    let items =
        actions.iter().filter_map(|action| if let Action::Item(item) = action { Some(item.kind) } else { None });
    items.collect()
}

#[test]
fn the_middle_of_a_proven_book_is_a_price_when_no_trade_is_fresher_and_a_lost_book_is_none() {
    let mut session = session();
    up(&mut session, START);
    let [FeedKind::Book(_), FeedKind::Mid(mid)] = kinds(&session.heard(&book("99.5", "100.5", at(5)), at(5)))[..]
    else {
        panic!("a book and its middle")
    };
    assert!((mid - 100.0).abs() < 1e-9);
    let trade = |second| {
        format!(
            r#"{{"channel":"ticker","data":[{{"symbol":"BTC/USDT","bid":1,"ask":2,"last":100.2,"timestamp":"{}"}}]}}"#,
            at(second)
        )
    };
    assert_eq!(kinds(&session.heard(&trade(7), at(7))), [FeedKind::Price(100.2)]);
    assert!(matches!(kinds(&session.heard(&book("99.5", "100.5", at(7)), at(7)))[..], [FeedKind::Book(_)]));
    // A book that is told late has the age of its own time.
    let late = session.heard(&book("99.5", "100.5", at(8)), at(9));
    assert!(matches!(&late[1], Action::Item(item) if item.available_at == at(8)), "{late:?}");
    let wide = kinds(&session.heard(&book("90.0", "110.0", at(15)), at(15)));
    assert!(matches!(wide[..], [FeedKind::Book(_)]), "{wide:?}");

    let broken = book("99.5", "100.5", at(16)).replace("99.5", "99.4");
    assert_eq!(kinds(&session.heard(&broken, at(16))), [FeedKind::NoBook]);
    session.heard(&book("99.5", "100.5", at(17)), at(17));
    assert_eq!(kinds(&session.lost("x".into(), at(18), 0.0)), [FeedKind::NoBook], "no connection, no book");
    session.tick(at(20), 0.0);
    session.opened(at(20));
    assert_eq!(kinds(&session.lost("y".into(), at(21), 0.0)), [], "there was none");
}

#[test]
fn candles_and_prices_are_handed_out_with_the_time_they_were_known() {
    let mut session = session();
    up(&mut session, START);
    let minute = START.0 / 60_000;
    assert_eq!(session.heard(&ohlc(minute, 2.0), at(1)), []);
    let actions = session.heard(&ohlc(minute + 1, 3.0), at(40));
    let [Action::Item(item)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(item.available_at, at(40));
    assert!(matches!(item.kind, FeedKind::Candle(candle) if candle.close == 2.0));
    // Nothing more comes: the candle closes by time.
    let close = Ts((minute + 2) * 60_000).plus_ms(GRACE_MS);
    session.heard(r#"{"channel":"heartbeat"}"#, close);
    let closed = session.tick(close, 0.0);
    assert!(matches!(closed[0], Action::Item(FeedItem { kind: FeedKind::Candle(_), .. })), "{closed:?}");

    let stale = format!(
        r#"{{"channel":"ticker","data":[{{"symbol":"BTC/USDT","bid":1,"ask":2,"last":1.5,"timestamp":"{}"}}]}}"#,
        at(3)
    );
    let actions = session.heard(&stale, close);
    let [Action::Item(item)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(item.available_at, at(3), "an old price keeps its age");
}

#[test]
fn after_a_reconnect_the_first_candle_that_may_be_missing_is_named() {
    let mut session = session();
    up(&mut session, START);
    let minute = START.0 / 60_000;
    session.heard(&ohlc(minute, 2.0), at(1));
    session.heard(&ohlc(minute + 1, 2.0), at(40));
    session.lost("x".into(), at(50), 0.0);
    session.tick(at(60), 0.0);
    session.opened(at(60));
    let actions = session.heard(&ack("ohlc", "BTC/USDT"), at(60));
    let from = Some(Ts((minute + 1) * 60_000));
    assert_eq!(actions, [Action::Missing { symbol: symbol("BTC/USDT"), from }]);
    let nothing = session.heard(&ack("ohlc", "XRP/BTC"), at(60));
    assert_eq!(nothing, [Action::Missing { symbol: symbol("XRP/BTC"), from: None }]);
}

#[test]
fn a_broken_book_is_asked_for_anew() {
    let mut session = session();
    up(&mut session, START);
    let broken = r#"{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USDT","bids":[{"price":1.0,"qty":1.0}],"asks":[{"price":2.0,"qty":1.0}],"checksum":7}]}"#;
    let actions = session.heard(broken, START);
    assert!(matches!(told(&actions)[..], [Notice::BookBroken { .. }]));
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Send(_))).count(), 2);
    assert_eq!(session.counts().broken_books, 1);
}

#[test]
fn maintenance_and_odd_frames_are_told() {
    let mut session = session();
    up(&mut session, START);
    let status = r#"{"channel":"status","data":[{"system":"maintenance"}]}"#;
    assert_eq!(session.heard(status, START), [Action::Tell(Notice::System("maintenance".into()))]);
    assert_eq!(session.heard(status, START), [], "the same status is told once");
    assert!(matches!(told(&session.heard("<html>", START))[..], [Notice::Odd(_)]));
}

#[test]
fn a_storm_of_lost_connections_is_met_with_patience_and_ends_with_a_good_minute() {
    let mut session = session();
    let (mut now, mut tries, mut gaps) = (START, 0_u32, Vec::new());
    // Every connection is lost as soon as all was asked for; an hour of it.
    while now < at(3_600) {
        assert_eq!(session.tick(now, 0.0), [Action::Connect], "after {tries} tries");
        session.opened(now);
        session.heard(&ohlc(START.0 / 60_000 + i64::from(tries), 2.0), now);
        let lost = session.lost("storm".into(), now.plus_ms(20), 0.0);
        let [Notice::Disconnected { again_at, .. }] = told(&lost)[..] else { panic!("{lost:?}") };
        gaps.push(again_at.since_ms(now));
        now = *again_at;
        tries += 1;
        assert_eq!(session.tick(now.plus_ms(-1), 0.0).iter().filter(|a| **a == Action::Connect).count(), 0);
    }
    assert!(gaps.iter().all(|gap| (500..=60_020).contains(gap)), "{gaps:?}");
    assert!((60..=140).contains(&tries), "half a minute to a minute between two tries in the end, not {tries} an hour");
    assert_eq!((session.counts().losses, session.counts().connections), (u64::from(tries), u64::from(tries)));
    up(&mut session, now);
    for channel in CHANNELS {
        for name in ["BTC/USDT", "XRP/BTC"] {
            session.heard(&ack(channel, name), now);
        }
    }
    let lost = session.lost("once more".into(), now.plus_ms(61_000), 1.0);
    let [Notice::Disconnected { again_at, .. }] = told(&lost)[..] else { panic!("{lost:?}") };
    assert_eq!(again_at.since_ms(now), 62_000, "a good minute starts the waits over");
}
