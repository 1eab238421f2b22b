//! What a commit promises: whole or not at all, compare-and-set, a failing disk, and a stored copy that equals the fold.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod store_support;

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use store_support::*;
use triplegain::{
    cli::journal::{Format, Selection, export, tail, verify},
    model::{CoordinatorState, Record, State, TradeKey, Ts},
    store::{
        AuxChange, Batch, Expectation, Fatal, Store,
        journal::{JournalFile, Opener, plain_files},
        reader::{self, Start},
    },
};

fn fold(data: &Path) -> State {
    let mut state = State::default();
    let each = &mut |batch: &mut Vec<Record>| {
        batch.drain(..).try_for_each(|record| state.apply(&record).map_err(|misfit| misfit.to_string()))
    };
    reader::read(&data.join("journal"), Start::BEGINNING, each).unwrap();
    state
}

#[test]
fn d05_e10_e14_journal_state_and_embedded_store_agree_after_every_random_batch() {
    for seed in [11, 12, 13] {
        let data = tempfile::tempdir().unwrap();
        let (mut store, _) = open(data.path()).unwrap();
        let mut generator = Generator::new(seed);
        for round in 0..150 {
            let batches = (0..round % 3 + 1).scan(store.state().clone(), |state, _| {
                let batch = generator.batch(state);
                for event in &batch.events {
                    let record = Record {
                        v: 1,
                        seq: state.meta.seq + 1,
                        epoch: 1,
                        ts: batch.ts.max(state.meta.logical_time),
                        n: None,
                        actor: "t".into(),
                        corr: String::new(),
                        cause: String::new(),
                        event: event.clone(),
                    };
                    state.apply(&record).unwrap();
                }
                Some(batch)
            });
            let batches: Vec<Batch> = batches.collect();
            for result in store.commit_group(batches).unwrap() {
                result.unwrap();
            }
            let report = store.verify().unwrap();
            assert!(is_durable(&report), "seed {seed} round {round}: {}", report.text());
        }
        assert_eq!(fold(data.path()), *store.state());
    }
}

#[test]
fn a_group_is_one_write_and_each_batch_in_it_whole_or_refused() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let seq = store.state().meta.seq;
    let never = Expectation::CoordinatorState(CoordinatorState::Halted);
    let group = vec![
        batch(vec![note("a"), note("b")]),
        batch(vec![note("never")]).expecting(never),
        batch(vec![note("c")]).expecting(Expectation::NoTrade(TradeKey([9; 32]))),
        batch(vec![]),
    ];
    let results = store.commit_group(group).unwrap();
    let first = results[0].as_ref().unwrap();
    assert_eq!((first.first_seq, first.last_seq, first.records[0].n), (seq + 1, seq + 2, Some(2)));
    assert!(results[1].as_ref().unwrap_err().to_string().contains("it is RUNNING"));
    assert_eq!(results[2].as_ref().unwrap().last_seq, seq + 3);
    assert!(results[3].as_ref().unwrap().records.is_empty());
    assert_eq!(store.state().meta.seq, seq + 3);
    assert_eq!(fold(data.path()), *store.state());
}

#[test]
fn a_batch_sees_the_batches_before_it_in_its_group() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let command = || {
        let command = triplegain::model::Command::Pause { reason: String::new() };
        let event = triplegain::model::Event::CommandReceived { key: "k".into(), command, body_hash: "h".into() };
        batch(vec![event]).expecting(Expectation::CommandAbsent("k".into(), info().now))
    };
    let results = store.commit_group(vec![command(), command()]).unwrap();
    assert!(results[0].is_ok() && results[1].is_err());
}

#[test]
fn logical_time_never_goes_back() {
    let (mut store, _) = Store::memory(&info(), None).unwrap();
    let late = Ts(info().now.0 + 5_000);
    store.commit(Batch::new("t", "", "", late, vec![note("late")])).unwrap().unwrap();
    let early = store.commit(Batch::new("t", "", "", Ts(0), vec![note("early")])).unwrap().unwrap();
    assert_eq!(early.records[0].ts, late);
}

#[test]
fn a_batch_that_contradicts_the_state_ends_the_store() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let before = fold(data.path());
    let wrong = triplegain::model::Event::TradeSettled { trade_key: TradeKey([1; 32]) };
    assert!(matches!(store.commit(batch(vec![note("a"), wrong])), Err(Fatal::Misfit(_))));
    assert!(matches!(store.commit(batch(vec![note("b")])), Err(Fatal::Poisoned)));
    assert_eq!(fold(data.path()), before);
}

