//! Tests of the leg orders rules of `execution`, by the ids of the acceptance scenarios they hold.

use uuid::Uuid;

use super::{super::testkit::*, *};
use crate::{
    execution::{
        legs::{self, Gate, LegAction},
        venue::{Fault, FaultyVenue},
    },
    model::{CooldownCause, PlanState},
};

fn plan_of(legs: &[(u32, &str, Side, Decimal)]) -> Plan {
    let id = Uuid::from_u128(42);
    let legs = legs
        .iter()
        .map(|(batch, pair, side, amount)| {
            let pair = symbol(pair);
            let name = format!("{batch}:{}", pair.base);
            Leg {
                key: TradeKey::derive(Uuid::from_u128(1), TradeKind::Rebalance, &id.to_string(), &name, pair, *side),
                batch: *batch,
                asset: pair.base,
                symbol: pair,
                side: *side,
                amount: *amount,
                due_at: T0.plus_ms(i64::from(*batch) * 4 * 3_600_000),
                state: TradeState::Planned,
            }
        })
        .collect();
    Plan {
        id,
        created_at: T0,
        spacing_ms: 4 * 3_600_000,
        legs,
        deviation_pct: dec!(10),
        state: PlanState::Active,
        ended_at: None,
        last_executed_at: None,
    }
}

fn prices(at: Ts) -> BTreeMap<Symbol, PriceTick> {
    let xrp = symbol("XRP/USDT");
    BTreeMap::from([(btc(), tick(btc(), dec!(40_000), at)), (xrp, tick(xrp, dec!(0.6), at))])
}

impl Book {
    fn plan(&self) -> Plan {
        self.state.plans.values().next().unwrap().clone()
    }

    fn leg_orders(&self, keys: &[TradeKey]) -> Vec<LegOrder> {
        let (rules, prices) = (rules(), prices(self.now));
        let desk = LegDesk { execution: &self.execution, rules: &rules, prices: &prices, now: self.now };
        orders(&self.state, &self.plan(), keys, &desk).unwrap()
    }

    /// Claims, submits and asks `venue` about every order of the batch.
    fn execute_legs(&mut self, keys: &[TradeKey], venue: &mut impl crate::execution::venue::Venue) {
        for order in self.leg_orders(keys) {
            match order {
                LegOrder::Intent(trade) => {
                    let key = self.submit_trade(*trade);
                    self.now = self.now.plus_ms(100);
                    let price = prices(self.now)[&self.state.trades[&key].body.symbol];
                    self.venue_with(venue, key, &price);
                }
                LegOrder::Refused(events) => self.commit(events),
                LegOrder::NoPrice(_) => {}
            }
        }
    }

    fn leg_action(&self) -> LegAction {
        legs::step(&self.plan(), self.now, &leg_settings(), Gate::Open)
    }

