//! Cost of an order from the first to the fifty-thousandth: intent, venue, fill, settlement and the fold of the view,
//! through the loop of execution and a store in memory. Run with `cargo bench --bench orders`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use triplegain::{
    execution::{
        intent::{self, EntryOrder, Insertion},
        venue::PaperVenue,
        work::{self, Desk, Next, Ticks},
    },
    model::*,
    risk::{RiskRules, board::PriceBoard},
    settings::{EntryOrderType, Settings},
    store::{
        Batch, OpenInfo, Store,
        view::{CommitLog, StateView},
    },
};

/// Entry and exit are an order each.
const ROUND_TRIPS: u64 = 27_500;
const WINDOW: usize = 1_000;
const MINUTE: i64 = 60_000;

struct Desktop {
    settings: Settings,
    rules: RiskRules,
    venue: PaperVenue,
    ticks: Ticks,
    board: PriceBoard,
    store: Store,
    log: CommitLog,
    view: StateView,
    now: Ts,
    symbol: Symbol,
    number: u64,
}

impl Desktop {
    fn new() -> Desktop {
        let mut settings = Settings::defaults();
        settings.execution.entry_order_type = EntryOrderType::Market;
        let rules = RiskRules::of(&settings);
        let venue = PaperVenue::new(&settings, "bench".into());
        let now = Ts::from_secs(1_600_000_000);
        let info = OpenInfo {
            seed: 7,
            data_kind: "simulated".into(),
            config_hash: "c".repeat(64),
            version: "bench".into(),
            now,
            // Fees of tens of thousands of orders must not empty the account.
            deposits: [("USDT".parse().unwrap(), Decimal::from(1_000_000_000))].into(),
            stands_still: false,
            store_id: None,
        };
        let (store, opened) = Store::memory(&info, None).unwrap();
        let log = CommitLog::default();
        let view = StateView::new(opened.state, log.clone(), Rc::new(|misfit| panic!("{misfit}")));
        let board = PriceBoard::new(settings.account_currency);
        let (symbol, ticks) = ("BTC/USDT".parse().unwrap(), Ticks::default());
        Desktop { rules: rules.unwrap(), settings, venue, ticks, board, store, log, view, now, symbol, number: 0 }
    }

    fn commit(&mut self, corr: String, cause: String, events: Vec<Event>) {
        let batch = Batch::new("execution", corr, cause, self.now, events);
        let committed = self.store.commit(batch).unwrap().unwrap();
        self.log.push(committed.records);
    }

    /// The loop of the execution actor: ask, commit, ask again; time moves on when a venue wants it to.
    fn drive(&mut self) {
        loop {
            let prices = self.board.reader();
            let next = {
                let board = prices.read();
                let desk = Desk {
                    settings: &self.settings,
                    rules: &self.rules,
                    board: &board,
                    level: DegradationLevel::Normal,
                    now: self.now,
                };
                work::next(&self.view.read(), &mut self.ticks, &mut self.venue, &desk).unwrap()
            };
            match next {
                Next::Commit(work) => self.commit(work.corr, work.cause, work.events),
                Next::Idle(Some(at)) if at.since_ms(self.now) < 1_000 => self.now = at,
                Next::Idle(_) => return,
            }
        }
    }

    fn price(&mut self, price: i64) {
        self.number += 1;
        let (price, price_id) = (Decimal::from(price), self.number);
        let tick = PriceTick { symbol: self.symbol, price, at: self.now, price_id, range: None };
        self.board.set(tick);
        self.ticks.push(tick);
        self.drive();
    }

    /// An entry at the market, then a price beyond its target: two orders.
    fn round_trip(&mut self, number: u64) -> [Duration; 2] {
        self.now = self.now.plus_ms(MINUTE);
        self.price(50_000);
        let order = EntryOrder {
            decision: DecisionId(RunId { epoch: 1, seq: number }),
            slot: format!("trading_decision:{}:{number}", self.symbol),
            replacement: 0,
            symbol: self.symbol,
            side: Side::Buy,
            quantity: Decimal::new(1, 2),
            entry: Decimal::from(50_000),
            market: Decimal::from(50_000),
            stop: Some(Decimal::from(49_000)),
            target: Some(Decimal::from(51_000)),
            leverage: 1,
        };
        let began = Instant::now();
        let rules = self.settings.market.symbol[&self.symbol];
        let store = self.view.read().meta.store;
        let trade = intent::entry(store, &order, &rules, &self.settings.execution, self.now).unwrap();
        let Insertion::New(event) = intent::insert(&self.view.read(), trade) else { panic!("the key is used") };
        self.commit("bench".into(), "bench".into(), vec![*event]);
        self.drive();
        let entry = began.elapsed();
        self.now = self.now.plus_ms(MINUTE);
        let began = Instant::now();
        self.price(51_500);
        [entry, began.elapsed()]
    }
}

fn main() {
    let mut desk = Desktop::new();
    let mut times: Vec<Duration> = Vec::with_capacity(2 * ROUND_TRIPS as usize);
    for number in 0..ROUND_TRIPS {
        times.extend(desk.round_trip(number));
    }
    let totals = desk.view.read().totals.clone();
    assert_eq!((totals.orders, totals.fills, totals.closed_trades), (2 * ROUND_TRIPS, 2 * ROUND_TRIPS, ROUND_TRIPS));
    println!("{} orders, {} records", totals.orders, desk.view.read().meta.seq);
    let window = |from: usize| {
        let mut part: Vec<Duration> = times[from..from + WINDOW].to_vec();
        part.sort();
        let sum: Duration = part.iter().sum();
        let (mean, median) = (sum.as_secs_f64() / WINDOW as f64 * 1e6, part[WINDOW / 2].as_secs_f64() * 1e6);
        println!("orders {from:>6}..{:<6} mean {mean:>6.2} µs  median {median:>6.2} µs", from + WINDOW);
        median
    };
    let first = window(0);
    let last = [9_500, 24_500, 49_500].map(window)[2];
    println!("median of the fifty-thousandth against the first: {:.2}", last / first);
}