/// Writes only `left` bytes more, then the disk is full; the sync may fail too.
struct FullDisk {
    file: Box<dyn JournalFile>,
    left: Arc<AtomicUsize>,
    broken_sync: bool,
}

impl JournalFile for FullDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.left.load(Ordering::SeqCst);
        if bytes.len() <= left {
            self.left.store(left - bytes.len(), Ordering::SeqCst);
            return self.file.append(bytes);
        }
        self.file.append(&bytes[..left])?;
        self.left.store(0, Ordering::SeqCst);
        Err(io::ErrorKind::StorageFull.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.broken_sync && self.left.load(Ordering::SeqCst) < 1_000_000 {
            return Err(io::Error::other("sync failed"));
        }
        self.file.sync()
    }
}

fn faulty(left: &Arc<AtomicUsize>, broken_sync: bool) -> Opener {
    let (plain, left) = (plain_files(), Arc::clone(left));
    Box::new(move |path, new| Ok(Box::new(FullDisk { file: plain(path, new)?, left: Arc::clone(&left), broken_sync })))
}

#[test]
fn a147_a_full_disk_ends_the_store_without_success_and_the_next_start_is_clean() {
    for left in [0, 1, 100, 300, 700] {
        let data = tempfile::tempdir().unwrap();
        let space = Arc::new(AtomicUsize::new(1 << 30));
        let (mut store, _) = Store::open_with(data.path(), &settings(), &info(), faulty(&space, false)).unwrap();
        store.commit(batch(vec![note("kept")])).unwrap().unwrap();
        let kept = store.state().meta.seq;
        space.store(left, Ordering::SeqCst);
        let failed = store.commit(batch(vec![note("a"), note("b"), note("c"), note("d")])).unwrap_err();
        assert!(matches!(failed, Fatal::Journal { what: "append to", .. }), "{failed}");
        assert_eq!(Fatal::EXIT_CODE, 70);
        assert!(matches!(store.commit(batch(vec![note("x")])), Err(Fatal::Poisoned)));
        drop(store);
        let (store, opened) = open(data.path()).unwrap();
        assert_eq!((opened.halt, opened.recovered.records), (None, kept), "left {left}");
        assert!(store.verify().unwrap().is_sound());
    }
}

