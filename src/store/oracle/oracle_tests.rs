//! A sound journal passes; each rule sees the journal that breaks it, and names the check and the record.

use std::collections::BTreeMap;

use super::*;
use crate::{
    execution::{
        intent, settle, supervise,
        testkit::{Book, T0, btc, dec, rules, tick, venue},
        venue::Venue,
    },
    model::{
        Command, CommandAnswer, Event, ExitCause, LedgerAccount, Leg, Lock, Money, OrderType, Plan, PlanState, Side,
        Trade, TradeKey, TradeKind, TradeState, event::SCHEMA_VERSION,
    },
};

#[path = "waiting_tests.rs"]
mod waiting;

/// A journal in the making: what the program would write, folded as it is written.
struct Tape {
    book: Book,
    records: Vec<Record>,
}

impl Tape {
    fn new() -> Tape {
        let mut book = Book::usdt(dec!(0));
        book.state = State::default();
        let mut tape = Tape { book, records: Vec::new() };
        tape.batch(vec![
            Event::StoreCreated { store: uuid::Uuid::from_u128(1), seed: 1, data_kind: "simulated".into() },
            Event::Booted { epoch: 1, version: "0".into(), config_hash: String::new() },
            Event::Deposit { asset: "USDT".parse().unwrap(), amount: dec!(10_000) },
            Event::Deposit { asset: "BTC".parse().unwrap(), amount: dec!(0.5) },
        ]);
        tape
    }

    fn batch(&mut self, events: Vec<Event>) {
        let count = u32::try_from(events.len()).ok().filter(|n| *n > 1);
        for (index, event) in events.into_iter().enumerate() {
            let record = Record {
                v: SCHEMA_VERSION,
                seq: self.records.len() as u64 + 1,
                epoch: 1,
                ts: self.book.now,
                n: count.filter(|_| index == 0),
                actor: "test".into(),
                corr: "test".into(),
                cause: "test".into(),
                event,
            };
            self.book.state.apply(&record).unwrap();
            self.records.push(record);
        }
    }

    fn fill(&mut self, key: TradeKey, price: Money) {
        self.book.now = self.book.now.plus_ms(100);
        let trade = self.book.state.trades[&key].clone();
        let answer =
            venue(&self.book.execution).execute(&trade, Some(&tick(btc(), price, self.book.now)), self.book.now);
        let events = settle::answer(&self.book.state, &trade, answer, &self.book.desk()).unwrap();
        self.batch(events);
    }

    /// Intent and submission, then the fill; each a batch of its own.
    fn buy(&mut self, notional: Money, price: Money, kind: TradeKind) -> TradeKey {
        let order = self.book.entry_order(btc(), notional, price);
        let entry =
            intent::entry(self.book.state.meta.store, &order, &rules()[&btc()], &self.book.execution, self.book.now);
        let mut trade = Trade { kind, ..entry.unwrap() };
        trade.body.order_type = OrderType::Market;
        trade.lock = Some(Lock { asset: btc().quote, amount: dec!(1_300) });
        let (key, submitting) = (trade.key, settle::submitting(&trade, self.book.now));
        self.batch(vec![Event::TradeIntent { trade: Box::new(trade) }]);
        self.batch(vec![submitting]);
        self.fill(key, price);
        key
    }

    fn close(&mut self, price: Money) {
        let position = self.book.state.positions.values().next().unwrap().clone();
        let call = supervise::ExitCall {
            position: position.id,
            cause: ExitCause::Stop,
            price: tick(btc(), price, self.book.now),
            evidence: None,
        };
        let purpose = intent::ExitFor::Cause(call.cause);
        let store = self.book.state.meta.store;
        let trade =
            intent::exit(store, &position, purpose, position.quantity, &rules()[&btc()], self.book.now).unwrap();
        let mut venue = venue(&self.book.execution);
        let events =
            settle::at_once(&self.book.state, trade, &mut venue, Some(&call.price), None, &self.book.desk()).unwrap();
        self.batch(events);
    }

