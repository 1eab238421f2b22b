//! The market core: ticks, snapshots, quality, gaps, no look-ahead.

use std::collections::BTreeMap;

use super::*;
use crate::{
    model::{
        Decimal, Quality, SymbolRules,
        time::{DAY_MS, HOUR_MS, MINUTE_MS},
    },
    settings::{CsvSettings, KrakenSettings, MarketSource, SimulatedSettings},
};

pub(crate) fn market_settings() -> MarketSettings {
    let rules = |min: i64, price_decimals, quantity_decimals| SymbolRules {
        min_quantity: Decimal::new(min, 4),
        price_decimals,
        quantity_decimals,
    };
    let symbol = |name: &str| name.parse().unwrap();
    MarketSettings {
        source: MarketSource::Simulated,
        csv: CsvSettings { dir: String::new() },
        simulated: SimulatedSettings {
            start_prices: BTreeMap::from([(symbol("BTC/USDT"), 45_000.0), (symbol("XRP/USDT"), 0.60)]),
            step_seconds: 1,
        },
        kraken: KrakenSettings {
            ws_url: "wss://ws.kraken.com/v2".to_owned(),
            rest_url: "https://api.kraken.com".to_owned(),
            candle_minutes: 1,
        },
        gap_fill: true,
        price_max_age_seconds: 60,
        primary_timeframe: Timeframe::H1,
        lookback: Timeframe::ALL.map(|f| (f, if f == Timeframe::H1 { 250 } else { 60 })).into_iter().collect(),
        frame_max_age_factor: 1.5,
        silence_seconds: 10,
        max_jump_pct: 50.0,
        symbol: BTreeMap::from([
            (symbol("BTC/USDT"), rules(1, 2, 8)),
            (symbol("XRP/USDT"), rules(100_000, 5, 0)),
            (symbol("XRP/BTC"), rules(100_000, 8, 0)),
        ]),
    }
}

fn btc() -> Symbol {
    "BTC/USDT".parse().unwrap()
}

fn market() -> Market {
    Market::for_symbols(&market_settings(), &[btc()], Timeframe::M1).unwrap()
}

fn minute(m: i64) -> Candle {
    let wave = 40_000.0 + 500.0 * (m as f64 / 97.0).sin() + ((m * 7919) % 101) as f64;
    Candle {
        open_time: Ts(m * MINUTE_MS),
        open: wave,
        high: wave + 20.25,
        low: wave - 20.5,
        close: wave + 5.125,
        volume: 1.0 + (m % 7) as f64,
    }
}

fn at(m: i64) -> Ts {
    Ts(m * MINUTE_MS)
}

#[test]
fn an_accepted_candle_is_a_price_with_its_range_at_its_close() {
    let mut market = market();
    let outcome = market.on_candle(btc(), Candle { open: 100.0, high: 101.239, low: 99.0, close: 100.5, ..minute(3) });
    let tick = outcome.tick.unwrap();
    assert_eq!((tick.price, tick.at, tick.price_id), (Decimal::new(10_050, 2), at(4), 1));
    let range = tick.range.unwrap();
    assert_eq!((range.from, range.high, range.low), (at(3), Decimal::new(10_124, 2), Decimal::new(9_900, 2)));
    assert_eq!(outcome.closed.len(), 1);
    assert_eq!(market.last_tick(btc()), Some(tick));
}

#[test]
fn a102_a_price_is_good_at_60_seconds_and_stale_at_61_and_never_replaced() {
    let mut market = market();
    for m in 0..120 {
        market.on_candle(btc(), minute(m));
    }
    let quality = |market: &mut Market, ms: i64| {
        let snapshot = market.snapshot(btc(), at(120).plus_ms(ms)).unwrap();
        (snapshot.quality, snapshot.price, snapshot.price_age_ms(snapshot.as_of))
    };
    let (good, price, _) = quality(&mut market, 60_000);
    let (stale, old, age) = quality(&mut market, 61_000);
    assert_eq!((good, stale, age), (Quality::Good, Quality::PriceStale, 61_000));
    assert_eq!(price, old, "the old price stays the old price");
}

