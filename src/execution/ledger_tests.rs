//! Tests of the ledger rules of `execution`, by the ids of the acceptance scenarios they hold.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::{super::testkit::*, *};
use crate::{
    execution::{intent, settle},
    model::{Event, Position, TradeKey, TradeState},
    settings::EntryOrderType,
};

#[test]
fn cost_leaves_in_parts_and_the_rest_keeps_the_remainder() {
    assert_eq!(cost_out(dec!(3), dec!(100), dec!(1)), dec!(33.33333333333333));
    assert_eq!(cost_out(dec!(2), dec!(66.66666666666667), dec!(2)), dec!(66.66666666666667));
    assert_eq!(cost_out(Decimal::ZERO, dec!(5), dec!(1)), dec!(5));
    assert_eq!(fee_of(dec!(1200), dec!(0.26)), Some(dec!(3.12)));
    assert_eq!(value_of(Decimal::MAX, dec!(10)), None);
}

#[test]
fn lock_at_intent_covers_the_worst_price_and_fee() {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let key = book.submit(&order);
    assert_eq!(book.locked("USDT"), dec!(1203.12));
    book.commit(vec![Event::TradeRejected { trade_key: key, reason: "test".into() }]);
    book.execution.entry_order_type = EntryOrderType::Market;
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    book.submit(&order);
    assert_eq!(book.locked("USDT"), dec!(1201.2) * dec!(1.0026));
}

#[test]
fn xrp_btc_is_paid_in_btc_and_returns_btc() {
    let mut book = Book::new(&[("USDT", dec!(1000)), ("BTC", dec!(0.5))]);
    book.execution.paper.slippage_pct = Decimal::ZERO;
    let pair = symbol("XRP/BTC");
    book.buy(pair, dec!(0.1), dec!(0.00001000));
    assert_eq!((book.free("BTC"), book.free("XRP")), (dec!(0.39974), dec!(10_000)));
    assert_eq!(book.free("USDT"), dec!(1000));
    book.now = book.now.plus_ms(1_000);
    let position = book.state.positions.keys().next().copied().unwrap();
    let call = super::super::supervise::ExitCall {
        position,
        cause: crate::model::ExitCause::Target,
        price: tick(pair, dec!(0.00001100), book.now),
        evidence: None,
    };
    book.exit(&call);
    assert_eq!(book.free("BTC"), dec!(0.39974) + dec!(0.11) - dec!(0.000286));
    assert_eq!(book.free("XRP"), Decimal::ZERO);
}

#[test]
fn what_positions_own_is_not_spendable() {
    let mut book = Book::new(&[("USDT", dec!(10_000)), ("BTC", dec!(0.1))]);
    book.execution.paper.slippage_pct = Decimal::ZERO;
    book.buy(btc(), dec!(1200), dec!(40_000));
    assert_eq!((book.free("BTC"), spendable(&book.state, btc().base)), (dec!(0.13), dec!(0.1)));
    // While an exit holds its quantity locked, the rest is still the inventory.
    let position = book.state.positions.values().next().unwrap().clone();
    let trade = exit_trade(&book, &position, dec!(0.03), 0);
    book.submit_trade(trade);
    assert_eq!((book.free("BTC"), spendable(&book.state, btc().base)), (dec!(0.1), dec!(0.1)));
}

fn exit_trade(book: &Book, position: &Position, quantity: Qty, number: u32) -> Trade {
    let breach = crate::model::EmergencyKey {
        breach: "walk".into(),
        period: "1".into(),
        action: crate::model::EmergencyAction::ReducePositions,
    };
    let purpose = intent::ExitFor::Emergency(breach, number);
    let rules = rules()[&position.symbol];
    intent::exit(book.state.meta.store, position, purpose, quantity, &rules, book.now).unwrap()
}

#[test]
fn a_break_is_named() {
    let mut book = Book::usdt(dec!(100));
    let usdt: Asset = "USDT".parse().unwrap();
    book.state.account.ledger.get_mut(&usdt).unwrap().insert(LedgerAccount::Free, dec!(100.00000000000001));
    assert!(check_conservation(&book.state).unwrap_err().0.contains("USDT: free + locked is 100.00000000000001"));
}

struct Walk {
    book: Book,
    random: ChaCha8Rng,
    number: u32,
}

impl Walk {
    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn price(&mut self, symbol: Symbol) -> Price {
        let wobble = 9_000 + self.below(2_000) as i64;
        match symbol.to_string().as_str() {
            "BTC/USDT" => Decimal::new(4_123_751 * wobble / 10_000, 2),
            "XRP/USDT" => Decimal::new(61_237 * wobble / 10_000, 5),
            _ => Decimal::new(1_487 * wobble / 10_000, 8),
        }
    }

    fn symbol(&mut self) -> Symbol {
        [btc(), symbol("XRP/USDT"), symbol("XRP/BTC")][self.below(3) as usize]
    }

