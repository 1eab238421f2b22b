//! Hours from before the candles, and candles that arrive after their end.

use actix::{Actor, Addr, Handler};

use super::*;
use crate::{
    market::{
        Market,
        actor::{Delivered, FeedEnded, MarketActor, ReadFeeds, ReadSnapshot},
        core::tests::market_settings,
    },
    model::{Candle, Snapshot, time::HOUR_MS},
    runtime::{clock::LogicalClock, placement::run_virtual},
};

fn symbol() -> Symbol {
    "BTC/USDT".parse().unwrap()
}

fn candle(open_ms: i64) -> Candle {
    Candle { open_time: Ts(open_ms), open: 40_000.0, high: 40_010.0, low: 39_990.0, close: 40_005.0, volume: 1.0 }
}

fn market() -> Market {
    Market::for_symbols(&market_settings(), &[symbol()], Timeframe::M1).unwrap()
}

#[test]
fn hours_reach_back_to_where_the_candles_begin_and_join_them_without_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let [minutes, hours] = [Timeframe::M1, Timeframe::H1].map(|f| CandleStore::open(folder.path(), f).unwrap());
    hours.append(symbol(), &(1..295).map(|hour| candle(hour * HOUR_MS)).collect::<Vec<_>>()).unwrap();
    let (first, until) = (290 * HOUR_MS + 30 * 60_000, 295 * HOUR_MS);
    let kept: Vec<Candle> = (0..270).map(|minute| candle(first + minute * 60_000)).collect();
    minutes.append(symbol(), &kept).unwrap();
    let mut feed =
        LiveFeed::new("kraken", Timeframe::M1, minutes, vec![symbol()], 400 * HOUR_MS).with_hours(Some(hours));
    let (mut market, mut longer) = (market(), Vec::new());
    feed.history(Ts(until), &mut |item| {
        if let FeedKind::Longer(frame, candle) = item.kind {
            longer.push((frame, candle.open_time));
        }
        market.take(item);
    })
    .unwrap();
    let of =
        |wanted| longer.iter().filter(|(frame, _)| *frame == wanted).map(|(_, at)| at.0 / HOUR_MS).collect::<Vec<_>>();
    assert_eq!(
        of(Timeframe::H1),
        (1..=290).collect::<Vec<_>>(),
        "the hour the candles began in is not built from them"
    );
    assert_eq!(of(Timeframe::H4).last(), Some(&288), "nor are the four hours");
    let snapshot = market.snapshot(symbol(), Ts(until)).unwrap();
    let hour = snapshot.view(Timeframe::H1).unwrap();
    assert_eq!((hour.closed_candles, hour.last.open_time), (294, Ts(294 * HOUR_MS)));
    let counts = market.feed_status(Ts(until))[0].counts;
    assert_eq!((counts.gaps, counts.late, counts.resets), (0, 0, 0), "{counts:?}");
}

/// 300 hours of minutes, then 48 hours of nothing but hours, then 12 hours of minutes; the hole begins and ends within an hour.
fn holed(folder: &std::path::Path, hours: Vec<Candle>) -> (LiveFeed, Ts) {
    let [minutes, store] = [Timeframe::M1, Timeframe::H1].map(|f| CandleStore::open(folder, f).unwrap());
    let (ends, resumes, until) = (300 * HOUR_MS + 20 * 60_000, 348 * HOUR_MS + 20 * 60_000, 361 * HOUR_MS);
    for (from, to) in [(0, ends), (resumes, until)] {
        let minute = |at| candle(i64::try_from(at).unwrap());
        let range = u64::try_from(from).unwrap()..u64::try_from(to).unwrap();
        minutes.append(symbol(), &range.step_by(60_000).map(minute).collect::<Vec<_>>()).unwrap();
    }
    store.append(symbol(), &hours).unwrap();
    let feed = LiveFeed::new("kraken", Timeframe::M1, minutes, vec![symbol()], 400 * HOUR_MS);
    (feed.with_hours(Some(store)), Ts(until))
}

/// The frame's closed candles since it began or started over, and whether they are called disturbed.
fn known(market: &mut Market, frame: Timeframe, now: Ts) -> (u64, bool) {
    let snapshot = market.snapshot(symbol(), now).unwrap();
    (snapshot.view(frame).unwrap().closed_candles, snapshot.flagged_frames.contains(&frame))
}

#[test]
fn hours_fill_a_hole_between_the_candles_and_the_frame_of_hours_does_not_start_over() {
    let folder = tempfile::tempdir().unwrap();
    let hours = (200..361).map(|hour| Candle { volume: 60.0, ..candle(hour * HOUR_MS) }).collect();
    let (mut feed, until) = holed(folder.path(), hours);
    let (mut market, mut longer) = (market(), Vec::new());
    feed.history(until, &mut |item| {
        if let FeedKind::Longer(frame, candle) = item.kind {
            longer.push((frame, candle.open_time));
        }
        market.take(item);
    })
    .unwrap();
    let of =
        |wanted| longer.iter().filter(|(frame, _)| *frame == wanted).map(|(_, at)| at.0 / HOUR_MS).collect::<Vec<_>>();
    assert_eq!(of(Timeframe::H1), (300..=348).collect::<Vec<_>>(), "those the hole lies in, whole");
    assert_eq!(of(Timeframe::H4), (300..=348).step_by(4).collect::<Vec<_>>());
    assert_eq!(known(&mut market, Timeframe::H1, until), (361, false));
    assert_eq!(known(&mut market, Timeframe::H4, until), (90, false));
    let now = Ts(until.0 + 1);
    assert_eq!(market.feed_status(now)[0].counts.late, 0, "none comes twice");
}

