//! Figures of the store: a durable commit against its bare parts, group commit, journal in memory, start with 100 000
//! records. Run with `cargo bench --bench commit`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    time::{Duration, Instant},
};

use triplegain::{
    model::{Event, Ts},
    settings::sections::{CheckpointSettings, FreeSpaceSettings, GroupSettings, StoreSettings},
    store::{Batch, OpenInfo, Store},
};

fn settings(checkpoint: u32) -> StoreSettings {
    StoreSettings {
        segment_mib: 64,
        group: GroupSettings { max_ms: 5, max_events: 100 },
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
        deposits: BTreeMap::new(),
        store_id: None,
    }
}

/// An event of the usual size that also changes a stored object.
fn event(number: u64) -> Event {
    let (code, reason) = ("busy".to_owned(), "x".repeat(200));
    if number.is_multiple_of(2) {
        Event::CommandRefused { key: format!("k{}", number % 16), code, reason }
    } else {
        Event::StreakChanged { losses: (number % 7) as u32, wins: 1 }
    }
}

fn batch(number: u64, events: u64) -> Batch {
    let events = (number..number + events).map(event).collect();
    Batch::new("bench", "root-1", "cause-1", Ts(info().now.0 + number as i64), events)
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
    let times = (0..count).map(|number| {
        let one = batch(number, 1);
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
        (0..groups).map(|group| (0..100).map(|number| batch(group * 100 + number, 1)).collect()).collect();
    let start = Instant::now();
    for group in work {
        store.commit_group(group).unwrap();
    }
    let rate = (groups * 100) as f64 / start.elapsed().as_secs_f64();
    println!("{:<44} {rate:.0} events/s", "group commit, 100 events a group");
}

fn memory(events: u64) {
    let (mut store, _) = Store::memory(&info(), None).unwrap();
    let work: Vec<Batch> = (0..events).map(|number| batch(number, 1)).collect();
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
        store.commit(batch(group * 100, 100)).unwrap().unwrap();
    }
    drop(store);
    let times = (0..5).map(|_| {
        let start = Instant::now();
        let opened = Store::open(dir.path(), &settings(10_000), &info()).unwrap();
        let took = start.elapsed();
        assert!(opened.1.halt.is_none() && !opened.1.recovered.rebuilt);
        took
    });
    print("start with 100 000 records, killed before", times.collect());
    let start = Instant::now();
    let report = triplegain::store::verify::check(dir.path());
    println!("{:<44} {:.1?} (sound: {})", "verify of the whole chain", start.elapsed(), report.is_sound());
}

fn main() {
    let plain = bare(2_000, false);
    let synced = bare(2_000, true);
    let ours = durable(2_000);
    let times = |base: Duration| ours.as_secs_f64() / base.as_secs_f64();
    println!("durable commit / bare: {:.2} without, {:.2} with data sync of the log", times(plain), times(synced));
    grouped(300);
    memory(300_000);
    start_with(100_000);
}
