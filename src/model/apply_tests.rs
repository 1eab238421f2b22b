//! What the fold refuses: ranks that decrease, fills twice, locks that leak, legs that are removed.

use proptest::prelude::*;

use super::{state::TradeStub, *};
use crate::execution::testkit::{Book, T0, btc, dec, tick};

fn submitted() -> (Book, TradeKey) {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let key = book.submit(&order);
    book.now = T0.plus_ms(100);
    (book, key)
}

#[test]
fn double_fill_is_refused() {
    let (mut book, key) = submitted();
    let price = tick(btc(), dec!(39_990), book.now);
    let before = book.state.clone();
    let events = book.venue(key, &price);
    assert!(book.try_commit(events[..1].to_vec()).is_err(), "the trade has ended");
    // The same fill twice within a living trade.
    book.state = before;
    let Event::TradeFill { trade_key, symbol, side, liquidity, .. } = &events[0] else { panic!() };
    let part = |n: u32| Event::TradeFill {
        trade_key: *trade_key,
        fill_id: format!("{trade_key}:{n}"),
        symbol: *symbol,
        side: *side,
        quantity: dec!(0.01),
        price: dec!(1),
        value: dec!(0.01),
        fee: Money::ZERO,
        liquidity: *liquidity,
        price_id: "test:1".into(),
        evidence: None,
        venue_fill: None,
        postings: crate::execution::ledger::postings(&crate::execution::ledger::FillMoney {
            symbol: *symbol,
            side: *side,
            quantity: dec!(0.01),
            value: dec!(0.01),
            fee: Money::ZERO,
            cost: Money::ZERO,
            locked: dec!(100),
        }),
    };
    book.try_commit(vec![part(0)]).unwrap();
    assert!(book.try_commit(vec![part(0)]).unwrap_err().contains("not the next one"));
}

#[test]
fn a_settled_trade_is_not_settled_again() {
    let (mut book, key) = submitted();
    let price = tick(btc(), dec!(39_990), book.now);
    book.venue(key, &price);
    assert_eq!(book.state.trade_index[&key].state, TradeState::Settled);
    let before = book.state.account.clone();
    let again = book.try_commit(vec![Event::TradeSettled { trade_key: key }]);
    assert!(again.unwrap_err().contains("is not open"));
    assert_eq!(book.state.account, before);
}

#[test]
fn unbalanced_postings_and_overdrawn_locks_are_refused() {
    let (mut book, key) = submitted();
    let price = tick(btc(), dec!(39_990), book.now);
    let before = book.state.clone();
    let fill = book.venue(key, &price)[0].clone();
    let Event::TradeFill { postings, .. } = &fill else { panic!() };
    for (index, posting) in postings.iter().enumerate() {
        let mut other = fill.clone();
        if let Event::TradeFill { postings, .. } = &mut other {
            postings[index].amount = posting.amount + dec!(0.00000001);
        }
        book.state = before.clone();
        assert!(book.try_commit(vec![other]).is_err(), "{posting:?}");
    }
    let mut greedy = fill.clone();
    if let Event::TradeFill { postings, .. } = &mut greedy {
        for posting in postings.iter_mut() {
            match posting.account {
                LedgerAccount::Locked => posting.amount -= dec!(1000),
                LedgerAccount::AtCost => posting.amount += dec!(1000),
                _ => {}
            }
        }
    }
    book.state = before;
    assert!(book.try_commit(vec![greedy]).unwrap_err().contains("more than its lock"));
}

#[test]
fn lock_returns_on_every_end_without_a_fill() {
    let (book, key) = submitted();
    let reason = || "test".to_owned();
    let ends = [
        Event::TradeCancelled { trade_key: key, reason: reason() },
        Event::TradeRejected { trade_key: key, reason: reason() },
        Event::TradeExpired { trade_key: key, reason: reason() },
    ];
    for end in ends {
        let mut book = Book { state: book.state.clone(), ..Book::usdt(dec!(1)) };
        assert_eq!(book.locked("USDT"), dec!(1203.12));
        book.commit(vec![end]);
        assert_eq!((book.free("USDT"), book.locked("USDT")), (dec!(10_000), Money::ZERO));
        assert!(book.state.trades.is_empty());
    }
}

#[test]
fn an_intent_cannot_lock_what_is_not_there_or_exit_what_is_not_open() {
    let (mut book, key) = submitted();
    let trade = Trade { state: TradeState::Intent, ..book.state.trades[&key].clone() };
    let key = TradeKey([1; 32]);
    let lock = Some(Lock { asset: btc().quote, amount: dec!(9_000) });
    let greedy = Trade { key, lock, ..trade.clone() };
    assert!(book.try_commit(vec![Event::TradeIntent { trade: Box::new(greedy) }]).unwrap_err().contains("locks 9000"));
    book.state.meta.seq -= 1;
    let mut orphan = Trade { key, lock: None, ..trade };
    orphan.body.position = Some(PositionId(9));
    assert!(book.try_commit(vec![Event::TradeIntent { trade: Box::new(orphan) }]).unwrap_err().contains("P9"));
}