    fn plan(&mut self) {
        let leg = |number: u8, batch| Leg {
            key: TradeKey([number; 32]),
            batch,
            asset: btc().base,
            symbol: btc(),
            side: Side::Buy,
            amount: dec!(100),
            due_at: T0.plus_ms(i64::from(batch) * 3_600_000),
            state: TradeState::Planned,
        };
        let plan = Plan {
            id: uuid::Uuid::from_u128(5),
            created_at: T0,
            spacing_ms: 3_600_000,
            legs: vec![leg(8, 0), leg(9, 1)],
            deviation_pct: dec!(5),
            state: PlanState::Active,
            ended_at: None,
            last_executed_at: None,
        };
        self.batch(vec![Event::PlanCreated { plan: Box::new(plan) }]);
    }

    fn command(&mut self, key: &str) {
        let result = serde_json::json!({"state": "PAUSED"});
        self.batch(vec![
            Event::CommandReceived { key: key.into(), command: Command::Resume {}, body_hash: String::new() },
            Event::CommandDone { key: key.into(), result },
        ]);
    }
}

/// Everything the rules speak about: an entry, a second one, a position closed, inventory, a plan, commands.
fn story() -> (Vec<Record>, State) {
    let mut tape = Tape::new();
    tape.buy(dec!(1_200), dec!(40_000), TradeKind::Decision);
    tape.buy(dec!(700), dec!(39_123.45), TradeKind::Decision);
    tape.buy(dec!(500), dec!(39_500), TradeKind::Rebalance);
    tape.command("a");
    tape.plan();
    tape.close(dec!(38_000));
    tape.buy(dec!(900), dec!(37_777.77), TradeKind::Decision);
    tape.batch(vec![Event::LegsCancelled {
        plan: uuid::Uuid::from_u128(5),
        legs: vec![TradeKey([8; 32])],
        reason: "operator".into(),
    }]);
    tape.command("b");
    (tape.records, tape.book.state)
}

fn judged(records: &[Record]) -> Oracle {
    let mut oracle = Oracle::new();
    records.iter().for_each(|record| drop(oracle.observe(record)));
    oracle.waiting();
    oracle
}

/// Changes the sound story and expects a violation of `check` that holds all `words`.
#[track_caller]
fn sees(check: Check, words: &[&str], change: impl FnOnce(&mut Vec<Record>)) {
    let (mut records, _) = story();
    change(&mut records);
    let oracle = judged(&records);
    let of_check: Vec<String> =
        oracle.violations().iter().filter(|v| v.check == check).map(ToString::to_string).collect();
    let seen = of_check.iter().any(|text| words.iter().all(|word| text.contains(word)));
    assert!(seen, "{check:?} {words:?} is not among {:#?}", oracle.violations());
}

fn at(records: &[Record], kind: &str, number: usize) -> usize {
    records.iter().enumerate().filter(|(_, record)| record.event.kind() == kind).nth(number).unwrap().0
}

/// Writes the record at `index` a second time at the end, as a batch of its own.
fn again(records: &mut Vec<Record>, index: usize) {
    let mut copy = records[index].clone();
    let last = records.last().unwrap();
    (copy.seq, copy.ts, copy.n) = (last.seq + 1, last.ts, None);
    records.push(copy);
}

/// Takes a record out and closes the gap in the numbers and in its batch.
fn without(records: &mut Vec<Record>, index: usize) {
    let (mut head, mut size) = (0, records[0].n.unwrap_or(1));
    while head + size as usize <= index {
        head += size as usize;
        size = records[head].n.unwrap_or(1);
    }
    records.remove(index);
    if size > 1 {
        records[head].n = Some(size - 1);
    }
    records.iter_mut().enumerate().for_each(|(i, record)| record.seq = i as u64 + 1);
}

fn fill_of(
    record: &mut Record,
    change: impl FnOnce(&mut Money, &mut Money, &mut Money, &mut Vec<crate::model::Posting>),
) {
    let Event::TradeFill { quantity, value, fee, postings, .. } = &mut record.event else { panic!("no fill") };
    change(quantity, value, fee, postings);
}

