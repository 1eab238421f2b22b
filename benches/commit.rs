//! Figures of the store: a durable commit against its bare parts, group commit, journal in memory, start with 109 900
//! records. Run with `cargo bench --bench commit`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    time::{Duration, Instant},
};

use triplegain::{
    model::*,
    settings::sections::{CheckpointSettings, FreeSpaceSettings, GroupSettings, StoreSettings},
    store::{Batch, OpenInfo, Store},
};
use uuid::Uuid;

fn settings(checkpoint: u32) -> StoreSettings {
    StoreSettings {
        segment_mib: 64,
        group: GroupSettings { max_events: 100 },
        aux_flush_ms: 1_000,
        cache_mib: 64,
        checkpoint: CheckpointSettings { events: checkpoint, hours: 24, keep: 3 },
        free_space: FreeSpaceSettings { alert_mib: 1_024, pause_mib: 200 },
    }
}

fn info() -> OpenInfo {
    OpenInfo {
        seed: 7,
        data_kind: "simulated".into(),
        config_hash: "c".repeat(64),
        version: "bench".into(),
        now: Ts::from_secs(1_700_000_000),
        // Every order locks and spends funds, which must be there.
        deposits: BTreeMap::from([("USDT".parse().unwrap(), Decimal::from(100_000_000))]),
        stands_still: false,
        store_id: None,
    }
}

/// One order from intent to settlement: four events that move money and change trade, index, account and totals.
fn order(number: u64) -> Batch {
    let (symbol, usdt): (Symbol, Asset) = ("BTC/USDT".parse().unwrap(), "USDT".parse().unwrap());
    let ts = Ts(info().now.0 + number as i64);
    let key = TradeKey::derive(Uuid::from_u128(1), TradeKind::Decision, &number.to_string(), "0", symbol, Side::Buy);
    let value = Decimal::new(1_000, 2);
    let body = OrderBody {
        symbol,
        side: Side::Buy,
        quantity: Decimal::ONE,
        order_type: OrderType::Market,
        time_in_force: TimeInForce::Gtc,
        stop: Some(Decimal::new(900, 2)),
        target: Some(Decimal::new(1_200, 2)),
        leverage: 1,
        position: None,
        exit_cause: None,
    };
    let trade = Trade {
        key,
        kind: TradeKind::Decision,
        plan: number.to_string(),
        leg: "0".into(),
        decision: None,
        body,
        state: TradeState::Intent,
        lock: Some(Lock { asset: usdt, amount: value }),
        attempt: 0,
        created_at: ts,
        acked_at: None,
        expires_at: None,
        retry_at: None,
        filled: Decimal::ZERO,
        filled_value: Decimal::ZERO,
        fees: Decimal::ZERO,
        fills: 0,
        remote: None,
        resolution: None,
    };
    let fill = Event::TradeFill {
        trade_key: key,
        fill_id: format!("{key}:0"),
        symbol,
        side: Side::Buy,
        quantity: Decimal::ONE,
        price: value,
        value,
        fee: Decimal::ZERO,
        liquidity: Liquidity::Taker,
        price_id: format!("sim:{number}"),
        evidence: None,
        venue_fill: None,
        postings: vec![
            Posting { asset: usdt, account: LedgerAccount::Locked, amount: -value },
            Posting { asset: usdt, account: LedgerAccount::AtCost, amount: value },
            Posting { asset: symbol.base, account: LedgerAccount::Free, amount: Decimal::ONE },
            Posting { asset: symbol.base, account: LedgerAccount::Bought, amount: Decimal::ONE },
        ],
    };
    let events = vec![
        Event::TradeIntent { trade: Box::new(trade) },
        Event::TradeSubmitting { trade_key: key, attempt: 1, deadline: ts.plus_ms(10_000), reference: None },
        fill,
        Event::TradeSettled { trade_key: key },
    ];
    Batch::new("execution", format!("D1-{number}"), "signal", ts, events)
}