#[test]
fn legs_mirror_their_trades_and_are_never_removed() {
    let mut book = Book::usdt(dec!(10_000));
    let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
    let rules = crate::execution::testkit::rules()[&btc()];
    let entry = crate::execution::intent::entry(book.state.meta.store, &order, &rules, &book.execution, T0).unwrap();
    let trade = Trade { kind: TradeKind::Rebalance, key: TradeKey([7; 32]), decision: None, ..entry };
    let leg = |key| Leg {
        key,
        batch: 0,
        asset: btc().base,
        symbol: btc(),
        side: Side::Buy,
        amount: dec!(1200),
        due_at: T0,
        state: TradeState::Planned,
    };
    let plan = Plan {
        id: uuid::Uuid::from_u128(5),
        created_at: T0,
        spacing_ms: 1000,
        legs: vec![leg(trade.key), leg(TradeKey([8; 32]))],
        deviation_pct: dec!(6),
        state: PlanState::Active,
        ended_at: None,
        last_executed_at: None,
    };
    let id = plan.id;
    book.commit(vec![Event::PlanCreated { plan: Box::new(plan) }]);
    let state = |book: &Book| book.state.plans[&id].legs[0].state;
    let key = book.submit_trade(trade);
    assert_eq!(state(&book), TradeState::Submitting);
    assert_eq!(book.state.plans[&id].last_executed_at, None);
    book.now = T0.plus_ms(100);
    let price = tick(btc(), dec!(39_990), book.now);
    book.venue(key, &price);
    assert_eq!(state(&book), TradeState::Settled);
    assert_eq!(book.state.plans[&id].last_executed_at, Some(book.now));
    assert_eq!(book.state.account.inventory_cost[&btc()].quantity, dec!(0.03));
    let refused = book.try_commit(vec![Event::PlanCompleted { plan: id }]);
    assert!(refused.unwrap_err().contains("not terminal"));
    book.state.meta.seq -= 1;
    book.commit(vec![Event::PlanSuperseded { plan: id, reason: "late".into() }]);
    let states: Vec<TradeState> = book.state.plans[&id].legs.iter().map(|leg| leg.state).collect();
    assert_eq!(states, [TradeState::Settled, TradeState::Superseded]);
    assert_eq!(book.trade_state(TradeKey([8; 32])), TradeState::Superseded);
}

fn event(n: u8, key: TradeKey) -> Event {
    let reason = String::new();
    match n {
        0 => Event::TradeSubmitting { trade_key: key, attempt: u32::from(n) + 2, deadline: T0, reference: None },
        1 => Event::TradeAcked { trade_key: key, expires_at: None },
        2 => Event::TradeSettled { trade_key: key },
        3 => Event::TradeRejected { trade_key: key, reason },
        4 => Event::TradeRefused { trade_key: key, reason },
        5 => Event::TradeExpired { trade_key: key, reason },
        6 => Event::TradeNotExecuted { trade_key: key, reason, retry_at: None },
        7 => Event::TradeUnknown { trade_key: key, reason },
        _ => Event::TradeCancelled { trade_key: key, reason },
    }
}

proptest! {
    /// D18, oracle 4: whatever is asked, the rank of a trade never decreases and an ended trade stays ended.
    #[test]
    fn rank_never_decreases(asked in proptest::collection::vec(0u8..9, 1..30)) {
        let (mut book, key) = submitted();
        for n in asked {
            let before: TradeStub = book.state.trade_index[&key];
            let saved = book.state.clone();
            if book.try_commit(vec![event(n, key)]).is_err() {
                book.state = saved;
            }
            let after = book.state.trade_index[&key];
            prop_assert!(after.state.rank() >= before.state.rank());
            prop_assert!(!before.state.is_terminal() || after.state == before.state);
            prop_assert_eq!(after.state.is_terminal(), !book.state.trades.contains_key(&key));
        }
    }
}

#[test]
fn a_record_of_an_older_epoch_is_refused() {
    let mut state = Book::usdt(dec!(10_000)).state;
    state.meta.epoch = 3;
    let of = |epoch| Record {
        v: event::SCHEMA_VERSION,
        seq: state.meta.seq + 1,
        epoch,
        ts: T0,
        n: None,
        actor: "test".into(),
        corr: String::new(),
        cause: String::new(),
        event: Event::CleanStop {},
    };
    assert!(state.clone().apply(&of(2)).unwrap_err().why.contains("older"));
    assert!(state.clone().apply(&of(3)).is_ok());
}

#[test]
fn a_replay_of_a_downtime_never_goes_back() {
    let mut book = Book::usdt(dec!(10_000));
    let at = |ms: i64, filled: &[u64]| Event::GapReplayed {
        symbol: btc(),
        at: T0.plus_ms(ms),
        done: PriceDone { filled: filled.iter().copied().map(PositionId).collect(), moved: Vec::new() },
    };
    book.commit(vec![at(60_000, &[]), at(60_000, &[1]), at(120_000, &[])]);
    assert_eq!(
        book.state.meta.replayed[&btc()],
        Replayed { at: T0.plus_ms(120_000), done: PriceDone::default() },
        "what an earlier candle did is of no interest any more"
    );
    assert!(book.try_commit(vec![at(60_000, &[])]).unwrap_err().contains("already"));
}