    /// One event of an account's life: entries, inventory trades, exits, cancels, deposits, answers of the venue.
    fn step(&mut self) {
        self.book.now = self.book.now.plus_ms(200);
        let living: Vec<TradeKey> = self.book.state.trades.keys().copied().collect();
        match self.below(10) {
            0 if self.number.is_multiple_of(50) => {
                let event = Event::Deposit { asset: "USDT".parse().unwrap(), amount: dec!(123.45) };
                self.book.commit(vec![event]);
            }
            0..=2 => self.enter(),
            3 => self.inventory(),
            4 | 5 => self.leave(),
            6 if !living.is_empty() => {
                let key = living[self.below(living.len() as u64) as usize];
                if self.book.state.trades[&key].state.may_become(TradeState::Cancelled) {
                    self.book.commit(vec![Event::TradeCancelled { trade_key: key, reason: "walk".into() }]);
                }
            }
            _ if !living.is_empty() => {
                let key = living[self.below(living.len() as u64) as usize];
                self.ask(key);
            }
            _ => self.enter(),
        }
    }

    fn ask(&mut self, key: TradeKey) {
        let symbol = self.book.state.trades[&key].body.symbol;
        let price = tick(symbol, self.price(symbol), self.book.now);
        self.book.venue(key, &price);
    }

    fn enter(&mut self) {
        let symbol = self.symbol();
        let price = self.price(symbol);
        let notional = Decimal::from(self.below(900) + 50);
        let notional = if symbol.quote == btc().quote { notional } else { notional / dec!(100_000) };
        self.book.execution.entry_order_type =
            if self.below(2) == 0 { EntryOrderType::Limit } else { EntryOrderType::Market };
        let order = self.book.entry_order(symbol, notional, price);
        let rules = rules()[&symbol];
        let (store, now) = (self.book.state.meta.store, self.book.now);
        let trade = intent::entry(store, &order, &rules, &self.book.execution, now).unwrap();
        self.make(trade);
    }

    fn inventory(&mut self) {
        let symbol = if self.below(2) == 0 { btc() } else { symbol("XRP/USDT") };
        let side = if self.below(2) == 0 { Side::Buy } else { Side::Sell };
        let price = self.price(symbol);
        let rules = rules()[&symbol];
        let wanted = Decimal::from(self.below(500) + 20);
        let mut body = OrderBody {
            symbol,
            side,
            quantity: intent::quantity_for(wanted, price, &rules).unwrap(),
            order_type: OrderType::Market,
            time_in_force: crate::model::TimeInForce::Gtc,
            stop: None,
            target: None,
            leverage: 1,
            position: None,
            exit_cause: None,
        };
        if side == Side::Sell {
            body.quantity = body.quantity.min(rules.floor_quantity(spendable(&self.book.state, symbol.base)));
        }
        self.number += 1;
        let kind = crate::model::TradeKind::Rebalance;
        let key = TradeKey::derive(self.book.state.meta.store, kind, "walk", &self.number.to_string(), symbol, side);
        let mut trade = intent::new_trade(key, kind, "walk".into(), self.number.to_string(), body, self.book.now);
        trade.lock = intent::lock(&trade.body, price, &self.book.execution).unwrap();
        self.make(trade);
    }

    fn make(&mut self, trade: Trade) {
        self.number += 1;
        match intent::unaffordable(&self.book.state, &trade, &rules()[&trade.body.symbol]) {
            Some(reason) => self.book.commit(intent::refuse(trade, reason, self.book.now)),
            None => {
                self.book.submit_trade(trade);
            }
        }
    }

    fn leave(&mut self) {
        let open: Vec<Position> = self.book.state.positions.values().filter(|p| p.exiting.is_none()).cloned().collect();
        if open.is_empty() {
            return;
        }
        let position = &open[self.below(open.len() as u64) as usize];
        let share = Decimal::new(self.below(200) as i64 + 1, 2).min(Decimal::ONE);
        self.number += 1;
        let trade = exit_trade(&self.book, position, position.quantity * share, self.number);
        self.book.commit(vec![
            Event::TradeIntent { trade: Box::new(trade.clone()) },
            settle::submitting(&trade, self.book.now),
        ]);
    }
}

#[test]
fn a191_e10_2000_random_account_events_conserve_every_unit() {
    for seed in [1u64, 20_240_607, 77] {
        println!("seed {seed}");
        let mut book = Book::new(&[("USDT", dec!(10_000)), ("BTC", dec!(0.05)), ("XRP", dec!(500))]);
        book.execution.paper.partial_fills.enabled = true;
        book.execution.paper.partial_fills.chance = 0.4;
        let mut walk = Walk { book, random: ChaCha8Rng::seed_from_u64(seed), number: 0 };
        let mut steps = 0;
        while walk.book.state.meta.seq < 2_000 {
            walk.step();
            steps += 1;
            assert!(steps < 20_000, "seed {seed}: the walk stands still");
        }
        let totals = &walk.book.state.totals;
        assert!(totals.fills > 200 && totals.closed_trades > 0, "seed {seed}: {totals:?}");
        assert!(!walk.book.state.account.inventory_cost.is_empty());
        // The state is the fold of its events, also through its stored form.
        let text = serde_json::to_string(&walk.book.state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), walk.book.state);
    }
}