#[test]
fn without_a_price_or_a_primary_candle_a_snapshot_says_so() {
    let mut market = market();
    assert_eq!(market.snapshot(btc(), at(0)).unwrap().quality, Quality::PriceStale);
    for m in 0..59 {
        market.on_candle(btc(), minute(m));
    }
    assert_eq!(market.snapshot(btc(), at(59)).unwrap().quality, Quality::PrimaryStale);
    market.on_candle(btc(), minute(59));
    let snapshot = market.snapshot(btc(), at(60)).unwrap();
    assert_eq!(snapshot.quality, Quality::Good);
    assert_eq!(snapshot.primary_view().unwrap().last.close_time(Timeframe::H1), at(60));
}

#[test]
fn a_frame_is_stale_after_one_and_a_half_lengths_and_no_other_stands_in() {
    let mut market = market();
    for m in 0..60 {
        market.on_candle(btc(), minute(m));
    }
    let last = market.last_tick(btc()).unwrap();
    for (minutes, quality) in [(150, Quality::Good), (151, Quality::PrimaryStale)] {
        market.on_price(btc(), 40_000.0, at(minutes)).unwrap();
        let snapshot = market.snapshot(btc(), at(minutes)).unwrap();
        assert_eq!(snapshot.quality, quality, "after {minutes} minutes");
        assert!(snapshot.price_id > last.price_id);
    }
    assert!(market.snapshot(btc(), at(151)).unwrap().flagged_frames.contains(&Timeframe::H1));
}

#[test]
fn a196_future_candles_changed_leave_every_earlier_snapshot_as_it_was() {
    let (mut one, mut other) = (market(), market());
    for m in 0..3000 {
        // From minute 2000 on the second market sees another future.
        let factor = if m >= 2000 { 1.5 } else { 1.0 };
        let candle = minute(m);
        let changed = Candle {
            open: candle.open * factor,
            high: candle.high * factor,
            low: candle.low * factor,
            close: candle.close * factor,
            ..candle
        };
        one.on_candle(btc(), candle);
        other.on_candle(btc(), changed);
        let same = format!("{:?}", one.snapshot(btc(), at(m + 1))) == format!("{:?}", other.snapshot(btc(), at(m + 1)));
        assert_eq!(same, m < 2000, "minute {m}");
    }
}

#[test]
fn a_snapshot_of_the_past_is_refused_instead_of_holding_the_future() {
    let mut market = market();
    market.on_candle(btc(), minute(10));
    assert!(market.snapshot(btc(), at(11).plus_ms(-1)).is_none());
    assert_eq!(market.feed_status(at(11))[0].counts.look_aheads, 1);
}

#[test]
fn a_view_is_shared_until_its_frame_closes_again() {
    let mut market = market();
    for m in 0..60 {
        market.on_candle(btc(), minute(m));
    }
    let first = market.snapshot(btc(), at(60)).unwrap();
    market.on_candle(btc(), minute(60));
    let second = market.snapshot(btc(), at(61)).unwrap();
    let same = |f: Timeframe| match (&first.frames[f.index()], &second.frames[f.index()]) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    assert!(same(Timeframe::H1) && same(Timeframe::M15) && !same(Timeframe::M1));
}

#[test]
fn a_view_carries_its_last_candles_only_where_a_model_may_be_asked() {
    let tails = |tail: usize| {
        let mut market = market();
        market.limits.tail = tail;
        for m in 0..23 {
            assert!(market.on_candle(btc(), minute(m)).rejected.is_none());
        }
        let snapshot = market.snapshot(btc(), at(23)).unwrap();
        let tail = |frame| snapshot.view(frame).map(|view| view.tail.clone());
        assert!(
            [Timeframe::M1, Timeframe::M5]
                .into_iter()
                .flat_map(tail)
                .flatten()
                .all(|c| c.close_time(Timeframe::M1) <= at(23))
        );
        (tail(Timeframe::M1).unwrap(), tail(Timeframe::M5).unwrap().len())
    };
    assert_eq!(tails(0), (Vec::new(), 0));
    let (minutes, fives) = tails(10);
    assert_eq!(minutes, (13..23).map(minute).collect::<Vec<_>>(), "oldest first, the last one included");
    assert_eq!(fives, 4, "fewer when fewer have closed");
}