/// The same order as four batches of one event.
fn steps(number: u64) -> impl Iterator<Item = Batch> {
    let Batch { events, actor, corr, cause, ts, .. } = order(number);
    events.into_iter().map(move |event| Batch::new(actor.clone(), corr.clone(), cause.clone(), ts, vec![event]))
}

fn print(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("{what:<44} p50 {:>10.1?}  p99 {:>10.1?}  n {}", at(0.5), at(0.99), times.len());
    at(0.5)
}

/// The parts every durable commit must pay: append, data sync, one insert, flush (and the data sync flush leaves out).
fn bare(count: u64, synced: bool) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let mut file = OpenOptions::new().append(true).create(true).open(dir.path().join("journal")).unwrap();
    let db = sled::open(dir.path().join("state")).unwrap();
    let log = File::open(dir.path().join("state/db")).unwrap();
    let line = [b'x'; 400];
    let times = (0..count).map(|number| {
        let start = Instant::now();
        file.write_all(&line).unwrap();
        file.sync_data().unwrap();
        db.insert(number.to_be_bytes(), &line[..]).unwrap();
        db.flush().unwrap();
        if synced {
            log.sync_data().unwrap();
        }
        start.elapsed()
    });
    let name = if synced { "bare append+fdatasync+flush+fdatasync" } else { "bare append+fdatasync+flush" };
    print(name, times.collect())
}

fn durable(count: u64) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &settings(1_000_000), &info()).unwrap();
    let times = (0..count / 4).flat_map(steps).map(|one| {
        let start = Instant::now();
        store.commit(one).unwrap().unwrap();
        start.elapsed()
    });
    print("durable commit of one event", times.collect())
}

fn grouped(groups: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &settings(1_000_000), &info()).unwrap();
    let work: Vec<Vec<Batch>> =
        (0..groups).map(|group| (0..25).flat_map(|number| steps(group * 25 + number)).collect()).collect();
    let start = Instant::now();
    for group in work {
        store.commit_group(group).unwrap();
    }
    let rate = (groups * 100) as f64 / start.elapsed().as_secs_f64();
    println!("{:<44} {rate:.0} events/s", "group commit, 100 events a group");
}

fn memory(events: u64) {
    let (mut store, _) = Store::memory(&info(), None).unwrap();
    let work: Vec<Batch> = (0..events / 4).flat_map(steps).collect();
    let start = Instant::now();
    for one in work {
        store.commit(one).unwrap().unwrap();
    }
    let each = start.elapsed().as_secs_f64() / events as f64 * 1e6;
    println!("{:<44} {each:.2} µs/event", "journal in memory");
}

fn start_with(records: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), &settings(10_000), &info()).unwrap();
    for group in 0..records / 100 {
        store.commit_group((0..25).map(|number| order(group * 25 + number)).collect()).unwrap();
    }
    drop(store);
    println!("{:<44} {records}", "records written");
    let times = (0..5).map(|_| {
        let start = Instant::now();
        let opened = Store::open(dir.path(), &settings(10_000), &info()).unwrap();
        let took = start.elapsed();
        assert!(opened.1.halt.is_none() && !opened.1.recovered.rebuilt);
        took
    });
    print("start after a kill, 9 900 past a checkpoint", times.collect());
    let start = Instant::now();
    let report = triplegain::store::verify::check(dir.path());
    // The orders of this bench move money and make no positions: only the reading is what it should be.
    println!(
        "{:<44} {:.1?} (every record read: {})",
        "verify of the whole chain",
        start.elapsed(),
        report.unread.is_none()
    );
}

fn main() {
    let plain = bare(2_000, false);
    let synced = bare(2_000, true);
    let ours = durable(2_000);
    let times = |base: Duration| ours.as_secs_f64() / base.as_secs_f64();
    println!("durable commit / bare: {:.2} without, {:.2} with data sync of the log", times(plain), times(synced));
    grouped(300);
    memory(300_000);
    // A checkpoint every 10 000 records: this many leave the longest tail a start ever reads.
    start_with(109_900);
}