#[test]
fn a_sound_journal_passes_every_check_and_its_fold_equals_the_books() {
    let (records, state) = story();
    let mut oracle = judged(&records);
    assert_eq!(oracle.compare(&state), Ok(()));
    assert_eq!(oracle.violations(), []);
    let figures = oracle.figures();
    assert_eq!((figures.fills, figures.settled, figures.closed, figures.positions, figures.commands), (5, 5, 1, 1, 2));
    let waiting = oracle.waiting();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert!(waiting[0].why.contains("due"), "{waiting:?}");
}

#[test]
fn check_1_sees_executions_that_happen_twice() {
    let check = Check::Executions;
    sees(check, &["second intent"], |r| again(r, at(r, "TradeIntent", 0)));
    sees(check, &["booked twice"], |r| again(r, at(r, "TradeFill", 0)));
    sees(check, &["is not its own, number 0 is next"], |r| {
        let fill = at(r, "TradeFill", 1);
        let Event::TradeFill { trade_key, fill_id, .. } = &mut r[fill].event else { panic!() };
        *fill_id = format!("{trade_key}:1");
    });
    sees(check, &["of", "ordered"], |r| {
        let fill = at(r, "TradeFill", 1);
        fill_of(&mut r[fill], |quantity, _, _, _| *quantity += dec!(0.00000001));
    });
    sees(check, &["never submitted"], |r| without(r, at(r, "TradeSubmitting", 0)));
    sees(check, &["never made"], |r| without(r, at(r, "TradeIntent", 0)));
    sees(check, &["plan", "second time"], |r| again(r, at(r, "PlanCreated", 0)));
}

/// A leg at an absurd price is less than a lot: it is written with a quantity of nothing and rejected at once.
#[test]
fn an_order_of_nothing_is_legal_until_something_of_it_is_filled() {
    let nothing = |records: &mut Vec<Record>| {
        let intent = at(records, "TradeIntent", 0);
        let Event::TradeIntent { trade } = &mut records[intent].event else { panic!() };
        trade.body.quantity = dec!(0);
    };
    sees(Check::Executions, &["of", "ordered"], nothing);
    let (mut records, _) = story();
    nothing(&mut records);
    let begins = |violation: &Violation| violation.what.contains("begins as");
    assert!(!judged(&records).violations().iter().any(begins), "the intent alone is legal");
}

#[test]
fn check_2_sees_a_command_that_is_lost_halved_or_carried_out_twice() {
    let check = Check::Promises;
    sees(check, &["command a", "second time"], |r| {
        let received = at(r, "CommandReceived", 0);
        again(r, received);
    });
    sees(check, &["command b", "no answer"], |r| without(r, at(r, "CommandDone", 1)));
    sees(check, &["without being received"], |r| without(r, at(r, "CommandReceived", 1)));
}

#[test]
fn check_2_sees_what_was_acknowledged_and_is_gone() {
    let (records, _) = story();
    let answer = CommandAnswer::Ok { result: serde_json::json!({"state": "PAUSED"}) };
    let other = CommandAnswer::Ok { result: serde_json::json!({"state": "RUNNING"}) };
    let trade = match &records[at(&records, "TradeFill", 0)].event {
        Event::TradeFill { trade_key, .. } => *trade_key,
        _ => unreachable!(),
    };
    let shown = |key, state: &str, filled| Ack::Trade { key, state: Some(state.into()), filled };
    let held = [
        Ack::Command { key: "a".into(), answer: answer.clone() },
        Ack::Plan { id: uuid::Uuid::from_u128(5) },
        shown(trade, "acked", dec!(0.03)),
        shown(TradeKey([9; 32]), "planned", Money::ZERO),
        Ack::Record { seq: records.len() as u64, hash: String::new() },
    ];
    let lost = [
        Ack::Command { key: "c".into(), answer },
        Ack::Command { key: "a".into(), answer: other },
        Ack::Plan { id: uuid::Uuid::from_u128(6) },
        shown(trade, "settled", dec!(0.04)),
        shown(TradeKey([9; 32]), "intent", Money::ZERO),
        shown(TradeKey([3; 32]), "planned", Money::ZERO),
        Ack::Record { seq: records.len() as u64 + 1, hash: String::new() },
    ];
    let mut oracle = judged(&records);
    for ack in &held {
        assert_eq!(oracle.expect(ack), Ok(()), "{ack:?}");
        let line = serde_json::to_string(ack).unwrap();
        assert_eq!(acks::parse(&format!("{line}\n\n")), Ok(vec![ack.clone()]));
    }
    for ack in &lost {
        assert_eq!(oracle.expect(ack).unwrap_err().check, Check::Promises, "{ack:?}");
    }
    assert_eq!(oracle.violations().len(), lost.len());
    assert!(acks::parse("{}\n").unwrap_err().contains("line 1"));
}

