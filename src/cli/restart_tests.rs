//! Restarts of the whole system on a store in files, in virtual time, with a scripted feed, wall and disk.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    path::Path,
    rc::Rc,
};

use actix::{Actor, Context, Handler};
use rust_decimal::Decimal;

use super::system::{self, Ingredients, System};
use crate::{
    coordinator::{messages::GetStats, timekeeper::Outside},
    execution::{
        intent, settle,
        testkit::{btc, dec, risk_rules},
        venue::{PaperVenue, Venue},
    },
    market::{Feed, FeedError, FeedIssues, FeedItem, FeedKind, actor::FeedEnded},
    model::{time::DAY_MS, *},
    runtime::placement::{Place, run_virtual},
    settings::{RestartFillPolicy, Settings},
    store::{Audit, Batch, Close, CommittedBatch, GAP_FROM, META, Observe, OpenInfo, Opened, Store, VERIFIED_AT},
};

/// A quarter past an hour, so that nothing but analysis falls due within a few minutes.
const START: Ts = Ts(1_767_788_100_000);

/// Candles of one minute: everything up to now is history, the rest comes live.
struct Scripted(VecDeque<FeedItem>);

impl Feed for Scripted {
    fn base(&self) -> Timeframe {
        Timeframe::M1
    }
    fn name(&self) -> &'static str {
        "scripted"
    }
    fn history(&mut self, until: Ts, sink: &mut dyn FnMut(FeedItem)) -> Result<(), FeedError> {
        while self.0.front().is_some_and(|item| item.available_at <= until) {
            self.0.pop_front().into_iter().for_each(&mut *sink);
        }
        Ok(())
    }
    fn next(&mut self) -> Option<Result<FeedItem, FeedError>> {
        self.0.pop_front().map(Ok)
    }
    fn peek_at(&mut self) -> Option<Ts> {
        self.0.front().map(|item| item.available_at)
    }
    fn issues(&self) -> FeedIssues {
        FeedIssues::default()
    }
}

/// A candle that closes `minute` minutes after the start.
fn candle(minute: i64, [open, high, low, close]: [f64; 4]) -> FeedItem {
    let available_at = START.plus_ms(minute * 60_000);
    let candle = Candle { open_time: available_at.plus_ms(-60_000), open, high, low, close, volume: 1.0 };
    FeedItem { symbol: btc(), available_at, kind: FeedKind::Candle(candle) }
}

/// Calm at 40 000 until minute 1, through the stop at minute 3, 41 000 from minute 4 on.
fn market() -> VecDeque<FeedItem> {
    let level = |minute: i64| match minute {
        ..=2 => [40_000.0; 4],
        3 => [40_000.0, 40_000.0, 38_500.0, 39_500.0],
        _ => [41_000.0; 4],
    };
    (-30..60).map(|minute| candle(minute, level(minute))).collect()
}

fn settings(policy: RestartFillPolicy) -> Settings {
    let mut settings = Settings::defaults();
    settings.symbols = vec![btc()];
    settings.execution.paper.restart_fill_policy = policy;
    settings.execution.paper.slippage_pct = Decimal::ZERO;
    for task in [TaskName::TradingDecision, TaskName::PortfolioRebalance] {
        settings.tasks.get_mut(&task).unwrap().enabled = false;
    }
    settings
}

fn open(data: &Path, settings: &Settings, now: Ts) -> (Store, Opened) {
    let info = OpenInfo {
        seed: 7,
        data_kind: "simulated".to_owned(),
        config_hash: "0".repeat(64),
        version: "0".to_owned(),
        now,
        deposits: system::deposits(settings),
        stands_still: false,
        store_id: Some(uuid::Uuid::from_u128(7)),
    };
    Store::open(data, &settings.store, &info).unwrap()
}

