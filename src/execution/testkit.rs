//! Test helpers: an account that applies events, settings with the default numbers, prices.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
pub(crate) use rust_decimal_macros::dec;
use uuid::Uuid;

use super::{intent, ledger, settle, venue::PaperVenue};
use crate::{
    model::{
        DecisionId, Event, Price, PriceRange, PriceTick, Record, RunId, Side, State, Symbol, SymbolRules, TimeInForce,
        Trade, TradeKey, TradeState, Ts,
    },
    risk::RiskRules,
    settings::*,
};

pub(crate) const T0: Ts = Ts(1_700_000_000_000);

pub(crate) fn symbol(text: &str) -> Symbol {
    text.parse().unwrap()
}

pub(crate) fn btc() -> Symbol {
    symbol("BTC/USDT")
}

pub(crate) fn rules() -> BTreeMap<Symbol, SymbolRules> {
    let rule = |min_quantity, price_decimals, quantity_decimals| SymbolRules {
        min_quantity,
        price_decimals,
        quantity_decimals,
    };
    BTreeMap::from([
        (btc(), rule(dec!(0.0001), 2, 8)),
        (symbol("XRP/USDT"), rule(dec!(10), 5, 0)),
        (symbol("XRP/BTC"), rule(dec!(10), 8, 0)),
    ])
}

pub(crate) fn execution() -> ExecutionSettings {
    ExecutionSettings {
        entry_order_type: EntryOrderType::Limit,
        time_in_force: TimeInForce::Gtc,
        limit_order_expiry_hours: 24,
        spot: SpotSettings { sell_closes: SellCloses::Full },
        max_price_drift_pct: dec!(0.5),
        max_attempts_definite: 4,
        retry_waits_seconds: vec![5, 10, 20],
        max_holding_hours: 48,
        trailing: TrailingSettings { enabled: false, activation_pct: dec!(1.0), distance_pct: dec!(1.5) },
        break_even: BreakEvenSettings { enabled: false, activation_pct: dec!(1.0), buffer_pct: dec!(0.1) },
        paper: PaperSettings {
            latency_ms: 100,
            slippage_pct: dec!(0.1),
            maker_fee_pct: dec!(0.16),
            taker_fee_pct: dec!(0.26),
            partial_fills: PartialFillSettings { enabled: false, chance: 0.2, min_fraction: 0.3, max_fraction: 0.9 },
            restart_fill_policy: RestartFillPolicy::Pessimistic,
        },
    }
}

pub(crate) fn leg_settings() -> LegSettings {
    LegSettings { max_lateness_seconds: 900, min_spacing_ratio: dec!(0.5), late_policy: LatePolicy::Respread }
}

pub(crate) fn risk_rules() -> RiskRules {
    RiskRules::of(&crate::settings::Settings::defaults()).unwrap()
}

pub(crate) fn venue(execution: &ExecutionSettings) -> PaperVenue {
    PaperVenue { execution: execution.clone(), rules: rules(), feed: "test".into(), price_max_age_ms: 60_000 }
}

pub(crate) fn tick(symbol: Symbol, price: Price, at: Ts) -> PriceTick {
    PriceTick { symbol, price, at, price_id: 7, range: None }
}

/// A closed one-minute candle that ends at `at`.
pub(crate) fn candle(symbol: Symbol, [open, high, low, close]: [Decimal; 4], at: Ts) -> PriceTick {
    let range = Some(PriceRange { from: at.plus_ms(-60_000), open, high, low });
    PriceTick { range, ..tick(symbol, close, at) }
}

/// An account whose state is the fold of everything committed to it.
pub(crate) struct Book {
    pub state: State,
    pub now: Ts,
    pub execution: ExecutionSettings,
    pub risk: RiskRules,
    pub slots: u32,
}

impl Book {
    pub(crate) fn new(deposits: &[(&str, Decimal)]) -> Book {
        let mut book = Book { state: State::default(), now: T0, execution: execution(), risk: risk_rules(), slots: 0 };
        book.commit(vec![Event::StoreCreated { store: Uuid::from_u128(1), seed: 1, data_kind: "simulated".into() }]);
        for (asset, amount) in deposits {
            book.commit(vec![Event::Deposit { asset: asset.parse().unwrap(), amount: *amount }]);
        }
        book
    }

    pub(crate) fn usdt(amount: Decimal) -> Book {
        Book::new(&[("USDT", amount)])
    }

