//! The simulated market: one seed, one market, whenever it is looked at.

use super::*;
use crate::{market::Market, model::time::DAY_MS};

const SEED: u64 = 42;

fn origin() -> Ts {
    Ts::parse("2024-01-10T09:30:17Z").unwrap()
}

fn settings(step_seconds: u32) -> SimulatedSettings {
    SimulatedSettings { step_seconds, ..crate::market::core::tests::market_settings().simulated }
}

fn symbols() -> Vec<Symbol> {
    ["BTC/USDT", "XRP/USDT", "XRP/BTC"].iter().map(|name| name.parse().unwrap()).collect()
}

fn feed(seed: u64, step: u32, start: Ts, history_ms: i64) -> SimulatedFeed {
    SimulatedFeed::new(&settings(step), &symbols(), seed, origin(), start, history_ms).unwrap()
}

fn history(feed: &mut SimulatedFeed, until: Ts) -> Vec<FeedItem> {
    let mut items = Vec::new();
    feed.history(until, &mut |item| items.push(item)).unwrap();
    items
}

fn take(feed: &mut SimulatedFeed, n: usize) -> Vec<FeedItem> {
    std::iter::from_fn(|| feed.next()).take(n).map(|item| item.unwrap()).collect()
}

fn candles(items: &[FeedItem], symbol: Symbol) -> Vec<Candle> {
    items
        .iter()
        .filter(|item| item.symbol == symbol)
        .filter_map(|item| match item.kind {
            FeedKind::Candle(candle) => Some(candle),
            _ => None,
        })
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_market_and_another_seed_another() {
    let run = |seed| take(&mut feed(seed, 1, origin(), 0), 20_000);
    assert_eq!(run(SEED), run(SEED));
    assert_ne!(run(SEED), run(SEED + 1));
}

#[test]
fn prices_at_the_first_start_are_the_configured_ones() {
    for seed in 1..20 {
        let mut feed = feed(seed, 1, origin(), 0);
        history(&mut feed, origin());
        let items = take(&mut feed, 3);
        for (item, start) in items.iter().zip([45_000.0, 0.60, 0.60 / 45_000.0]) {
            let FeedKind::Price(price) = item.kind else { panic!("a price") };
            assert_eq!(item.available_at, Ts::parse("2024-01-10T09:30:18Z").unwrap());
            assert!((price / start - 1.0).abs() < 0.02, "seed {seed}: {} at {price}", item.symbol);
        }
    }
}

#[test]
fn a_restart_continues_the_same_market() {
    let mut whole = feed(SEED, 1, origin(), 0);
    history(&mut whole, origin());
    let later = origin().plus_ms(2 * HOUR_MS + 12_345);
    let rest: Vec<FeedItem> = take(&mut whole, 60_000).into_iter().filter(|item| item.available_at > later).collect();
    let mut restarted = feed(SEED, 1, later, 3 * HOUR_MS);
    history(&mut restarted, later);
    assert_eq!(take(&mut restarted, rest.len()), rest);
    assert!(rest.len() > 10_000);
}

#[test]
fn history_holds_the_very_candles_that_were_delivered_live() {
    let mut live = feed(SEED, 1, origin(), 0);
    history(&mut live, origin());
    let delivered = take(&mut live, 60_000);
    let until = delivered.last().unwrap().available_at;
    let mut later = feed(SEED, 1, until, DAY_MS);
    let remembered = history(&mut later, until);
    for symbol in symbols() {
        let delivered = candles(&delivered, symbol);
        let remembered = candles(&remembered, symbol);
        assert!(delivered.len() > 300);
        assert!(remembered.windows(delivered.len() - 1).any(|part| part == &delivered[..delivered.len() - 1]));
    }
}

#[test]
fn another_step_sees_the_same_prices_at_the_same_instants() {
    let prices = |step| -> BTreeMap<(Ts, Symbol), f64> {
        let mut feed = feed(SEED, step, origin(), 0);
        history(&mut feed, origin());
        let items = std::iter::from_fn(|| feed.next()).map(|item| item.unwrap());
        let until = origin().plus_ms(2 * HOUR_MS);
        let prices = items.take_while(|item| item.available_at <= until).filter_map(|item| match item.kind {
            FeedKind::Price(price) => Some(((item.available_at, item.symbol), price)),
            FeedKind::Candle(candle) => Some(((item.available_at, item.symbol), candle.close)),
            FeedKind::Mid(_) | FeedKind::Book(_) | FeedKind::NoBook | FeedKind::Longer(..) | FeedKind::Settled(_) => {
                None
            }
        });
        prices.collect()
    };
    let finest = prices(1);
    for step in [2, 7, 30, 60] {
        let coarse = prices(step);
        assert!(coarse.len() >= 3 * 119);
        for (key, price) in coarse {
            assert_eq!(finest.get(&key), Some(&price), "step {step}, {key:?}");
        }
    }
}

#[test]
fn minutes_follow_one_another_without_holes_and_are_candles_the_market_takes() {
    let mut feed = feed(SEED, 60, origin(), 2 * DAY_MS);
    let items = history(&mut feed, origin());
    let settings = crate::market::core::tests::market_settings();
    let mut market = Market::for_symbols(&settings, &symbols(), feed.base()).unwrap();
    for item in &items {
        let FeedKind::Candle(candle) = item.kind else { panic!("history is candles") };
        assert_eq!(market.on_candle(item.symbol, candle).rejected, None);
    }
    for status in market.feed_status(origin()) {
        assert_eq!((status.counts.gaps, status.counts.accepted), (0, 2880), "{}", status.symbol);
    }
    for symbol in symbols() {
        for pair in candles(&items, symbol).windows(2) {
            assert!((pair[0].close / pair[1].open - 1.0).abs() < 1e-12, "{symbol} at {}", pair[1].open_time);
        }
    }
}

#[test]
fn the_cross_pair_is_the_ratio_of_the_other_two() {
    let items = take(&mut feed(SEED, 1, origin(), 0), 3_000);
    let prices: Vec<f64> = items
        .iter()
        .filter_map(|item| match item.kind {
            FeedKind::Price(price) => Some(price),
            _ => None,
        })
        .collect();
    for three in prices.chunks_exact(3) {
        assert_eq!(three[2], three[1] / three[0]);
    }
}

#[test]
fn a_symbol_without_price_is_refused_with_what_to_do() {
    let doge: Symbol = "DOGE/EUR".parse().unwrap();
    let error = SimulatedFeed::new(&settings(1), &[doge], SEED, origin(), origin(), 0).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("add it to `[market.simulated.start_prices]`"), "{error}");
}