/// A long from 40 000 with its stop at 39 000, and a resting buy at 38 800; newest record a second before minute 1.
fn trade(store: &mut Store, settings: &Settings) -> TradeKey {
    let mut buy = |slot: u64, entry: Decimal, stop: Option<Decimal>| {
        let now = START.plus_ms(50_000 + slot as i64 * 1_000);
        let decision = DecisionId(RunId { epoch: 1, seq: slot });
        let order = intent::EntryOrder {
            decision,
            slot: format!("trading_decision:{}:{slot}", btc()),
            replacement: 0,
            symbol: btc(),
            side: Side::Buy,
            quantity: dec!(0.01),
            entry,
            market: dec!(40_000),
            stop,
            target: None,
            leverage: 1,
        };
        let rules = settings.market.symbol[&btc()];
        let trade = intent::entry(store.state().meta.store, &order, &rules, &settings.execution, now).unwrap();
        let key = trade.key;
        let submitting = settle::submitting(&trade, now);
        let intent::Insertion::New(made) = intent::insert(store.state(), trade) else { panic!("the key is used") };
        commit(store, now, vec![*made, submitting]);
        let mut venue = PaperVenue::new(settings, "scripted".into());
        let now = now.plus_ms(100);
        let tick = PriceTick { symbol: btc(), price: dec!(40_000), at: now, price_id: 1, range: None };
        let answer = venue.execute(&store.state().trades[&key], Some(&tick), now);
        let rules = risk_rules();
        let desk = settle::Desk { execution: &settings.execution, rules: &rules, quote_rate: Decimal::ONE, now };
        let events = settle::answer(store.state(), &store.state().trades[&key], answer, &desk).unwrap();
        commit(store, now, events);
        key
    };
    buy(1, dec!(40_000), Some(dec!(39_000)));
    let resting = buy(2, dec!(38_800), None);
    assert_eq!(store.state().positions.len(), 1);
    assert_eq!(store.state().trades[&resting].state, TradeState::Acked);
    resting
}

fn commit(store: &mut Store, now: Ts, events: Vec<Event>) {
    store.commit(Batch::new("test", "test", "test", now, events)).unwrap().unwrap();
}

/// Notes every event that becomes durable.
#[derive(Default)]
struct Ear(Rc<RefCell<Vec<Event>>>);
impl Actor for Ear {
    type Context = Context<Self>;
}
impl Handler<FeedEnded> for Ear {
    type Result = ();
    fn handle(&mut self, _: FeedEnded, _: &mut Context<Self>) {}
}
impl Handler<CommittedBatch> for Ear {
    type Result = ();
    fn handle(&mut self, CommittedBatch(records): CommittedBatch, _: &mut Context<Self>) {
        self.0.borrow_mut().extend(records.iter().map(|record| record.event.clone()));
    }
}

async fn start(place: Place, data: &Path, settings: Settings, outside: Outside) -> (System, Rc<RefCell<Vec<Event>>>) {
    let (store, opened) = open(data, &settings, place.clock.now());
    let outside = Outside { persisted: opened.last_logical_time, ..outside };
    let heard = Rc::new(RefCell::new(Vec::new()));
    let ear = Ear(Rc::clone(&heard)).start();
    let ingredients = Ingredients {
        settings: Rc::new(settings),
        config_hash: "0".repeat(64),
        place,
        store,
        opened,
        feed: Box::new(Scripted(market())),
        outside,
        volatile: false,
        on_end: ear.clone().recipient(),
        on_fatal: |what| panic!("{what}"),
        seams: Default::default(),
    };
    let system = system::assemble(ingredients).await.unwrap();
    system.links.store.send(Observe(ear.recipient())).await.unwrap();
    (system, heard)
}

/// Runs the system from `now` for ten seconds and stops it; the state afterwards.
fn boot(data: &Path, settings: &Settings, now: Ts, clean: bool) -> State {
    let (data, settings) = (data.to_owned(), settings.clone());
    run_virtual(now, |place| async move {
        let clock = place.clock.clone();
        let (system, _) = start(place, &data, settings, Outside::default()).await;
        clock.sleep_until(now.plus_ms(10_000)).await;
        let state = system.view.read().clone();
        if clean {
            system.links.store.send(crate::store::Detach).await.unwrap();
            system.links.store.send(Close).await.unwrap();
        }
        state
    })
    .unwrap()
}

/// Down from a second before minute 1 to minute 6; the fills of the gap, and the state of the resting order.
fn restart_with(policy: RestartFillPolicy) -> (usize, usize, TradeState) {
    let data = tempfile::tempdir().unwrap();
    let settings = settings(policy);
    let (mut store, _) = open(data.path(), &settings, START);
    let resting = trade(&mut store, &settings);
    let before = store.state().totals.fills;
    drop(store);
    let first = boot(data.path(), &settings, START.plus_ms(365_000), false);
    let fills = first.totals.fills - before;
    for (number, clean) in [(1, false), (2, true)] {
        let again = boot(data.path(), &settings, START.plus_ms(365_000 + number * 60_000), clean);
        assert_eq!(again.totals.fills, first.totals.fills, "restart {number} after the gap repeats nothing");
        assert_eq!(again.positions, first.positions);
        assert_eq!(again.account, first.account);
    }
    (fills as usize, first.positions.len(), first.trade_index[&resting].state)
}