    /// Applies one batch and checks the identity after every event that is not in the middle of a fill's batch.
    pub(crate) fn commit(&mut self, events: Vec<Event>) {
        self.try_commit(events).unwrap();
        ledger::check_conservation(&self.state).unwrap();
    }

    pub(crate) fn try_commit(&mut self, events: Vec<Event>) -> Result<(), String> {
        for event in events {
            let record = Record {
                v: 1,
                seq: self.state.meta.seq + 1,
                epoch: 0,
                ts: self.now,
                n: None,
                actor: "test".into(),
                corr: "test".into(),
                cause: "test".into(),
                event,
            };
            self.state.apply(&record).map_err(|misfit| misfit.to_string())?;
        }
        Ok(())
    }

    pub(crate) fn free(&self, asset: &str) -> Decimal {
        self.state.account.free(asset.parse().unwrap())
    }

    pub(crate) fn locked(&self, asset: &str) -> Decimal {
        self.state.account.locked(asset.parse().unwrap())
    }

    pub(crate) fn entry_order(&mut self, symbol: Symbol, notional: Decimal, price: Price) -> intent::EntryOrder {
        self.slots += 1;
        intent::EntryOrder {
            decision: DecisionId(RunId { epoch: 1, seq: u64::from(self.slots) }),
            slot: format!("trading_decision:{symbol}:{}", self.slots),
            replacement: 0,
            symbol,
            side: Side::Buy,
            quantity: notional / price,
            entry: price,
            market: price,
            stop: None,
            target: None,
            leverage: 1,
        }
    }

    /// Inserts the entry and submits it; fails the test when the key is not new.
    pub(crate) fn submit(&mut self, order: &intent::EntryOrder) -> TradeKey {
        let rules = rules()[&order.symbol];
        let trade = intent::entry(self.state.meta.store, order, &rules, &self.execution, self.now).unwrap();
        self.submit_trade(trade)
    }

    pub(crate) fn submit_trade(&mut self, trade: Trade) -> TradeKey {
        let key = trade.key;
        let submitting = settle::submitting(&trade, self.now);
        let intent::Insertion::New(event) = intent::insert(&self.state, trade) else { panic!("key is used") };
        self.commit(vec![*event, submitting]);
        key
    }

    pub(crate) fn desk(&self) -> settle::Desk<'_> {
        settle::Desk { execution: &self.execution, rules: &self.risk, quote_rate: Decimal::ONE, now: self.now }
    }

    /// Asks the paper venue about a living trade and commits what follows.
    pub(crate) fn venue(&mut self, key: TradeKey, price: &PriceTick) -> Vec<Event> {
        let mut venue = venue(&self.execution);
        self.venue_with(&mut venue, key, price)
    }

    pub(crate) fn venue_with(
        &mut self,
        venue: &mut impl super::venue::Venue,
        key: TradeKey,
        price: &PriceTick,
    ) -> Vec<Event> {
        let trade = self.state.trades[&key].clone();
        let answer = venue.execute(&trade, Some(price), self.now);
        let events = settle::answer(&self.state, &trade, answer, &self.desk()).unwrap();
        self.commit(events.clone());
        events
    }

    /// A market buy that fills at once, 100 ms later.
    pub(crate) fn buy(&mut self, symbol: Symbol, notional: Decimal, price: Price) -> TradeKey {
        let order = self.entry_order(symbol, notional, price);
        let before = self.execution.entry_order_type;
        self.execution.entry_order_type = EntryOrderType::Market;
        let key = self.submit(&order);
        self.execution.entry_order_type = before;
        self.now = self.now.plus_ms(100);
        self.venue(key, &tick(symbol, price, self.now));
        key
    }

    /// Carries out an exit call of supervision in one commit.
    pub(crate) fn exit(&mut self, call: &super::supervise::ExitCall) -> Vec<Event> {
        let position = &self.state.positions[&call.position];
        let rules = rules()[&position.symbol];
        let purpose = intent::ExitFor::Cause(call.cause);
        let store = self.state.meta.store;
        let trade = intent::exit(store, position, purpose, position.quantity, &rules, self.now).unwrap();
        let mut venue = venue(&self.execution);
        let evidence = call.evidence.as_deref();
        let events =
            settle::at_once(&self.state, trade, &mut venue, Some(&call.price), evidence, &self.desk()).unwrap();
        self.commit(events.clone());
        events
    }

    pub(crate) fn trade_state(&self, key: TradeKey) -> TradeState {
        self.state.trade_index[&key].state
    }
}
