//! Cost of one candle through indicators, market core, file parsing and the simulated market (docs/benchmarks.md).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, hint::black_box, io::Write, path::Path};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use triplegain::{
    market::{
        Feed, FeedKind, Market,
        feed::{
            csv::{CsvFeed, CsvWindow},
            simulated::SimulatedFeed,
        },
        indicators::IndicatorEngine,
    },
    model::{Candle, Decimal, Symbol, SymbolRules, Timeframe, Ts},
    settings::{CsvSettings, KrakenSettings, MarketSettings, MarketSource, SimulatedSettings},
};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

fn symbols() -> Vec<Symbol> {
    ["BTC/USDT", "XRP/USDT", "XRP/BTC"].iter().map(|name| name.parse().unwrap()).collect()
}

fn settings() -> MarketSettings {
    let rules = |price_decimals| SymbolRules { min_quantity: Decimal::ONE, price_decimals, quantity_decimals: 8 };
    MarketSettings {
        source: MarketSource::Simulated,
        csv: CsvSettings { dir: String::new() },
        simulated: SimulatedSettings {
            start_prices: BTreeMap::from([(symbols()[0], 45_000.0), (symbols()[1], 0.6)]),
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
        symbol: symbols().into_iter().zip([2, 5, 8].map(rules)).collect(),
    }
}

fn simulated(step_seconds: u32, history_ms: i64) -> (SimulatedFeed, Ts) {
    let start = Ts(1_700_000_000_000).floor_to(DAY_MS);
    let simulated = SimulatedSettings { step_seconds, ..settings().simulated };
    (SimulatedFeed::new(&simulated, &symbols(), 1, start, start, history_ms).unwrap(), start)
}

fn candles(days: i64) -> Vec<(Symbol, Candle)> {
    let (mut feed, start) = simulated(60, days * DAY_MS);
    let mut all = Vec::new();
    let keep = &mut |item: triplegain::market::FeedItem| {
        if let FeedKind::Candle(candle) = item.kind {
            all.push((item.symbol, candle));
        }
    };
    feed.history(start, keep).unwrap();
    all
}

fn indicators(c: &mut Criterion) {
    let candles: Vec<Candle> = candles(10).into_iter().step_by(3).map(|(_, candle)| candle).collect();
    let mut group = c.benchmark_group("market");
    group.throughput(Throughput::Elements(candles.len() as u64));
    group.bench_function("indicators_update", |b| {
        b.iter_batched_ref(
            IndicatorEngine::new,
            |engine| candles.iter().for_each(|candle| engine.update(black_box(candle))),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn core(c: &mut Criterion) {
    let candles = candles(10);
    let mut group = c.benchmark_group("market");
    group.throughput(Throughput::Elements(candles.len() as u64));
    let market = || Market::for_symbols(&settings(), &symbols(), Timeframe::M1).unwrap();
    group.bench_function("on_candle", |b| {
        let take = |market: &mut Market| {
            candles.iter().for_each(|(s, c)| {
                black_box(market.on_candle(*s, *c).tick);
            })
        };
        b.iter_batched_ref(market, take, BatchSize::SmallInput);
    });
    group.bench_function("on_candle_and_snapshot", |b| {
        let take = |market: &mut Market| {
            for (symbol, candle) in &candles {
                market.on_candle(*symbol, *candle);
                black_box(market.snapshot(*symbol, candle.close_time(Timeframe::M1)));
            }
        };
        b.iter_batched_ref(market, take, BatchSize::SmallInput);
    });
    let mut warm = market();
    for (symbol, candle) in &candles {
        warm.on_candle(*symbol, *candle);
    }
    let (symbol, last) = *candles.last().unwrap();
    let mut now = last.close_time(Timeframe::M1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("snapshot_nothing_closed", |b| {
        b.iter(|| {
            now = now.plus_ms(1);
            black_box(warm.snapshot(symbol, now))
        });
    });
    group.finish();
}

fn csv_files(dir: &Path, rows: i64) {
    let mut text = Vec::new();
    for i in 0..rows {
        let price = 56_000.0 + (i % 977) as f64 * 0.37;
        writeln!(
            text,
            "{},{price:.2},{:.2},{:.2},{price:.2},{}.089461,{}",
            i * 60,
            price + 9.5,
            price - 8.25,
            i % 91,
            i % 50
        )
        .unwrap();
    }
    std::fs::create_dir_all(dir.join("plain")).unwrap();
    std::fs::create_dir_all(dir.join("gz")).unwrap();
    std::fs::write(dir.join("plain/XBTUSDT_1.csv"), &text).unwrap();
    let file = std::fs::File::create(dir.join("gz/XBTUSDT_1.csv.gz")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    gz.write_all(&text).unwrap();
    gz.finish().unwrap();
}

fn feeds(c: &mut Criterion) {
    const ROWS: i64 = 200_000;
    let dir = tempfile::tempdir().unwrap();
    csv_files(dir.path(), ROWS);
    let mut group = c.benchmark_group("feed");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ROWS as u64));
    for kind in ["plain", "gz"] {
        group.bench_function(format!("csv_{kind}"), |b| {
            b.iter(|| {
                let mut feed = CsvFeed::open(&dir.path().join(kind), &symbols()[..1], CsvWindow::default()).unwrap();
                let mut rows = 0;
                while let Some(item) = feed.next() {
                    black_box(item.unwrap());
                    rows += 1;
                }
                assert_eq!(rows, ROWS);
            });
        });
    }
    group.throughput(Throughput::Elements(3 * 60 * 1440));
    for step in [1, 60] {
        group.bench_function(format!("simulated_history_60_days_step_{step}"), |b| {
            b.iter(|| {
                let (mut feed, start) = simulated(step, 60 * DAY_MS);
                let mut rows = 0;
                feed.history(start, &mut |item| {
                    black_box(item);
                    rows += 1;
                })
                .unwrap();
                assert_eq!(rows, 3 * 60 * 1440);
            });
        });
    }
    group.throughput(Throughput::Elements(1000));
    group.bench_function("simulated_next", |b| {
        let (mut feed, start) = simulated(1, 0);
        feed.history(start.plus_ms(MINUTE_MS), &mut |_| {}).unwrap();
        b.iter(|| (0..1000).for_each(|_| drop(black_box(feed.next()))));
    });
    group.finish();
}

criterion_group!(benches, indicators, core, feeds);
criterion_main!(benches);
