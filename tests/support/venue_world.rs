//! A program in virtual time whose store is a list of records, and the venue it talks to. It crashes when told to, and
//! what it knows besides its records is gone then.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    cell::{RefCell, RefMut},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use crate::faulty_venue::{Faults, Here, Taken, Venue};
use futures_util::FutureExt;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use rust_decimal::Decimal;
use rust_decimal_macros::dec;
use triplegain::{
    execution::{
        intent,
        remote::{self, Ask, Heard, Talks},
        restart::Gap,
        work::{self, Desk, Next, Ticks},
    },
    model::*,
    risk::{RiskRules, board::PriceBoard},
    settings::{EntryOrderType, Settings},
};

pub const START: Ts = Ts(1_767_787_080_000);
pub const PRICE: Decimal = dec!(40_000);

pub fn btc() -> Symbol {
    "BTC/USDT".parse().unwrap()
}

pub fn risk(settings: &Settings) -> RiskRules {
    RiskRules::of(settings).unwrap()
}

/// A program whose store is a list of records, and the venue it talks to.
pub struct World {
    pub settings: Settings,
    pub rules: RiskRules,
    pub board: PriceBoard,
    pub state: State,
    pub journal: Vec<Record>,
    pub talks: Talks,
    pub ticks: Ticks,
    pub wire: Rc<RefCell<Venue>>,
    pub now: Ts,
    /// Answers on their way.
    pub answers: Vec<(Ts, Ask, Heard)>,
    pub streamed_until: Ts,
    pub random: ChaCha8Rng,
    /// Chance of a crash at each of the program's steps.
    pub crashes: f64,
    pub crashed: u32,
    pub slots: u32,
    /// Of the next entries.
    pub stop: Option<Price>,
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        let mut settings = Settings::defaults();
        settings.execution.entry_order_type = EntryOrderType::Limit;
        let rules = risk(&settings);
        let mut world = World {
            rules,
            settings,
            board: PriceBoard::new("USDT".parse().unwrap()),
            state: State::default(),
            journal: Vec::new(),
            talks: Talks::default(),
            ticks: Ticks::default(),
            wire: Rc::new(RefCell::new(Venue::new(seed, PRICE, faults))),
            now: START,
            answers: Vec::new(),
            streamed_until: START,
            random: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed),
            crashes: 0.0,
            crashed: 0,
            slots: 0,
            stop: None,
        };
        world.commit(vec![Event::StoreCreated {
            store: uuid::Uuid::from_u128(seed.into()),
            seed,
            data_kind: "simulated".into(),
        }]);
        world.commit(vec![Event::Deposit { asset: "USDT".parse().unwrap(), amount: dec!(1_000_000) }]);
        world
    }

    pub fn chance(&mut self, of_one: f64) -> bool {
        ((self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64) < of_one
    }

    pub fn commit(&mut self, events: Vec<Event>) {
        for event in events {
            let record = Record {
                v: 1,
                seq: self.state.meta.seq + 1,
                epoch: 1,
                ts: self.now,
                n: None,
                actor: "test".into(),
                corr: "test".into(),
                cause: "test".into(),
                event,
            };
            let before: BTreeMap<TradeKey, TradeState> =
                self.state.trades.iter().map(|(key, trade)| (*key, trade.state)).collect();
            self.state.apply(&record).unwrap_or_else(|misfit| panic!("{misfit}: {:?}", record.event));
            for (key, trade) in &self.state.trades {
                let was = before.get(key).copied().unwrap_or(trade.state);
                let again = was == TradeState::NotExecuted && trade.state == TradeState::Submitting;
                assert!(again || trade.state.rank() >= was.rank(), "{key:?}: {was:?} -> {:?}", trade.state);
            }
            self.journal.push(record);
        }
        triplegain::execution::ledger::check_conservation(&self.state).unwrap();
    }

    /// Everything but the journal is gone.
    pub fn crash(&mut self) {
        self.crashed += 1;
        self.talks = Talks::default();
        self.ticks = Ticks::default();
        self.answers.clear();
        self.streamed_until = self.now;
    }

    /// A restart over these candles, whose prices nobody has worked on since `from`; killed after so many batches of it.
    pub fn restart(&mut self, from: Ts, candles: &[PriceTick], batches: usize) {
        self.crash();
        let mut gap = Gap::since(from, &self.state);
        candles.iter().for_each(|candle| gap.take(*candle));
        for _ in 0..batches {
            let reader = self.board.reader();
            let board = reader.read();
            let desk = Desk {
                settings: &self.settings,
                rules: &self.rules,
                board: &board,
                level: DegradationLevel::Normal,
                now: self.now,
            };
            let Some(work) = gap.next(&self.state, &mut self.talks, &desk).unwrap() else { return };
            drop(board);
            self.commit(work.events);
        }
        self.crash();
    }

    pub fn entry(&mut self, limit: Price, quantity: Qty) -> Option<TradeKey> {
        if intent::gate(&self.state, btc(), DegradationLevel::Normal).is_some() {
            return None;
        }
        self.slots += 1;
        let order = intent::EntryOrder {
            decision: DecisionId(RunId { epoch: 1, seq: u64::from(self.slots) }),
            slot: format!("slot:{}", self.slots),
            replacement: 0,
            symbol: btc(),
            side: Side::Buy,
            quantity,
            entry: limit,
            market: PRICE,
            stop: self.stop,
            target: None,
            leverage: 1,
        };
        let rules = self.settings.market.symbol[&btc()];
        let trade = intent::entry(self.state.meta.store, &order, &rules, &self.settings.execution, self.now).unwrap();
        let key = trade.key;
        self.commit(vec![Event::TradeIntent { trade: Box::new(trade) }]);
        Some(key)
    }

    pub fn exit(&mut self) -> Option<TradeKey> {
        let position = self.state.positions.values().find(|position| position.exiting.is_none())?.clone();
        self.slots += 1;
        let rules = self.settings.market.symbol[&btc()];
        let purpose = intent::ExitFor::Cause(ExitCause::Signal);
        let store = self.state.meta.store;
        let trade = intent::exit(store, &position, purpose, position.quantity, &rules, self.now).unwrap();
        let key = trade.key;
        self.commit(vec![Event::TradeIntent { trade: Box::new(trade) }]);
        Some(key)
    }

    pub fn next(&mut self) -> Next {
        self.board.set(PriceTick { symbol: btc(), price: PRICE, at: self.now, price_id: 1, range: None });
        let reader = self.board.reader();
        let board = reader.read();
        let desk = Desk {
            settings: &self.settings,
            rules: &self.rules,
            board: &board,
            level: DegradationLevel::Normal,
            now: self.now,
        };
        work::next(&self.state, &mut self.ticks, &mut self.talks, &desk).unwrap()
    }

    /// One call over the wire. The answer comes later; a lost one is noticed at the caller's timeout.
    pub fn call(&mut self, ask: Ask) {
        let here = Rc::new(Here { venue: Rc::clone(&self.wire), now: self.now });
        let heard = remote::call(here, ask.clone()).now_or_never().expect("the venue is in this process");
        let wait = if self.chance(0.8) { 50 } else { 12_000 };
        self.answers.push((self.now.plus_ms(wait), ask, heard));
    }

    pub fn venue(&self) -> RefMut<'_, Venue> {
        self.wire.borrow_mut()
    }

    /// Runs until `until`, crashing now and then.
    pub fn run(&mut self, until: Ts) {
        while self.now < until {
            let mut idle = self.now.plus_ms(1_000);
            loop {
                let next = self.next();
                let calls = self.talks.take_calls();
                let crash = self.chance(self.crashes);
                for ask in calls {
                    // Killed between two calls: some left, some did not.
                    if !crash || self.chance(0.5) {
                        self.call(ask);
                    }
                }
                match next {
                    Next::Commit(work) => {
                        // Killed before or after the commit.
                        if !crash || self.chance(0.5) {
                            self.commit(work.events);
                        }
                    }
                    Next::Idle(at) => {
                        idle = at.map_or(idle, |at| at.min(idle)).max(self.now.plus_ms(1));
                        if crash {
                            self.crash();
                        }
                        break;
                    }
                }
                if crash {
                    self.crash();
                }
            }
            let answer = self.answers.iter().map(|(at, ..)| *at).min();
            self.now = answer.map_or(idle, |at| at.min(idle)).max(self.now.plus_ms(1)).min(until);
            self.venue().deliver_held(self.now);
            self.hear();
        }
    }

    pub fn hear(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.answers).into_iter().partition(|a| a.0 <= now);
        self.answers = later;
        for (_, ask, heard) in due {
            self.talks.heard(ask.key, ask.attempt, heard);
        }
        let mut told = self.venue().stream(self.streamed_until, now);
        self.streamed_until = now;
        // The stream loses some, repeats some, and has no order.
        told.retain(|_| self.chance(0.6));
        let again: Vec<_> = told.iter().rev().cloned().collect();
        told.iter().chain(&again).for_each(|fill| self.talks.streamed(fill.clone()));
    }

    /// The venue's orders of a trade.
    pub fn taken(&self, key: TradeKey) -> Vec<Taken> {
        let venue = self.venue();
        venue.taken.iter().filter(|taken| taken.order.client_id == key.client_order_id()).cloned().collect()
    }

    pub fn ended(&self, key: TradeKey) -> TradeState {
        self.state.trade_index[&key].state
    }

    pub fn alerts(&self) -> usize {
        self.alerts_of("order_unknown")
    }

    pub fn alerts_of(&self, name: &str) -> usize {
        let alert = |event: &Event| matches!(event, Event::Noted { what, .. } if what == name);
        self.journal.iter().filter(|record| alert(&record.event)).count()
    }

    pub fn count(&self, kind: &str) -> usize {
        self.journal.iter().filter(|record| record.event.kind() == kind).count()
    }

    /// The oracle: one execution per key, and the books agree.
    pub fn check(&self, keys: &BTreeSet<TradeKey>, context: &str) {
        for key in keys {
            let taken = self.taken(*key);
            assert!(taken.len() <= 1, "{context}: {key:?} was executed {} times: {taken:#?}", taken.len());
            let told = |from: &Record| match &from.event {
                Event::TradeFill { trade_key, venue_fill, quantity, price, fee, .. } if trade_key == key => {
                    Some((venue_fill.clone().unwrap().into_string(), (*quantity, *price, *fee)))
                }
                _ => None,
            };
            let ours: Vec<_> = self.journal.iter().filter_map(told).collect();
            let unique: BTreeMap<_, _> = ours.iter().cloned().collect();
            assert_eq!(ours.len(), unique.len(), "{context}: a fill of {key:?} was booked twice");
            let theirs = taken.iter().flat_map(|taken| &taken.fills).filter(|(at, _)| *at <= self.now);
            let theirs: BTreeMap<_, _> =
                theirs.map(|(_, fill)| (fill.id.clone(), (fill.quantity, fill.price, fill.fee))).collect();
            assert_eq!(unique, theirs, "{context}: {key:?} is {:?}", self.ended(*key));
        }
    }
}
