//! What the bus and the runtime cost: deliveries of the pure bus, publishing to nobody, one hop of virtual time, one
//! message round trip between actors, one publication through the bus actor.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use triplegain::{
    bus::{
        Bus, BusLimits, Draft, Envelope, EnvelopeFactory, MarketData, Payload, SubscriberId, Topic,
        actor::{BusActor, Publish, Stats},
    },
    model::{Candle, Clock, Symbol, Timeframe, Ts},
    runtime::{clock::LogicalClock, placement::run_virtual, post::post, supervisor::run_fatal},
};

const START: Ts = Ts(1_700_000_000_000);

fn candle(symbol: Symbol) -> Payload {
    let candle = Candle { open_time: START, open: 1.0, high: 1.0, low: 1.0, close: 1.0, volume: 0.0 };
    Payload::Market(MarketData::CandleClosed { symbol, frame: Timeframe::M1, candle })
}

fn message(factory: &EnvelopeFactory, symbol: Symbol, now: Ts) -> Arc<Envelope> {
    factory.build(Draft::new("market", candle(symbol)), now).unwrap_or_else(|error| panic!("{error}"))
}

fn symbol() -> Symbol {
    "BTC/USDT".parse().unwrap_or_else(|error| panic!("{error}"))
}

/// Ten subscribers on one topic, every message delivered to each and settled; per delivery.
fn deliveries(c: &mut Criterion) {
    let limits = BusLimits::default();
    let (factory, mut bus) = (EnvelopeFactory::new(1, &limits), Bus::new(limits));
    let ids: Vec<SubscriberId> = (0..10).map(|n| bus.join(format!("s{n}"))).collect();
    for id in &ids {
        bus.subscribe(*id, Topic::MarketData, None);
    }
    let (mut now, symbol) = (START, symbol());
    let mut group = c.benchmark_group("bus");
    group.throughput(Throughput::Elements(10));
    group.bench_function("publish_to_ten_and_deliver", |b| {
        b.iter(|| {
            now = now.plus_ms(60_000);
            bus.publish(&message(&factory, symbol, now), now, |id| _ = black_box(id));
            for id in &ids {
                if let Some(delivery) = bus.next(*id) {
                    black_box(&delivery.message);
                    bus.settle(delivery.ticket, true);
                }
            }
        });
    });
    group.finish();
}

/// Building a message and publishing it to nobody.
fn nobody(c: &mut Criterion) {
    let limits = BusLimits::default();
    let (factory, mut bus) = (EnvelopeFactory::new(1, &limits), Bus::new(limits));
    let (mut now, symbol) = (START, symbol());
    c.bench_function("bus/publish_to_nobody", |b| {
        b.iter(|| {
            now = now.plus_ms(60_000);
            bus.publish(&message(&factory, symbol, now), now, |id| _ = black_box(id));
        });
    });
}

struct Echo;
impl Actor for Echo {
    type Context = Context<Self>;
}
#[derive(Message)]
#[rtype(result = "u64")]
struct Ask(u64);
impl Handler<Ask> for Echo {
    type Result = u64;
    fn handle(&mut self, Ask(n): Ask, _: &mut Self::Context) -> u64 {
        n + 1
    }
}

/// Runs `work` under virtual time and gives the real time it took.
fn timed<F: Future<Output = ()>>(work: impl FnOnce(LogicalClock) -> F) -> Duration {
    let measured = run_virtual(START, |place| async move {
        let begin = Instant::now();
        work(place.clock.clone()).await;
        begin.elapsed()
    });
    measured.unwrap_or_else(|error| panic!("{error}"))
}

fn runtime(c: &mut Criterion) {
    c.bench_function("runtime/virtual_minute_by_sleep", |b| {
        b.iter_custom(|n| {
            timed(|clock| async move {
                for minute in 1..=n as i64 {
                    clock.sleep_until(START.plus_ms(minute * 60_000)).await;
                }
            })
        });
    });
    c.bench_function("runtime/virtual_minute_by_advance", |b| {
        b.iter_custom(|n| {
            timed(|_| async move {
                for _ in 0..n {
                    tokio::time::advance(Duration::from_secs(60)).await;
                }
            })
        });
    });
    c.bench_function("runtime/logical_now", |b| {
        b.iter_custom(|n| {
            timed(|clock| async move {
                for _ in 0..n {
                    black_box(clock.now());
                }
            })
        });
    });
    c.bench_function("runtime/actor_round_trip", |b| {
        b.iter_custom(|n| {
            timed(|_| async move {
                let echo = Echo.start();
                for i in 0..n {
                    black_box(echo.send(Ask(i)).await.ok());
                }
            })
        });
    });
    c.bench_function("runtime/virtual_minute_with_a_round_trip", |b| {
        b.iter_custom(|n| {
            timed(|clock| async move {
                let echo = Echo.start();
                for minute in 1..=n as i64 {
                    clock.sleep_until(START.plus_ms(minute * 60_000)).await;
                    black_box(echo.send(Ask(1)).await.ok());
                }
            })
        });
    });
    c.bench_function("runtime/post_to_bus_actor_without_subscribers", |b| {
        b.iter_custom(|n| {
            timed(|clock| async move {
                let limits = BusLimits::default();
                let factory = EnvelopeFactory::new(1, &limits);
                let bus = run_fatal("bus", BusActor::new(limits, clock), |incident| panic!("{incident:?}"));
                let symbol = symbol();
                for i in 0..n {
                    post("bus", &bus, Publish(message(&factory, symbol, START)));
                    if i % 64 == 63 {
                        tokio::task::yield_now().await;
                    }
                }
                black_box(bus.send(Stats).await.ok());
            })
        });
    });
}

criterion_group!(benches, deliveries, nobody, runtime);
criterion_main!(benches);