#[test]
fn a190_restart_pessimistic_exits_the_crossed_stop_once() {
    assert_eq!(restart_with(RestartFillPolicy::Pessimistic), (1, 0, TradeState::Acked));
}

#[test]
fn a190_restart_cancel_cancels_the_entry_and_exits() {
    assert_eq!(restart_with(RestartFillPolicy::Cancel), (1, 0, TradeState::Cancelled));
}

#[test]
fn a190_restart_replay_fills_stop_and_limit_in_order() {
    assert_eq!(restart_with(RestartFillPolicy::Replay), (2, 1, TradeState::Settled));
}

#[test]
fn a190_a_crash_between_the_boot_and_the_exit_loses_no_stop() {
    let data = tempfile::tempdir().unwrap();
    let settings = settings(RestartFillPolicy::Pessimistic);
    let (mut store, _) = open(data.path(), &settings, START);
    trade(&mut store, &settings);
    drop(store);
    // This start is killed after `Booted`, before any actor runs.
    let (store, opened) = open(data.path(), &settings, START.plus_ms(365_000));
    assert!(store.state().meta.logical_time > START.plus_ms(300_000));
    assert_eq!(opened.gap_from, Some(START.plus_ms(52_100)));
    drop(store);
    let state = boot(data.path(), &settings, START.plus_ms(366_000), true);
    assert!(state.positions.is_empty());
    let (store, _) = open(data.path(), &settings, START.plus_ms(400_000));
    let rows = store.aux_rows(META).unwrap();
    let from: Vec<_> = rows.iter().filter(|(key, _)| key == GAP_FROM).collect();
    assert_eq!(from.len(), 1, "the new gap begins where the last process ended: {from:?}");
    assert!(String::from_utf8(from[0].1.clone()).unwrap().parse::<i64>().unwrap() >= START.0 + 366_000);
}

/// Nothing can be recorded over it, so nothing is tried: the program stays up and says why (a failure ends the process).
#[test]
fn a_damaged_journal_with_a_resting_order_is_a_halted_start_that_stays_up() {
    let data = tempfile::tempdir().unwrap();
    let settings = settings(RestartFillPolicy::Cancel);
    let (mut store, _) = open(data.path(), &settings, START);
    trade(&mut store, &settings);
    (53_000..53_002).for_each(|ms| commit(&mut store, START.plus_ms(ms), vec![Event::CleanStop {}]));
    drop(store);
    let segment = data.path().join("journal").join(format!("{:020}.jsonl", 1));
    let mut bytes = std::fs::read(&segment).unwrap();
    // The last line but one: a bad last line may be a torn write.
    let damaged = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() - 10;
    bytes[damaged] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let state = boot(data.path(), &settings, START.plus_ms(365_000), true);
    assert_eq!((state.coordinator.state, state.positions.len()), (CoordinatorState::Halted, 1));
}

#[test]
fn a190_time_that_stood_still_is_no_gap() {
    let data = tempfile::tempdir().unwrap();
    let settings = settings(RestartFillPolicy::Pessimistic);
    let (mut store, _) = open(data.path(), &settings, START);
    trade(&mut store, &settings);
    let fills = store.state().totals.fills;
    drop(store);
    let state = boot(data.path(), &settings, START.plus_ms(52_100), true);
    assert_eq!((state.totals.fills, state.positions.len()), (fills, 1));
}

/// A wall that runs with Tokio's time, `offset` milliseconds from where it began.
fn wall(offset: &Rc<Cell<i64>>) -> Outside {
    let (offset, began) = (Rc::clone(offset), tokio::time::Instant::now());
    let wall = move || START.plus_ms(began.elapsed().as_millis() as i64 + offset.get());
    Outside { wall: Some(Rc::new(wall)), ..Outside::default() }
}

async fn real_seconds(seconds: u64) {
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
}

fn jumps(heard: &RefCell<Vec<Event>>) -> Vec<i64> {
    let jump = |event: &Event| if let Event::ClockJump { jump_ms } = event { Some(*jump_ms) } else { None };
    heard.borrow().iter().filter_map(jump).collect()
}

fn paused_by(system: &System) -> Vec<String> {
    system.view.read().coordinator.pause_reasons.iter().cloned().collect()
}