#[test]
fn check_3_sees_money_that_appears_or_vanishes() {
    let check = Check::Money;
    let unit = Money::new(1, 8);
    let fills = |n: usize| move |r: &[Record]| at(r, "TradeFill", n);
    for n in [0, 1, 2, 3, 4] {
        for account in [
            LedgerAccount::Free,
            LedgerAccount::Fees,
            LedgerAccount::AtCost,
            LedgerAccount::Realised,
            LedgerAccount::Sold,
        ] {
            let (records, _) = story();
            let Event::TradeFill { postings, .. } = &records[fills(n)(&records)].event else { panic!() };
            if !postings.iter().any(|posting| posting.account == account) {
                continue;
            }
            sees(check, &["fill"], |r| {
                let fill = fills(n)(r);
                fill_of(&mut r[fill], |_, _, _, postings| {
                    postings.iter_mut().find(|posting| posting.account == account).unwrap().amount += unit;
                });
            });
        }
    }
    sees(check, &["not worth"], |r| {
        let fill = at(r, "TradeFill", 0);
        fill_of(&mut r[fill], |_, value, _, _| *value += unit);
    });
    sees(check, &["Fees"], |r| {
        let fill = at(r, "TradeFill", 0);
        fill_of(&mut r[fill], |_, _, fee, _| *fee += unit);
    });
    sees(check, &["first boot"], |r| {
        let deposit = at(r, "Deposit", 0);
        again(r, deposit);
        r.last_mut().unwrap().epoch = 2;
    });
    sees(check, &["announced"], |r| {
        let opened = at(r, "PositionOpened", 0);
        let Event::PositionOpened { position } = &mut r[opened].event else { panic!() };
        position.cost += unit;
    });
    sees(check, &["made no position"], |r| without(r, at(r, "PositionOpened", 0)));
    sees(check, &["closed as"], |r| {
        let closed = at(r, "PositionClosed", 0);
        let Event::PositionClosed { closed } = &mut r[closed].event else { panic!() };
        closed.gross += unit;
    });
    sees(check, &["locks"], |r| {
        let intent = at(r, "TradeIntent", 0);
        let Event::TradeIntent { trade } = &mut r[intent].event else { panic!() };
        trade.lock = Some(Lock { asset: btc().quote, amount: dec!(10_000.01) });
    });
}

#[test]
fn check_3_sees_a_fold_whose_balances_differ_by_one_unit() {
    let (records, state) = story();
    let unit = Money::new(1, 14);
    type Change = fn(&mut State, Money);
    let changes: [Change; 4] = [
        |state, unit| {
            *state.account.ledger.get_mut(&btc().quote).unwrap().get_mut(&LedgerAccount::Free).unwrap() += unit
        },
        |state, unit| state.positions.values_mut().next().unwrap().cost += unit,
        |state, unit| state.account.inventory_cost.get_mut(&btc()).unwrap().quantity += unit,
        |state, _| state.positions.clear(),
    ];
    for change in changes {
        let mut other = state.clone();
        change(&mut other, unit);
        assert_eq!(judged(&records).compare(&other).unwrap_err().check, Check::Money);
    }
}