#[test]
fn change_and_volume_of_a_day_appear_after_a_day() {
    let mut market = market();
    let flat =
        |m: i64, price: f64| Candle { open: price, high: price, low: price, close: price, volume: 2.0, ..minute(m) };
    for m in 0..1440 {
        market.on_candle(btc(), flat(m, 100.0));
    }
    assert_eq!(market.snapshot(btc(), at(1440)).unwrap().change_24h_pct, None);
    for m in 1440..1455 {
        market.on_candle(btc(), flat(m, 110.0));
    }
    let snapshot = market.snapshot(btc(), at(1455)).unwrap();
    assert!((snapshot.change_24h_pct.unwrap() - 10.0).abs() < 1e-9);
    assert!((snapshot.volume_24h.unwrap() - 2880.0).abs() < 1e-9);
}

#[test]
fn rejects_are_counted_by_reason_and_change_nothing() {
    let mut market = market();
    market.on_candle(btc(), minute(1));
    let before = market.last_tick(btc());
    assert_eq!(market.on_candle(btc(), minute(1)).rejected, Some(Reject::Duplicate));
    assert_eq!(market.on_candle(btc(), minute(0)).rejected, Some(Reject::Late));
    assert!(market.on_candle(btc(), Candle { close: f64::NAN, ..minute(2) }).rejected.is_some());
    assert!(market.on_candle(btc(), Candle { low: 1e-9, ..minute(2) }).rejected.is_some(), "0.00 is no price");
    assert!(market.on_price(btc(), f64::INFINITY, at(9)).is_err());
    assert_eq!(market.on_price(btc(), 5.0, at(1)), Err(Reject::Late));
    let stranger = "DOGE/USDT".parse().unwrap();
    assert_eq!(market.on_candle(stranger, minute(1)).rejected, Some(Reject::UnknownSymbol));
    let counts = market.feed_status(at(2))[0].counts;
    assert_eq!((counts.accepted, counts.duplicates, counts.late, counts.defects), (1, 1, 2, 3));
    assert_eq!((market.unknown_symbols(), market.last_tick(btc())), (1, before));
}

#[test]
fn a_feed_is_healthy_only_while_data_advances() {
    let mut market = market();
    assert!(!market.feed_status(at(0))[0].healthy, "no data yet");
    market.on_candle(btc(), minute(0));
    let healthy = |market: &Market, ms: i64| market.feed_status(at(1).plus_ms(ms))[0].healthy;
    assert!(healthy(&market, 70_000) && !healthy(&market, 70_001), "one candle and the silence limit");
    let until = at(1).plus_ms(70_000);
    assert_eq!((market.healthy_until(at(1)), market.healthy_until(until.plus_ms(1))), (Some(until), None));
    market.on_price(btc(), 40_000.0, at(1).plus_ms(1000)).unwrap();
    assert!(healthy(&market, 11_000) && !healthy(&market, 11_001), "a feed of prices has only the silence limit");
}

#[test]
fn a_short_gap_flags_the_frame_and_a_long_one_starts_its_indicators_over() {
    let mut market = market();
    for m in (0..600).chain(610..900).chain(960..1000) {
        market.on_candle(btc(), minute(m));
        let flagged = market.snapshot(btc(), at(m + 1)).unwrap().flagged_frames.contains(&Timeframe::M1);
        let expected = (610..669).contains(&m) || m >= 960;
        assert_eq!(flagged, expected, "minute {m}");
    }
    let snapshot = market.snapshot(btc(), at(1000)).unwrap();
    let minute = snapshot.view(Timeframe::M1).unwrap();
    assert_eq!((minute.closed_candles, minute.indicators.ema50), (40, None), "60 missing minutes start it over");
    assert!(minute.indicators.ema21.is_some());
    assert!(snapshot.view(Timeframe::H1).unwrap().closed_candles == 15, "one missing hour does not");
    let counts = market.feed_status(at(1000))[0].counts;
    assert_eq!((counts.gaps, counts.missing_candles), (2, 70));
}