#[test]
fn a034_wall_one_hour_back_pauses_and_repeats_no_slot() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    run_virtual(START, |place| async move {
        let offset = Rc::new(Cell::new(0));
        let settings = settings(RestartFillPolicy::Pessimistic);
        let (system, heard) = start(place, &path, settings, wall(&offset)).await;
        real_seconds(70).await;
        assert!(paused_by(&system).is_empty() && jumps(&heard).is_empty());
        let before = system.coordinator.send(GetStats).await.unwrap().stats.sums;
        let at = system.clock.now();
        offset.set(-3_600_000);
        real_seconds(2).await;
        assert_eq!((paused_by(&system), jumps(&heard)), (vec!["clock".to_owned()], vec![-3_600_000]));
        real_seconds(50).await;
        let went_on = system.clock.now().since_ms(at);
        assert!((46_000..50_000).contains(&went_on), "0.9 of 52 s, not {went_on} ms");
        let checked = system.coordinator.send(GetStats).await.unwrap();
        checked.checked.unwrap();
        assert!(checked.stats.sums.claimed >= before.claimed, "slots go on");
        assert_eq!(checked.stats.sums.missed, before.missed);
        real_seconds(12).await;
        assert!(paused_by(&system).is_empty(), "60 s after the jump");
        assert_eq!(system.view.read().coordinator.state, CoordinatorState::Running);
    })
    .unwrap();
}

#[test]
fn a035_wall_two_hours_ahead_is_downtime() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    run_virtual(START, |place| async move {
        let offset = Rc::new(Cell::new(0));
        let settings = settings(RestartFillPolicy::Pessimistic);
        let (system, heard) = start(place, &path, settings, wall(&offset)).await;
        real_seconds(70).await;
        let before = system.coordinator.send(GetStats).await.unwrap().stats;
        offset.set(7_200_000);
        real_seconds(2).await;
        assert!(system.clock.now() >= START.plus_ms(7_270_000));
        assert_eq!((paused_by(&system), jumps(&heard)), (vec!["clock".to_owned()], vec![7_200_000]));
        let after = system.coordinator.send(GetStats).await.unwrap();
        after.checked.unwrap();
        for (key, old) in after.stats.keys.iter().zip(&before.keys) {
            assert!(key.counts.claimed <= old.counts.claimed + 1, "one catch-up at most: {old:?} {key:?}");
            // The analyst abstains on these few candles, so a waiting dependent may have asked it once more.
            assert!(key.counts.started <= old.counts.started + 2, "no burst: {old:?} {key:?}");
        }
        assert!(after.stats.totals.start_lateness.max_ms < 5_000, "a catch-up is no late start");
        real_seconds(61).await;
        assert!(paused_by(&system).is_empty());
    })
    .unwrap();
}

#[test]
fn a036_wall_behind_the_stored_time_pauses_and_the_pause_ends_in_a_later_process() {
    let data = tempfile::tempdir().unwrap();
    let settings = settings(RestartFillPolicy::Pessimistic);
    let (mut store, _) = open(data.path(), &settings, START);
    commit(&mut store, START.plus_ms(600_000), vec![Event::CleanStop {}]);
    drop(store);
    for (first, seconds) in [(true, 3), (false, 62)] {
        let (path, settings) = (data.path().to_owned(), settings.clone());
        run_virtual(START.plus_ms(600_000), |place| async move {
            let offset = Rc::new(Cell::new(if first { 0 } else { 610_000 }));
            let (system, _) = start(place, &path, settings, wall(&offset)).await;
            real_seconds(seconds).await;
            assert_eq!(paused_by(&system).contains(&"clock".to_owned()), first);
        })
        .unwrap();
    }
}

#[test]
fn a037_drift_of_one_and_a_half_seconds_is_followed_without_an_event() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    run_virtual(START, |place| async move {
        let offset = Rc::new(Cell::new(0));
        let settings = settings(RestartFillPolicy::Pessimistic);
        let (system, heard) = start(place, &path, settings, wall(&offset)).await;
        real_seconds(5).await;
        offset.set(1_500);
        real_seconds(2).await;
        assert!(system.clock.now() >= START.plus_ms(8_500), "the wall is followed");
        offset.set(0);
        real_seconds(5).await;
        assert!(jumps(&heard).is_empty() && paused_by(&system).is_empty());
    })
    .unwrap();
}

#[test]
fn b10_a_killed_process_repeats_at_most_ten_seconds_of_program_time() {
    let data = tempfile::tempdir().unwrap();
    let mut quiet = settings(RestartFillPolicy::Pessimistic);
    quiet.tasks.values_mut().for_each(|task| task.enabled = false);
    let (path, running) = (data.path().to_owned(), quiet.clone());
    run_virtual(START, |place| async move {
        let _system = start(place, &path, running, Outside::default()).await;
        real_seconds(3_612).await;
    })
    .unwrap();
    let (_, opened) = open(data.path(), &quiet, START);
    assert!(opened.last_logical_time >= START.plus_ms(3_602_000), "{}", opened.last_logical_time);
}

