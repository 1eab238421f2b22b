//! What a start must make durable before anybody relies on it: what a killed process left unsynced.

use rand::SeedableRng;

use super::*;
use crate::{
    model::{Event, time::DAY_MS},
    settings::Settings,
    store::{Batch, OpenInfo, Opened, Store, StoreError},
};

const START: Ts = Ts(1_767_571_200_000);

fn open(disk: &MemoryDisk, now: Ts) -> Result<(Store, Opened), StoreError> {
    let info = OpenInfo {
        seed: 7,
        data_kind: "simulated".to_owned(),
        config_hash: String::new(),
        version: String::new(),
        now,
        deposits: BTreeMap::new(),
        stands_still: false,
        store_id: None,
    };
    Store::on_disk(disk, &Settings::defaults().store, &info, Box::new(|_, _| ()))
}

fn note(store: &mut Store, now: Ts) -> bool {
    let event = Event::Noted { what: "test".to_owned(), facts: BTreeMap::new() };
    store.commit(Batch::new("test", "test", "test", now, vec![event])).is_ok()
}

/// Dies at the first operation of this kind from now on.
fn die_at(disk: &MemoryDisk, wanted: DiskOp) {
    disk.fail_by(Some(Box::new(move |op| if op == wanted { DiskAnswer::Dies(0) } else { DiskAnswer::Done })));
}

#[test]
fn a_segment_whose_name_a_killed_process_did_not_sync_outlives_a_later_power_cut() {
    for seed in 0..8 {
        let disk = MemoryDisk::default();
        die_at(&disk, DiskOp::SyncNames);
        assert!(open(&disk, START).is_err());
        disk.killed();
        let (store, opened) = open(&disk, START).unwrap();
        let seq = opened.state.meta.seq;
        drop(store);
        disk.power_cut(&mut ChaCha8Rng::seed_from_u64(seed));
        let (_, opened) = open(&disk, START).unwrap();
        assert!(opened.recovered.records >= seq, "seed {seed}: {} of {seq} records", opened.recovered.records);
    }
}

#[test]
fn records_a_killed_process_did_not_sync_are_durable_before_the_next_segment_follows_them() {
    for seed in 0..8 {
        let disk = MemoryDisk::default();
        let (mut store, _) = open(&disk, START).unwrap();
        die_at(&disk, DiskOp::Sync);
        assert!(!note(&mut store, START));
        disk.killed();
        // The next day begins a new segment with its first commit.
        let (store, opened) = open(&disk, START.plus_ms(DAY_MS)).unwrap();
        assert_eq!(opened.recovered.torn_bytes, 0);
        drop(store);
        disk.power_cut(&mut ChaCha8Rng::seed_from_u64(seed));
        let again = open(&disk, START.plus_ms(DAY_MS));
        assert!(again.is_ok(), "seed {seed}: {}", again.unwrap_err());
    }
}

#[test]
fn a_power_cut_leaves_a_torn_tail_and_nothing_acknowledged_is_lost() {
    let mut torn = 0;
    for seed in 0..32 {
        let disk = MemoryDisk::default();
        let (mut store, _) = open(&disk, START).unwrap();
        assert!(note(&mut store, START));
        let seq = store.state().meta.seq;
        die_at(&disk, DiskOp::Sync);
        assert!(!note(&mut store, START));
        disk.power_cut(&mut ChaCha8Rng::seed_from_u64(seed));
        let (_, opened) = open(&disk, START).unwrap();
        assert!(opened.recovered.records >= seq);
        torn += u32::from(opened.recovered.torn_bytes > 0);
    }
    assert!(torn > 0, "no draw tore a line");
}

#[test]
fn a_segment_that_cannot_be_read_refuses_the_start_and_is_whole_at_the_next_one() {
    let disk = MemoryDisk::default();
    let (mut store, _) = open(&disk, START).unwrap();
    for day in 0..3 {
        assert!(note(&mut store, START.plus_ms(day * DAY_MS)));
    }
    let seq = store.state().meta.seq;
    drop(store);
    let mut refused = 0;
    // At the opening of each segment, and in its middle.
    for (nth, part) in [(0, 0), (0, 2), (1, 0), (1, 2), (2, 0), (2, 2)] {
        let mut reads = 0;
        disk.fail_by(Some(Box::new(move |op| match op {
            DiskOp::Read(bytes) => {
                reads += 1;
                let strikes = reads == nth + 1;
                if strikes { DiskAnswer::Fails(io::ErrorKind::Other, bytes * part / 4) } else { DiskAnswer::Done }
            }
            _ => DiskAnswer::Done,
        })));
        refused += u32::from(open(&disk, START.plus_ms(4 * DAY_MS)).is_err());
        disk.killed();
    }
    assert_eq!(refused, 6, "a read that fails is neither damage nor an end of the journal");
    let (_, opened) = open(&disk, START.plus_ms(4 * DAY_MS)).unwrap();
    assert_eq!((opened.halt, opened.recovered.records, opened.recovered.torn_bytes), (None, seq, 0));
}