    fn next_keys(&self) -> Vec<TradeKey> {
        match self.leg_action() {
            LegAction::Execute(keys) => keys,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn buys_wait_for_the_proceeds_and_shrink_pro_rata() {
    let mut book = Book::new(&[("BTC", dec!(0.5)), ("USDT", dec!(100))]);
    let plan = plan_of(&[(0, "BTC/USDT", Side::Sell, dec!(600)), (0, "XRP/USDT", Side::Buy, dec!(2000))]);
    book.commit(vec![Event::PlanCreated { plan: Box::new(plan.clone()) }]);
    let mut paper = venue(&book.execution);
    let keys = book.next_keys();
    assert_eq!(keys, [plan.legs[0].key]);
    book.execute_legs(&keys, &mut paper);
    assert_eq!(book.plan().legs[0].state, TradeState::Settled);
    let free = book.free("USDT");
    assert!(free > dec!(697) && free < dec!(700), "{free}");
    let keys = book.next_keys();
    book.execute_legs(&keys, &mut paper);
    assert_eq!(book.plan().legs[1].state, TradeState::Settled);
    // Everything but the slippage reserve was spent, nothing overdrawn.
    assert!(book.free("USDT") < dec!(2), "{}", book.free("USDT"));
    assert_eq!(book.leg_action(), LegAction::Complete);
    let events = vec![completion(&book.plan())];
    book.commit(events);
    assert_eq!(book.plan().state, PlanState::Completed);
    assert!(book.state.account.inventory_cost.contains_key(&symbol("XRP/USDT")));
}

#[test]
fn two_buys_share_a_shortage() {
    let mut book = Book::usdt(dec!(500));
    let plan = plan_of(&[(0, "BTC/USDT", Side::Buy, dec!(600)), (0, "XRP/USDT", Side::Buy, dec!(300))]);
    book.commit(vec![Event::PlanCreated { plan: Box::new(plan) }]);
    let keys = book.next_keys();
    let values: Vec<Decimal> = book
        .leg_orders(&keys)
        .into_iter()
        .map(|order| match order {
            LegOrder::Intent(trade) => trade.lock.unwrap().amount,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(values[0] + values[1] <= dec!(500), "{values:?}");
    assert!((values[0] - values[1] * dec!(2)).abs() < dec!(2), "{values:?}");
}

#[test]
fn legs_sell_inventory_only_and_small_ones_are_refused_once() {
    let mut book = Book::new(&[("USDT", dec!(10_000)), ("BTC", dec!(0.001))]);
    book.buy(btc(), dec!(1200), dec!(40_000));
    let plan = plan_of(&[(0, "BTC/USDT", Side::Sell, dec!(1000)), (0, "XRP/USDT", Side::Sell, dec!(50))]);
    book.commit(vec![Event::PlanCreated { plan: Box::new(plan) }]);
    let keys = book.next_keys();
    let made = book.leg_orders(&keys);
    let LegOrder::Intent(trade) = &made[0] else { panic!("{made:?}") };
    assert_eq!(trade.body.quantity, dec!(0.001), "the position's quantity is not for sale");
    let LegOrder::Refused(events) = &made[1] else { panic!("{made:?}") };
    book.commit(events.clone());
    assert_eq!(book.plan().legs[1].state, TradeState::Rejected);
    let desk = LegDesk { execution: &book.execution, rules: &rules(), prices: &BTreeMap::new(), now: book.now };
    let none = orders(&book.state, &book.plan(), &keys[..1], &desk).unwrap();
    assert_eq!(none, [LegOrder::NoPrice(keys[0])]);
    // The same where the settings have lost the symbol with its rules: it used to end every start.
    let (no_rules, prices) = (BTreeMap::new(), prices(book.now));
    let desk = LegDesk { execution: &book.execution, rules: &no_rules, prices: &prices, now: book.now };
    assert_eq!(orders(&book.state, &book.plan(), &keys[..1], &desk), Ok(vec![LegOrder::NoPrice(keys[0])]));
    let (known, empty) = (rules(), BTreeMap::new());
    let desk = LegDesk { rules: &known, prices: &empty, ..desk };
    assert!(orders(&book.state, &book.plan(), &keys[1..], &desk).is_err(), "not pending any more");
}

#[test]
fn a160_d17_venue_errors_retry_then_reject_without_touching_other_legs() {
    let mut book = Book::usdt(dec!(10_000));
    let legs: Vec<(u32, &str, Side, Decimal)> = (0..6).map(|n| (n, "BTC/USDT", Side::Buy, dec!(555.55))).collect();
    let plan = plan_of(&legs);
    book.commit(vec![Event::PlanCreated { plan: Box::new(plan.clone()) }]);
    let mut faulty = FaultyVenue { inner: venue(&book.execution), failures: 0, fault: Fault::Definite, calls: 0 };
    for number in 0..6 {
        book.now = plan.legs[number].due_at;
        faulty.failures = if number == 2 { 4 } else { 0 };
        let keys = book.next_keys();
        book.execute_legs(&keys, &mut faulty);
        if number != 2 {
            assert_eq!(book.plan().legs[number].state, TradeState::Settled);
            continue;
        }
        let key = keys[0];
        for wait in [5_000, 10_000, 20_000] {
            let trade = book.state.trades[&key].clone();
            assert_eq!(trade.retry_at, Some(book.now.plus_ms(wait)));
            assert_eq!(book.leg_action(), LegAction::Nothing(Some(plan.legs[3].due_at)));
            book.now = trade.retry_at.unwrap();
            let submitting = crate::execution::settle::submitting(&trade, book.now);
            book.commit(vec![submitting]);
            let price = prices(book.now)[&btc()];
            book.venue_with(&mut faulty, key, &price);
        }
        assert_eq!(book.plan().legs[2].state, TradeState::Rejected);
        assert_eq!(book.state.risk.order_errors, 4);
        assert_eq!(book.state.risk.cooldown_cause, Some(CooldownCause::OrderErrors));
        assert!(book.locked("USDT").is_zero());
    }
    assert_eq!(book.state.risk.order_errors, 0, "a success ends the row of errors");
    assert_eq!(book.leg_action(), LegAction::Complete);
}

#[test]
fn a162_d18_ten_thousand_legs_are_each_executed_once() {
    let mut book = Book::usdt(dec!(100_000));
    let legs: Vec<(u32, &str, Side, Decimal)> = (0..10_000).map(|n| (n, "BTC/USDT", Side::Buy, dec!(5))).collect();
    let mut plan = plan_of(&legs);
    plan.spacing_ms = 0;
    plan.legs.iter_mut().for_each(|leg| (leg.due_at, leg.batch) = (T0, 0));
    book.try_commit(vec![Event::PlanCreated { plan: Box::new(plan.clone()) }]).unwrap();
    let keys = book.next_keys();
    // Two scans of the same state claim the same legs; the second claim of each is refused.
    let (first, second) = (book.leg_orders(&keys), book.leg_orders(&keys));
    let price = prices(T0)[&btc()];
    let mut paper = venue(&book.execution);
    for (one, two) in first.into_iter().zip(second) {
        let (LegOrder::Intent(one), LegOrder::Intent(two)) = (one, two) else { panic!() };
        let key = one.key;
        let at_once = Trade { created_at: T0.plus_ms(-100), ..*one };
        let desk = book.desk();
        let events =
            crate::execution::settle::at_once(&book.state, at_once, &mut paper, Some(&price), None, &desk).unwrap();
        book.try_commit(events).unwrap();
        assert!(!matches!(intent::insert(&book.state, *two), intent::Insertion::New(_)), "{key:?}");
    }
    assert_eq!(book.state.totals.fills, 10_000);
    assert_eq!(book.leg_action(), LegAction::Complete);
    ledger::check_conservation(&book.state).unwrap();
}