#[test]
fn without_hours_a_long_hole_makes_the_frame_of_hours_start_over() {
    let folder = tempfile::tempdir().unwrap();
    let (mut feed, until) = holed(folder.path(), Vec::new());
    let mut market = market();
    feed.history(until, &mut |item| {
        market.take(item);
    })
    .unwrap();
    assert_eq!(
        known(&mut market, Timeframe::H1, until),
        (13, true),
        "the hour it begins again in and the twelve after it"
    );
}

struct Nobody;

impl Actor for Nobody {
    type Context = actix::Context<Self>;
}

impl Handler<FeedEnded> for Nobody {
    type Result = ();
    fn handle(&mut self, _: FeedEnded, _: &mut actix::Context<Self>) {}
}

/// A market that has the first four minutes, ten milliseconds after the end of the fifth.
async fn at_the_end_of_five_minutes(clock: LogicalClock) -> Addr<MarketActor> {
    let folder = tempfile::tempdir().unwrap();
    let store = CandleStore::open(folder.path(), Timeframe::M1).unwrap();
    let feed = LiveFeed::new("kraken", Timeframe::M1, store, vec![symbol()], 0);
    let on_end = Nobody.start().recipient();
    let market = MarketActor::new(market(), Box::new(feed), clock, Box::new(|_| ()), on_end).start();
    for minute in 0..4 {
        market.send(minute_of(minute)).await.unwrap();
    }
    market
}

fn delivered(kind: FeedKind) -> Delivered {
    Delivered(vec![FeedItem { symbol: symbol(), available_at: Ts(300_000), kind }])
}

fn minute_of(minute: i64) -> Delivered {
    delivered(FeedKind::Candle(candle(minute * 60_000)))
}

const ASK: fn() -> ReadSnapshot = || ReadSnapshot { symbol: symbol(), by: None };

/// Start and volume of the five minutes, when they are closed.
fn five(snapshot: &Snapshot) -> Option<(Ts, f64)> {
    snapshot.view(Timeframe::M5).map(|five| (five.last.open_time, five.last.volume))
}

#[test]
fn a_snapshot_asked_for_at_the_end_of_a_candle_waits_for_the_candle() {
    run_virtual(Ts(300_010), |place| async move {
        let market = at_the_end_of_five_minutes(place.clock.clone()).await;
        let first = market.send(ASK());
        place.clock.sleep_until(Ts(300_700)).await;
        market.send(minute_of(4)).await.unwrap();
        let snapshot = first.await.unwrap().unwrap();
        assert_eq!((snapshot.as_of, five(&snapshot)), (Ts(300_700), Some((Ts(0), 5.0))));
    })
    .unwrap();
}

#[test]
fn a_candle_that_does_not_come_is_waited_for_six_seconds_and_is_taken_when_it_comes_later() {
    run_virtual(Ts(300_010), |place| async move {
        let market = at_the_end_of_five_minutes(place.clock.clone()).await;
        let early = market.send(ASK()).await.unwrap().unwrap();
        assert_eq!((early.as_of, five(&early)), (Ts(306_000), None), "not closed while a candle of it is on its way");
        market.send(minute_of(4)).await.unwrap();
        let counts = market.send(ReadFeeds).await.unwrap()[0].counts;
        assert_eq!((counts.late, counts.gaps, counts.accepted), (0, 0, 5), "{counts:?}");
        let late = market.send(ASK()).await.unwrap().unwrap();
        assert_eq!((late.as_of, five(&late)), (Ts(306_000), Some((Ts(0), 5.0))));
    })
    .unwrap();
}

#[test]
fn a_minute_nobody_traded_in_is_not_waited_for_and_ends_the_longer_candle() {
    run_virtual(Ts(300_010), |place| async move {
        let market = at_the_end_of_five_minutes(place.clock.clone()).await;
        let first = market.send(ASK());
        place.clock.sleep_until(Ts(302_000)).await;
        market.send(delivered(FeedKind::Settled(Ts(300_000)))).await.unwrap();
        let snapshot = first.await.unwrap().unwrap();
        assert_eq!((snapshot.as_of, five(&snapshot)), (Ts(302_000), Some((Ts(0), 4.0))));
        place.clock.sleep_until(Ts(360_000)).await;
        market.send(minute_of(5)).await.unwrap();
        let counts = market.send(ReadFeeds).await.unwrap()[0].counts;
        assert_eq!((counts.late, counts.missing_candles, counts.accepted), (0, 1, 5), "{counts:?}");
    })
    .unwrap();
}

#[test]
fn who_has_little_time_gets_an_answer_within_half_of_it() {
    run_virtual(Ts(300_010), |place| async move {
        let market = at_the_end_of_five_minutes(place.clock.clone()).await;
        let ask = ReadSnapshot { by: Some(Ts(301_010)), ..ASK() };
        let snapshot = market.send(ask).await.unwrap().unwrap();
        assert_eq!((snapshot.as_of, five(&snapshot)), (Ts(300_510), None));
    })
    .unwrap();
}

#[test]
fn a_symbol_without_fresh_prices_is_not_waited_for() {
    let silent = i64::from(market_settings().silence_seconds) * 1_000 + 60_000;
    run_virtual(Ts(300_000 + silent), |place| async move {
        let market = at_the_end_of_five_minutes(place.clock.clone()).await;
        let snapshot = market.send(ASK()).await.unwrap().unwrap();
        assert_eq!(snapshot.as_of, Ts(300_000 + silent));
    })
    .unwrap();
}
