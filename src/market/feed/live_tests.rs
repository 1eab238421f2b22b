//! Hours from before the candles, and candles that arrive after their end.

use actix::{Actor, Handler};

use super::*;
use crate::{
    market::{
        Market,
        actor::{Delivered, FeedEnded, MarketActor, ReadFeeds, ReadSnapshot},
        core::tests::market_settings,
    },
    model::{Candle, time::HOUR_MS},
    runtime::clock::LogicalClock,
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

struct Nobody;

impl Actor for Nobody {
    type Context = actix::Context<Self>;
}

impl Handler<FeedEnded> for Nobody {
    type Result = ();
    fn handle(&mut self, _: FeedEnded, _: &mut actix::Context<Self>) {}
}

#[test]
fn a_snapshot_between_the_end_of_a_candle_and_its_arrival_does_not_lose_the_candle() {
    actix::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let store = CandleStore::open(folder.path(), Timeframe::M1).unwrap();
        let feed = LiveFeed::new("kraken", Timeframe::M1, store, vec![symbol()], 0);
        // Ten milliseconds after the end of five minutes; the last of them is still on its way.
        let clock = LogicalClock::start(Ts(300_010), 1);
        let on_end = Nobody.start().recipient();
        let market = MarketActor::new(market(), Box::new(feed), clock, Box::new(|_| ()), on_end).start();
        let deliver = |minute: i64| {
            let kind = FeedKind::Candle(candle(minute * 60_000));
            Delivered(vec![FeedItem { symbol: symbol(), available_at: Ts(300_000), kind }])
        };
        for minute in 0..4 {
            market.send(deliver(minute)).await.unwrap();
        }
        let ask = ReadSnapshot { symbol: symbol() };
        let early = market.send(ask).await.unwrap().unwrap();
        assert!(early.view(Timeframe::M5).is_none(), "not closed while a candle of it is on its way");
        market.send(deliver(4)).await.unwrap();
        let counts = market.send(ReadFeeds).await.unwrap()[0].counts;
        assert_eq!((counts.late, counts.gaps, counts.accepted), (0, 0, 5), "{counts:?}");
        let five = market.send(ask).await.unwrap().unwrap();
        let five = five.view(Timeframe::M5).unwrap().last;
        assert_eq!((five.open_time, five.volume), (Ts(0), 5.0));
    });
}