/// Hours in which at least four of the five trend rules of domain.md §6.1 agree, per symbol and 60 days.
fn agreements(seed: u64) -> (usize, f64, f64) {
    let start = origin().plus_ms(60 * DAY_MS);
    let mut feed = feed(seed, 60, start, 80 * DAY_MS);
    let settings = crate::market::core::tests::market_settings();
    let mut market = Market::for_symbols(&settings, &symbols(), feed.base()).unwrap();
    let (mut entries, mut closes, mut apart) = (0, Vec::new(), true);
    for item in history(&mut feed, start) {
        let FeedKind::Candle(candle) = item.kind else { continue };
        let hour = market.on_candle(item.symbol, candle).closed.iter().any(|c| c.frame == Timeframe::H1);
        if !hour || item.symbol != symbols()[0] {
            continue;
        }
        closes.push(candle.close);
        let snapshot = market.snapshot(item.symbol, item.available_at).unwrap();
        let v = &snapshot.primary_view().unwrap().indicators;
        let close = candle.close;
        let votes = [
            v.ema9 > v.ema21 && Some(close) > v.ema50 && v.ema50.is_some(),
            v.macd_line > Some(0.0) && v.macd_histogram > Some(0.0) && v.macd_histogram > v.macd_histogram_previous,
            v.supertrend_up == Some(true) && v.adx14 >= Some(20.0),
            v.breakout_up_level.is_some(),
            v.rsi14 > Some(50.0) && v.rsi14 < Some(70.0) && v.ema50.is_some_and(|ema| close > ema),
        ];
        let agree = votes.iter().filter(|vote| **vote).count() >= 4;
        entries += usize::from(agree && apart);
        apart = !agree;
    }
    let returns: Vec<f64> = closes.windows(2).map(|pair| (pair[1] / pair[0]).ln()).collect();
    let deviation = (returns.iter().map(|r| r * r).sum::<f64>() / returns.len() as f64).sqrt();
    let sizes: Vec<f64> = returns.iter().map(|r| r.abs()).collect();
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    let variance: f64 = sizes.iter().map(|s| (s - mean) * (s - mean)).sum();
    let clustering = sizes.windows(2).map(|p| (p[0] - mean) * (p[1] - mean)).sum::<f64>() / variance;
    (entries, deviation, clustering)
}

#[test]
fn the_market_trends_clusters_and_gives_the_rules_something_to_agree_on() {
    let (mut entries, mut clustering) = (0, 0.0);
    for seed in 1..=2 {
        let (found, deviation, cluster) = agreements(seed);
        println!(
            "seed {seed}: {found} agreements in 80 days, hourly deviation {deviation:.5}, clustering {cluster:.3}"
        );
        assert!(found >= 10, "seed {seed}: {found} agreements in 80 days");
        assert!((0.003..0.012).contains(&deviation), "seed {seed}: {deviation}");
        entries += found;
        clustering += cluster / 2.0;
    }
    assert!(entries < 2 * 400, "not an hourly event");
    assert!(clustering > 0.08, "large moves follow large moves: {clustering}");
}

#[test]
fn a_symbol_has_the_same_market_whoever_else_is_watched() {
    let all = symbols();
    let start = origin().plus_ms(3 * DAY_MS);
    let items = |symbols: &[Symbol]| {
        let mut feed = SimulatedFeed::new(&settings(20), symbols, SEED, origin(), start, DAY_MS).unwrap();
        let mut items = history(&mut feed, start);
        items.extend(take(&mut feed, 500 * symbols.len()));
        items
    };
    let together = items(&all);
    for symbol in &all {
        let own: Vec<FeedItem> = together.iter().filter(|item| item.symbol == *symbol).copied().collect();
        assert_eq!(items(&[*symbol]), own, "{symbol}");
    }
}