#[test]
fn prices_inside_a_candle_have_shown_its_extremes() {
    let mut market = market();
    market.on_price(btc(), 40_000.0, at(0).plus_ms(1000)).unwrap();
    assert!(market.on_candle(btc(), minute(0)).tick.unwrap().range.is_none());
    assert!(market.on_candle(btc(), minute(1)).tick.unwrap().range.is_some());
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_to_do() {
    let settings = market_settings();
    let doge: Symbol = "DOGE/USDT".parse().unwrap();
    let error = Market::for_symbols(&settings, &[doge], Timeframe::M1).unwrap_err().to_string();
    assert!(error.contains("DOGE/USDT") && error.contains("add"), "{error}");
    assert!(Market::for_symbols(&settings, &[btc()], Timeframe::D1).is_err());
    assert_eq!(Market::history_ms(&settings, Timeframe::M1), 61 * DAY_MS);
    assert!(Market::history_ms(&settings, Timeframe::M1) > 250 * HOUR_MS);
}

/// A feed's ×1000 prices, traded on, once made 10 000 USDT into 7.7 · 10^14: more than the books can add exactly.
#[test]
fn absurd_prices_of_a_feed_are_withheld_counted_and_reach_no_indicator_and_no_price() {
    let (mut clean, mut fed) = (market(), market());
    for m in 0..90 {
        clean.on_candle(btc(), minute(m));
        fed.on_candle(btc(), minute(m));
    }
    let known = fed.last_tick(btc()).unwrap();
    for factor in [1_000.0, 0.001, 2.0, 0.5] {
        assert_eq!(fed.on_price(btc(), known_price(&known) * factor, at(90)), Err(Reject::Jump), "× {factor}");
    }
    let snapshot = fed.snapshot(btc(), at(90)).unwrap();
    assert_eq!((snapshot.quality, snapshot.price), (Quality::PriceStale, Some(known.price)), "in doubt");
    let good = clean.snapshot(btc(), at(90)).unwrap();
    assert_eq!(format!("{:?}", snapshot.frames), format!("{:?}", good.frames));
    let spike = Candle { high: 1e8, ..minute(90) };
    assert_eq!(fed.on_candle(btc(), spike).rejected, Some(Reject::Jump));
    assert!(fed.feed_status(at(91))[0].in_doubt && fed.feed_status(at(91))[0].price_at == Some(at(90)));
    let (count, newest) = fed.withheld();
    assert_eq!((count, fed.feed_status(at(91))[0].counts.withheld), (5, 5));
    assert_eq!(
        newest.map(|newest| (newest.symbol, newest.at, newest.accepted)),
        Some((btc(), at(91), Some(known.price)))
    );
    // The candle that was withheld is missing, and said so, as soon as a believable one comes.
    let outcome = fed.on_candle(btc(), minute(91));
    assert_eq!(outcome.gaps.first().map(|gap| (gap.frame, gap.from, gap.to)), Some((Timeframe::M1, at(90), at(91))));
    let snapshot = fed.snapshot(btc(), at(92)).unwrap();
    assert_eq!(snapshot.quality, Quality::Good);
    assert!(snapshot.flagged_frames.contains(&Timeframe::M1));
    assert!(!fed.feed_status(at(92))[0].in_doubt);
}

fn known_price(tick: &PriceTick) -> f64 {
    tick.price.to_string().parse().unwrap()
}

#[test]
fn a_real_new_level_is_taken_with_its_third_minute() {
    let mut market = market();
    let doubled = |m: i64| {
        let candle = minute(m);
        let [open, high, low, close] = [candle.open, candle.high, candle.low, candle.close].map(|price| price * 2.0);
        Candle { open, high, low, close, ..candle }
    };
    for m in 0..10 {
        market.on_candle(btc(), minute(m));
    }
    let taken: Vec<bool> = (10..14).map(|m| market.on_candle(btc(), doubled(m)).tick.is_some()).collect();
    assert_eq!(taken, [false, false, true, true]);
    let counts = market.feed_status(at(14))[0].counts;
    assert_eq!((counts.withheld, counts.missing_candles), (2, 2));
}

#[test]
fn a_fetched_candle_of_a_longer_frame_is_held_to_the_same_limit() {
    let mut market = market();
    let hour = |h: i64, factor: f64| {
        let candle = minute(0);
        let [open, high, low, close] = [candle.open, candle.high, candle.low, candle.close].map(|price| price * factor);
        let candle = Candle { open_time: at(h * 60), open, high, low, close, volume: 1.0 };
        FeedItem { symbol: btc(), available_at: at(h * 60 + 60), kind: FeedKind::Longer(Timeframe::H1, candle) }
    };
    for (h, factor) in [(0, 1.0), (1, 1.1), (2, 1_000.0), (3, 1.2)] {
        market.take(hour(h, factor));
    }
    let snapshot = market.snapshot(btc(), at(240)).unwrap();
    assert_eq!(snapshot.view(Timeframe::H1).unwrap().closed_candles, 3);
    assert!(snapshot.flagged_frames.contains(&Timeframe::H1));
    assert_eq!(market.withheld().0, 1);
}

#[test]
fn a_middle_is_a_price_that_says_nothing_of_what_was_traded() {
    let mut market = market();
    market.on_candle(btc(), minute(0));
    let known = market.last_tick(btc()).unwrap();
    let mid = |market: &mut Market, price: f64, second: i64| {
        let kind = FeedKind::Mid(price);
        market.take(FeedItem { symbol: btc(), available_at: at(1).plus_ms(second * 1_000), kind })
    };
    let near = known_price(&known) * 1.001;
    let tick = mid(&mut market, near, 10).unwrap();
    assert!(tick.at > known.at && tick.price_id == known.price_id + 1 && tick.range.is_none());
    assert!(mid(&mut market, near * 2.0, 11).is_none(), "too far from the last price");
    assert!(mid(&mut market, near, 9).is_none(), "older than the newest");
    // Its candle shows its extremes: nobody has seen them traded.
    let outcome = market.on_candle(btc(), minute(1));
    assert!(outcome.tick.is_some_and(|tick| tick.range.is_some()), "{outcome:?}");
}

#[test]
fn a_book_is_shown_until_it_is_lost_or_as_old_as_no_price_may_be() {
    let mut market = market();
    market.on_candle(btc(), minute(0));
    let book = Book { bid_depth_usd: 1.0, ask_depth_usd: 2.0, imbalance: 0.1, spread_bps: 7.0 };
    let item = |kind, second: i64| FeedItem { symbol: btc(), available_at: at(1).plus_ms(second * 1_000), kind };
    market.take(item(FeedKind::Book(book), 0));
    let shown = |market: &mut Market, second: i64| {
        let now = at(1).plus_ms(second * 1_000);
        (market.snapshot(btc(), now).unwrap().book, market.feed_status(now)[0].spread_bps)
    };
    let limit = Settings::defaults().market.price_max_age_seconds;
    assert_eq!(shown(&mut market, i64::from(limit)), (Some(book), Some(7.0)));
    assert_eq!(shown(&mut market, i64::from(limit) + 1), (None, None));
    market.take(item(FeedKind::Book(book), 100));
    market.take(item(FeedKind::NoBook, 101));
    assert_eq!(shown(&mut market, 101), (None, None));
}

#[test]
fn history_that_comes_late_gives_the_frames_of_a_start_that_had_it() {
    let hour = |h: i64| {
        let candle = Candle { open_time: at(h * 60), ..minute(0) };
        FeedItem { symbol: btc(), available_at: at(h * 60 + 60), kind: FeedKind::Longer(Timeframe::H1, candle) }
    };
    let candle = |m: i64| FeedItem { symbol: btc(), available_at: at(m + 1), kind: FeedKind::Candle(minute(m)) };
    let mut whole: Vec<FeedItem> = (0..300).map(hour).collect();
    whole.extend((300 * 60..302 * 60).map(candle));
    let mut started = market();
    for item in &whole {
        started.take(*item);
    }

    let mut late = market();
    for m in 300 * 60..302 * 60 {
        late.take(candle(m));
    }
    let now = at(302 * 60).plus_ms(5_000);
    let price = known_price(&late.last_tick(btc()).unwrap());
    late.on_price(btc(), price * 1.002, now).unwrap();
    let before = (late.last_tick(btc()), late.feed_status(now));
    late.rebuild(btc(), &whole);
    assert_eq!((late.last_tick(btc()), late.feed_status(now)), before, "prices and counts stay");
    let (late, started) = (late.snapshot(btc(), now).unwrap(), started.snapshot(btc(), now).unwrap());
    assert_eq!(format!("{:?}", late.frames), format!("{:?}", started.frames));
    assert!(late.view(Timeframe::H1).unwrap().closed_candles >= 300);
}

#[test]
fn any_healthy_needs_one_symbol_only() {
    let settings = Settings::defaults();
    let mut market = Market::new(&settings, Timeframe::M1).unwrap();
    assert!(!market.any_healthy(at(1)));
    market.on_candle(btc(), minute(0));
    assert!(market.any_healthy(at(1)) && market.healthy_until(at(1)).is_none());
    assert!(!market.any_healthy(at(10)));
}
