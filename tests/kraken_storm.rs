//! The link to the venue over a real socket that is lost twenty times in a row, as soon as everything was subscribed. Its
//! waits are short here; how they grow is a test of the session.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/kraken_venue.rs"]
mod kraken_venue;

use std::{cell::RefCell, collections::BTreeMap, fs, rc::Rc, time::Duration};

use actix::prelude::*;
use kraken_venue::Venue;
use tokio::{sync::Notify, time::timeout};
use triplegain::{
    bus::{
        BusLimits, EnvelopeFactory,
        actor::{BusActor, Publisher},
    },
    market::{
        actor::{Delivered, Rewarm},
        feed::{
            FeedKind,
            candle_store::CandleStore,
            kraken::{
                actor::link::{self, Parts},
                session::Waits,
                view::Shared,
            },
        },
    },
    model::{Symbol, Timeframe, Ts},
    runtime::{
        clock::{LogicalClock, wall_now},
        supervisor::run_fatal,
    },
};

const STORM: u32 = 20;

/// Stands for the market: the candles of each symbol in the order they came.
#[derive(Clone, Default)]
struct Market(Rc<RefCell<BTreeMap<Symbol, Vec<Ts>>>>, Rc<Notify>);

impl Actor for Market {
    type Context = Context<Self>;
}

impl Handler<Delivered> for Market {
    type Result = ();
    fn handle(&mut self, Delivered(items): Delivered, _: &mut Context<Self>) {
        for item in items {
            if let FeedKind::Candle(candle) = item.kind {
                self.0.borrow_mut().entry(item.symbol).or_default().push(candle.open_time);
            }
        }
        self.1.notify_one();
    }
}

impl Handler<Rewarm> for Market {
    type Result = ();
    fn handle(&mut self, _: Rewarm, _: &mut Context<Self>) {}
}

#[actix_rt::test]
async fn twenty_lost_connections_in_a_row_cost_no_candle_and_ask_rest_no_more_than_once_a_second() {
    let venue = Venue::start();
    venue.control().drops = STORM;
    let folder = tempfile::tempdir().unwrap();
    let store = CandleStore::open(folder.path(), Timeframe::M1).unwrap();
    let clock = LogicalClock::start(wall_now(), 1);
    let limits = BusLimits::default();
    let factory = EnvelopeFactory::new(1, &limits);
    let bus = run_fatal("bus", BusActor::new(limits, clock.clone()), |incident| panic!("{incident:?}"));
    let (market, view) = (Market::default(), Shared::default());
    let address = market.clone().start();
    let symbols: Vec<Symbol> = ["BTC/USDT", "XRP/USDT"].map(|name| name.parse().unwrap()).to_vec();
    let began = std::time::Instant::now();
    let link = link::start(Parts {
        symbols: symbols.clone(),
        frame: Timeframe::M1,
        ws_url: venue.ws_url(),
        rest_url: venue.rest_url(),
        silence_ms: 60_000,
        gap_fill: true,
        clock: clock.clone(),
        market: address.clone().recipient(),
        rewarm: address.recipient(),
        store: store.clone(),
        hours: None,
        view: view.clone(),
        on_silence: Rc::new(|_| ()),
        seed: 7,
        waits: Waits { first_ms: 1, longest_ms: 50 },
        bus: Publisher::new(bus, factory, clock),
    });
    let calm = || {
        let link = view.read();
        let served = symbols.iter().all(|symbol| link.symbols.get(symbol).is_some_and(|line| line.subscribed));
        let filled = |symbol: &Symbol| market.0.borrow().get(symbol).is_some_and(|starts| starts.len() >= 719);
        link.connected && link.reconnects >= u64::from(STORM) && served && symbols.iter().all(filled)
    };
    let storm = async {
        while !calm() {
            market.1.notified().await;
        }
    };
    timeout(Duration::from_secs(120), storm).await.expect("the storm to end with all candles");
    let asked = venue.control().asked.iter().filter(|path| path.contains("OHLC")).count() as u64;
    link.abort();

    let shown = view.read();
    assert_eq!((shown.losses, shown.reconnects, shown.odd_frames), (u64::from(STORM), u64::from(STORM), 0));
    assert!(asked <= began.elapsed().as_secs() + 2, "{asked} questions in {:?}", began.elapsed());
    for symbol in &symbols {
        let starts = market.0.borrow()[symbol].clone();
        let steps: Vec<i64> = starts.windows(2).map(|pair| pair[1].since_ms(pair[0])).collect();
        assert!(steps.iter().all(|step| *step == 60_000), "{symbol}: a hole or a double in {steps:?}");
        assert_eq!(shown.symbols[symbol].unfilled_candles, 0);
        let kept = fs::read_to_string(store.path(*symbol)).unwrap();
        assert_eq!(kept.lines().count(), starts.len(), "{symbol}: what was handed on is kept");
    }
}