#[test]
fn a147_a_failed_sync_is_never_tried_again() {
    let data = tempfile::tempdir().unwrap();
    let space = Arc::new(AtomicUsize::new(1 << 30));
    let (mut store, _) = Store::open_with(data.path(), &settings(), &info(), faulty(&space, true)).unwrap();
    space.store(10_000, Ordering::SeqCst);
    assert!(matches!(store.commit(batch(vec![note("a")])), Err(Fatal::Journal { what: "sync", .. })));
    assert!(matches!(store.checkpoint(), Err(Fatal::Poisoned)));
    drop(store);
    // Whether the record survived is open; the chain is whole either way.
    assert!(open(data.path()).unwrap().0.verify().unwrap().is_sound());
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_journal_in_memory_is_the_one_on_disk_and_its_hash_is_of_its_bytes() {
    use sha2::Digest;
    let data = tempfile::tempdir().unwrap();
    let (mut disk, _) = open(data.path()).unwrap();
    let sink = Sink::default();
    let (mut memory, _) = Store::memory(&info(), Some(Box::new(sink.clone()))).unwrap();
    let mut generator = Generator::new(14);
    for _ in 0..50 {
        let batch = generator.batch(memory.state());
        memory.commit(batch.clone()).unwrap().unwrap();
        disk.commit(batch).unwrap().unwrap();
    }
    let mut bytes = Vec::new();
    for first in reader::segments(&data.path().join("journal")).unwrap() {
        let name = triplegain::store::journal::segment_name(first);
        bytes.extend(fs::read(data.path().join("journal").join(name)).unwrap());
    }
    assert_eq!(bytes, *sink.0.lock().unwrap());
    assert_eq!(memory.journal_sha256().unwrap(), hex::encode(sha2::Sha256::digest(&bytes)));
    assert_eq!((memory.head(), memory.state()), (disk.head(), disk.state()));
}

#[test]
fn auxiliary_data_is_kept_beside_the_journal() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let row = |key: &str, value: Option<&str>| AuxChange {
        tree: "opinions",
        key: key.to_owned(),
        value: value.map(|value| value.as_bytes().to_vec()),
    };
    store.aux_write(vec![row("b", Some("2")), row("a", Some("0")), row("c", Some("3"))]).unwrap();
    store.aux_write(vec![row("c", None), row("a", Some("1"))]).unwrap();
    store.aux_flush().unwrap();
    drop(store);
    let rows = open(data.path()).unwrap().0.aux_rows("opinions").unwrap();
    assert_eq!(rows, [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
}

#[test]
fn journal_readers_answer_while_the_store_is_open_and_after() {
    let data = tempfile::tempdir().unwrap();
    assert_eq!(verify(data.path()).code, 1);
    assert_eq!(tail(data.path(), 5, None).code, 1);
    let (mut store, _) = open(data.path()).unwrap();
    for what in ["a", "b", "c"] {
        store.commit(batch(vec![note(what)])).unwrap().unwrap();
    }
    let seq = store.state().meta.seq;
    let answer = tail(data.path(), 2, None);
    assert_eq!((answer.code, answer.text.lines().count()), (0, 2));
    assert!(answer.text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert_eq!(tail(data.path(), 9, Some(seq - 1)).text.lines().count(), 1);
    assert_eq!(tail(data.path(), 9, Some(seq)).text, "");
    let answer = verify(data.path());
    assert!(answer.code == 0 && answer.text.contains("in use"), "{}", answer.text);
    let selection = Selection { kinds: vec!["Noted".into()], ..Selection::default() };
    for format in [Format::Csv, Format::Jsonl] {
        let mut out = Vec::new();
        let answer = export(data.path(), format, &selection, &mut out);
        assert_eq!((answer.code, answer.text.as_str()), (0, "3 records exported\n"));
        let lines = String::from_utf8(out).unwrap().lines().count();
        assert_eq!(lines, if format == Format::Csv { 4 } else { 3 });
    }
    drop(store);
    let answer = verify(data.path());
    assert!(answer.code == 0 && answer.text.contains("equals the fold"), "{}", answer.text);
}

#[test]
fn a_damaged_place_in_a_checkpoint_is_no_damage_of_the_journal() {
    let data = tempfile::tempdir().unwrap();
    let (store, _) = open(data.path()).unwrap();
    store.close().unwrap();
    let dir = data.path().join("checkpoint");
    let newest = dir.join(triplegain::store::files::names(&dir).unwrap().pop().unwrap());
    let text = fs::read_to_string(&newest).unwrap().replacen("\"offset\":", "\"offset\":1", 1);
    fs::write(&newest, text).unwrap();
    let (_store, opened) = open(data.path()).unwrap();
    assert_eq!(opened.halt, None);
    assert!(opened.warnings.iter().any(|warning| warning.contains("is skipped")), "{:?}", opened.warnings);
}

#[test]
fn an_unreadable_embedded_store_is_told_apart_from_a_wrong_journal() {
    let data = tempfile::tempdir().unwrap();
    drop(open(data.path()).unwrap());
    assert!(triplegain::store::verify::check(data.path()).is_sound());
    fs::remove_dir_all(data.path().join("state")).unwrap();
    fs::write(data.path().join("state"), b"a file").unwrap();
    let report = triplegain::store::verify::check(data.path());
    assert!(!report.is_sound() && report.is_rebuilt_by_a_start(), "{}", report.text());
    let last = data.path().join("journal/00000000000000000001.jsonl");
    let mut bytes = fs::read(&last).unwrap();
    bytes[40] ^= 1;
    fs::write(&last, bytes).unwrap();
    let report = triplegain::store::verify::check(data.path());
    assert!(!report.is_rebuilt_by_a_start(), "{}", report.text());
}

/// Checkpoints and new segments go by name: in the place of a directory that was moved away they would land in another
/// store.
#[test]
fn a_store_whose_directory_was_moved_under_it_commits_nothing_more() {
    let home = tempfile::tempdir().unwrap();
    let (data, moved) = (home.path().join("data"), home.path().join("moved"));
    let (mut store, _) = open(&data).unwrap();
    store.commit(batch(vec![note("a")])).unwrap().unwrap();
    std::fs::rename(&data, &moved).unwrap();
    let (other, _) = open(&data).unwrap();
    let error = store.commit(batch(vec![note("b")])).unwrap_err();
    assert!(error.to_string().contains("moved"), "{error}");
    drop((store, other));
    assert_eq!(fold(&moved).meta.seq + 1, {
        let (store, _) = open(&moved).unwrap();
        store.state().meta.seq
    });
}