#[test]
fn little_space_is_told_once_and_less_pauses() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    run_virtual(START, |place| async move {
        let free = Rc::new(Cell::new(500u64 << 20));
        let source = Rc::clone(&free);
        let outside = Outside { free_space: Some(Rc::new(move || Some(source.get()))), ..Outside::default() };
        let settings = settings(RestartFillPolicy::Pessimistic);
        let (system, heard) = start(place, &path, settings, outside).await;
        real_seconds(200).await;
        let told = |event: &Event| matches!(event, Event::Noted { what, .. } if what == "disk_low");
        let mut alerts = heard.borrow().iter().filter(|event| told(event)).count();
        // The first reading is at the boot, before the ear is there.
        alerts += usize::from(alerts == 0);
        assert_eq!(alerts, 1);
        assert_eq!(system.view.read().coordinator.state, CoordinatorState::Running);
        free.set(199 << 20);
        real_seconds(61).await;
        assert_eq!(paused_by(&system), ["boot:disk"]);
        assert_eq!(system.view.read().coordinator.state, CoordinatorState::Paused);
    })
    .unwrap();
}

/// A check of the journal with this answer, and how often it was asked for.
fn audit(answer: Audit) -> (Outside, Rc<Cell<u32>>) {
    let asked = Rc::new(Cell::new(0));
    let count = Rc::clone(&asked);
    let source = move || {
        count.set(count.get() + 1);
        let (give, receiver) = tokio::sync::oneshot::channel();
        give.send(answer.clone()).unwrap();
        receiver
    };
    (Outside { audit: Some(Rc::new(source)), ..Outside::default() }, asked)
}

#[test]
fn a_journal_that_changed_behind_the_checkpoint_halts_and_a_restart_keeps_it() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    run_virtual(START, |place| async move {
        let (outside, asked) = audit(Audit { journal: vec!["line 7: checksum".to_owned()], ..Audit::default() });
        let (system, _) = start(place, &path, settings(RestartFillPolicy::Pessimistic), outside).await;
        real_seconds(10).await;
        assert_eq!(system.view.read().coordinator.state, CoordinatorState::Halted);
        let halt = system.view.read().coordinator.halt.clone().unwrap();
        assert!(halt.reason.starts_with("journal_damaged") && halt.reason.contains("line 7"), "{}", halt.reason);
        real_seconds(7_300).await;
        assert_eq!(asked.get(), 1);
    })
    .unwrap();
    let (store, _) = open(data.path(), &settings(RestartFillPolicy::Pessimistic), START);
    assert_eq!(store.state().coordinator.state, CoordinatorState::Halted);
    // Nothing says that it was found sound: the next start asks at once.
    assert!(store.aux_rows(META).unwrap().iter().all(|(key, _)| key != VERIFIED_AT));
}

#[test]
fn a_sound_journal_is_verified_again_after_seven_days() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_owned();
    run_virtual(START, |place| async move {
        let clock = place.clock.clone();
        let damaged = Audit { checkpoints: vec!["checkpoint 3: no".to_owned()], ..Audit::default() };
        let (outside, asked) = audit(damaged);
        let outside = Outside { verified_at: Some(START.plus_ms(-7 * DAY_MS + 50 * 60_000)), ..outside };
        let (system, heard) = start(place, &path, settings(RestartFillPolicy::Pessimistic), outside).await;
        clock.sleep_until(START.plus_ms(40 * 60_000)).await;
        assert_eq!(asked.get(), 0);
        clock.sleep_until(START.plus_ms(61 * 60_000)).await;
        assert_eq!(asked.get(), 1);
        // A damaged checkpoint is told; a start skips it, so nothing stops.
        let told = |event: &Event| matches!(event, Event::Noted { what, .. } if what == "checkpoint_damaged");
        assert_eq!(heard.borrow().iter().filter(|event| told(event)).count(), 1);
        assert_ne!(system.view.read().coordinator.state, CoordinatorState::Halted);
        system.links.store.send(crate::store::Flush).await.unwrap();
    })
    .unwrap();
    let (store, _) = open(data.path(), &settings(RestartFillPolicy::Pessimistic), START);
    assert!(store.aux_rows(META).unwrap().iter().any(|(key, _)| key == VERIFIED_AT));
}