#[test]
fn check_4_sees_ranks_that_fall_and_states_left_that_are_final() {
    let check = Check::Ranks;
    sees(check, &["settled", "terminal"], |r| again(r, at(r, "TradeSubmitting", 0)));
    sees(check, &["planned"], |r| again(r, at(r, "LegsCancelled", 0)));
    sees(check, &["attempt 3"], |r| {
        let submitting = at(r, "TradeSubmitting", 0);
        let Event::TradeSubmitting { attempt, .. } = &mut r[submitting].event else { panic!() };
        *attempt = 3;
    });
    for (from, to, allowed) in [
        ("not_executed", "submitting", true),
        ("unknown", "submitting", false),
        ("acked", "unknown", false),
        ("acked", "acked", false),
    ] {
        let (mut records, _) = story();
        let (intent, submitted) = (at(&records, "TradeIntent", 0), at(&records, "TradeSubmitting", 0));
        let Event::TradeIntent { trade } = &records[intent].event else { panic!() };
        let trade_key = trade.key;
        records.truncate(submitted + 1);
        let event = |name: &str| match name {
            "not_executed" => Event::TradeNotExecuted { trade_key, reason: String::new(), retry_at: None },
            "unknown" => Event::TradeUnknown { trade_key, reason: String::new() },
            "acked" => Event::TradeAcked { trade_key, expires_at: None },
            _ => Event::TradeSubmitting { trade_key, attempt: 2, deadline: T0, reference: None },
        };
        for name in [from, to] {
            again(&mut records, submitted);
            records.last_mut().unwrap().event = event(name);
        }
        let violations = judged(&records).violations().to_vec();
        assert_eq!(violations.is_empty(), allowed, "{from} to {to}: {violations:?}");
    }
}

#[test]
fn check_5_sees_trades_that_nothing_explains() {
    let check = Check::Waiting;
    sees(check, &["not settled in one batch"], |r| without(r, at(r, "TradeSettled", 0)));
    sees(check, &["completed while leg"], |r| {
        let cancelled = at(r, "LegsCancelled", 0);
        again(r, cancelled);
        r.last_mut().unwrap().event = Event::PlanCompleted { plan: uuid::Uuid::from_u128(5) };
    });
    sees(check, &["nothing answered it for a day"], |r| {
        r.truncate(at(r, "TradeSubmitting", 0) + 1);
        let facts = BTreeMap::new();
        for _ in 0..1_100 {
            again(r, 0);
            let last = r.last_mut().unwrap();
            last.event = Event::Noted { what: "x".into(), facts: facts.clone() };
            last.ts = T0.plus_ms(25 * 3_600_000);
        }
    });
}

#[test]
fn check_4_sees_an_order_the_fold_takes_for_filled() {
    let (records, _) = story();
    let records = &records[..=at(&records, "TradeIntent", 0)];
    let mut state = State::default();
    records.iter().for_each(|record| state.apply(record).unwrap());
    assert_eq!(judged(records).compare(&state), Ok(()));
    state.trades.values_mut().for_each(|trade| trade.filled = Money::new(1, 8));
    assert_eq!(judged(records).compare(&state).unwrap_err().check, Check::Ranks);
}

#[test]
fn check_6_sees_gaps_boots_that_do_not_rise_and_time_that_runs_back() {
    let check = Check::Chain;
    sees(check, &["gap"], |r| drop(r.remove(7)));
    sees(check, &["does not rise"], |r| again(r, at(r, "Booted", 0)));
    sees(check, &["is of boot 2"], |r| r.last_mut().unwrap().epoch = 2);
    sees(check, &["before"], |r| r.last_mut().unwrap().ts = Ts(0));
    sees(check, &["created by its first record"], |r| again(r, 0));
}

#[test]
fn every_check_has_a_name_and_says_what_to_do() {
    for (index, check) in Check::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(check.number()), index + 1);
        assert!(!check.name().is_empty() && !check.advice().is_empty());
    }
}
