//! What a kill, a damaged file, a copy or a second process leaves behind, and what the next start does about it.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/killed_stores.rs"]
mod killed_stores;
mod store_support;

use std::{fs, path::Path};

use killed_stores::*;
use store_support::*;
use triplegain::{
    model::{CoordinatorState, Event, State, Ts},
    store::{Batch, Store, StoreError, checkpoint::state_hash, files, verify},
};

/// A store with `batches` random batches, killed.
fn sample(seed: u64, batches: usize) -> (tempfile::TempDir, State) {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let mut generator = Generator::new(seed);
    for _ in 0..batches {
        let batch = generator.batch(store.state());
        store.commit(batch).unwrap().unwrap();
    }
    let state = store.state().clone();
    (killed(data.path()), state)
}

/// The state with what every boot changes taken out.
fn without_boot(mut state: State) -> State {
    state.meta.epoch = 0;
    state.meta.seq = 0;
    state.meta.clean_stop = false;
    state
}

fn assert_sound(data: &Path) {
    let report = verify::check(data);
    assert!(is_durable(&report), "{}", report.text());
}

#[test]
fn d20_everything_acknowledged_is_there_after_a_kill_and_epochs_increase() {
    let (data, before) = sample(1, 60);
    for epoch in 2..5 {
        let (store, opened) = open(data.path()).unwrap();
        assert_eq!(opened.epoch, epoch);
        assert_eq!(opened.halt, None);
        assert!(!opened.recovered.rebuilt, "{:?}", opened.warnings);
        assert_eq!(without_boot(store.state().clone()), without_boot(before.clone()));
        assert!(is_durable(&store.verify().unwrap()));
    }
    assert_sound(data.path());
}

#[test]
fn a150_recovering_twice_gives_the_identical_state() {
    let (data, _) = sample(2, 60);
    let twin = killed(data.path());
    let (once, _) = open(data.path()).unwrap();
    let (again, _) = open(twin.path()).unwrap();
    assert_eq!(state_hash(once.state()), state_hash(again.state()));
    assert_eq!(once.head(), again.head());
    drop(once);
    let (third, _) = open(data.path()).unwrap();
    assert_eq!(without_boot(third.state().clone()), without_boot(again.state().clone()));
}

#[test]
fn a142_a_torn_last_line_is_moved_aside_and_cut() {
    for cut in [1, 7, 40] {
        let (data, _) = sample(3, 20);
        let path = segments(data.path()).pop().unwrap();
        let bytes = fs::read(&path).unwrap();
        // One more record as the predecessor was writing it when it died.
        let line = bytes.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap().to_vec();
        fs::write(&path, [&bytes[..], &line[..line.len() - cut]].concat()).unwrap();
        let (store, opened) = open(data.path()).unwrap();
        assert_eq!(opened.halt, None);
        assert_eq!(opened.recovered.torn_bytes, (line.len() - cut) as u64);
        assert!(files::names(&data.path().join("journal")).unwrap().iter().any(|name| name.starts_with("torn-")));
        drop(store);
        assert_sound(data.path());
    }
}

#[test]
fn an_incomplete_batch_at_the_end_is_cut_as_a_whole() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    store.commit(batch(vec![note("kept")])).unwrap().unwrap();
    let kept = store.state().meta.seq;
    let length = fs::metadata(segments(data.path()).pop().unwrap()).unwrap().len();
    let early = killed(data.path());
    store.commit(batch(vec![note("a"), note("b"), note("c")])).unwrap().unwrap();
    // Journal with two of three records over an embedded store that has none of them: the kill hit the append.
    let bytes = fs::read(segments(data.path()).pop().unwrap()).unwrap();
    let second = bytes[length as usize..].iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
    fs::write(segments(early.path()).pop().unwrap(), &bytes[..length as usize + second + 1]).unwrap();
    let (store, opened) = open(early.path()).unwrap();
    assert_eq!((opened.halt, opened.recovered.records), (None, kept));
    assert_eq!(opened.recovered.torn_bytes, second as u64 + 1);
    assert_eq!(store.state().meta.seq, kept + 1);
}

#[test]
fn a142_a_flipped_byte_in_the_middle_halts_and_repairs_nothing() {
    let (data, _) = sample(4, 30);
    let path = segments(data.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (mut store, opened) = open(data.path()).unwrap();
    let halt = opened.halt.unwrap();
    assert_eq!((halt.code, opened.frozen), ("journal_damaged", true));
    assert!(halt.text.contains("line "), "{}", halt.text);
    assert_eq!(store.state().coordinator.state, CoordinatorState::Halted);
    assert!(store.commit(batch(vec![note("x")])).unwrap().is_err());
    drop(store);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert!(!verify::check(data.path()).is_sound());
}

#[test]
fn a142_a_missing_segment_halts() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    for day in 0..4 {
        let at = Ts(info().now.0 + day * 86_400_000);
        store.commit(Batch::new("t", "", "", at, vec![note("day")])).unwrap().unwrap();
    }
    store.close().unwrap();
    let all = segments(data.path());
    assert_eq!(all.len(), 4);
    // Also a segment the newest checkpoint covers is missed.
    let text = fs::read(&all[1]).unwrap();
    fs::remove_file(&all[1]).unwrap();
    let (store, opened) = open(data.path()).unwrap();
    assert_eq!((opened.halt.unwrap().code, opened.frozen), ("journal_damaged", true));
    drop(store);
    fs::write(&all[1], text).unwrap();
    let (_store, opened) = open(data.path()).unwrap();
    assert_eq!(opened.halt, None);
}

#[test]
fn a143_an_embedded_store_ahead_of_the_journal_halts() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let short = fs::read(segments(data.path()).pop().unwrap()).unwrap();
    store.commit(batch(vec![note("lost")])).unwrap().unwrap();
    let copy = killed(data.path());
    fs::write(segments(copy.path()).pop().unwrap(), short).unwrap();
    for _ in 0..2 {
        let (store, opened) = open(copy.path()).unwrap();
        assert_eq!(store.state().coordinator.state, CoordinatorState::Halted);
        assert!(store.state().coordinator.halt.as_ref().unwrap().reason.starts_with("store_ahead: "));
        // The first start finds it; later ones stay HALTED because the journal says so.
        assert!(opened.halt.is_none_or(|halt| halt.code == "store_ahead"));
    }
    assert!(files::names(copy.path()).unwrap().iter().any(|name| name.starts_with("state.ahead-")));
    assert_sound(copy.path());
}

#[test]
fn a144_a_copied_directory_halts_until_it_is_adopted() {
    let data = tempfile::tempdir().unwrap();
    let (store, _) = open(data.path()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_all(data.path(), copy.path());
    drop(store);
    for _ in 0..2 {
        let (copied, opened) = open(copy.path()).unwrap();
        assert_eq!(opened.halt.unwrap().code, "store_moved");
        assert!(copied.state().coordinator.halt.as_ref().unwrap().reason.starts_with("store_moved: "));
    }
    let (mut copied, _) = open(copy.path()).unwrap();
    let store = copied.state().meta.store;
    copied.commit(batch(vec![Event::StoreAdopted { store }])).unwrap().unwrap();
    drop(copied);
    let (copied, opened) = open(copy.path()).unwrap();
    assert_eq!(opened.halt, None);
    // Adopting does not lift HALTED: a restart never does.
    assert_eq!(copied.state().coordinator.state, CoordinatorState::Halted);
    assert_eq!(open(data.path()).unwrap().1.halt, None);
}

#[test]
fn a_journal_without_identity_halts() {
    let (data, _) = sample(5, 5);
    fs::remove_file(data.path().join("identity.json")).unwrap();
    for _ in 0..2 {
        assert_eq!(open(data.path()).unwrap().1.halt.unwrap().code, "store_moved");
    }
}

#[test]
fn a145_a_second_start_is_refused_and_writes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let (_store, _) = open(data.path()).unwrap();
    let before = fs::read(segments(data.path()).pop().unwrap()).unwrap();
    let lock = fs::read(data.path().join("LOCK")).unwrap();
    let refused = open(data.path()).unwrap_err();
    assert_eq!(refused.exit_code(), 73);
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    assert_eq!(fs::read(segments(data.path()).pop().unwrap()).unwrap(), before);
    assert_eq!(fs::read(data.path().join("LOCK")).unwrap(), lock);
}

#[test]
fn a146_an_unknown_record_refuses_to_start_and_is_named() {
    let (data, _) = sample(6, 5);
    let path = segments(data.path()).pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let last = text.lines().last().unwrap();
    let body = last[..last.len() - 18].replacen("\"v\":1,", "\"v\":9,", 1);
    let line = format!("{body},\"crc\":\"{:08x}\"}}\n", crc32c::crc32c(body.as_bytes()));
    let changed = format!("{}{line}", &text[..text.len() - last.len() - 1]);
    fs::write(&path, &changed).unwrap();
    let refused = open(data.path()).unwrap_err();
    assert!(matches!(&refused, StoreError::UnknownRecord { what, .. } if what.contains("version 9")), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), changed);
}

#[test]
fn a141_a_damaged_embedded_store_is_rebuilt_to_the_same_state() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("deleted", |state| fs::remove_dir_all(state).unwrap()),
        ("truncated", |state| {
            let file = fs::OpenOptions::new().write(true).open(state.join("db")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("flipped", |state| {
            let mut bytes = fs::read(state.join("db")).unwrap();
            bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 16);
            fs::write(state.join("db"), bytes).unwrap();
        }),
        ("emptied", |state| fs::write(state.join("db"), b"").unwrap()),
        ("no directory", |state| {
            fs::remove_dir_all(state).unwrap();
            fs::write(state, b"a file").unwrap();
        }),
    ];
    for (name, harm) in harms {
        let (data, before) = sample(7, 40);
        harm(&data.path().join("state"));
        let (store, opened) = open(data.path()).unwrap();
        // A truncated log may open as an older whole state; then the missing records are applied and compared.
        let caught_up = name == "truncated" && opened.recovered.applied > 0;
        assert!(opened.recovered.rebuilt || caught_up, "{name}: {:?}", opened.recovered);
        assert_eq!(opened.halt, None, "{name}");
        assert_eq!(without_boot(store.state().clone()), without_boot(before), "{name}");
        assert!(is_durable(&store.verify().unwrap()), "{name}");
        let kept = files::names(data.path()).unwrap().iter().any(|file| file.starts_with("state.damaged-"));
        assert_eq!(kept, name != "deleted" && !caught_up, "{name}");
    }
}

#[test]
fn an_embedded_store_behind_the_journal_is_brought_up() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let behind = killed(data.path());
    let mut generator = Generator::new(8);
    for _ in 0..30 {
        let batch = generator.batch(store.state());
        store.commit(batch).unwrap().unwrap();
    }
    let ahead = segments(data.path()).pop().unwrap();
    for path in segments(behind.path()) {
        fs::remove_file(path).unwrap();
    }
    for path in segments(data.path()) {
        fs::copy(&path, behind.path().join("journal").join(path.file_name().unwrap())).unwrap();
    }
    let (again, opened) = open(behind.path()).unwrap();
    assert!(opened.recovered.applied > 0 && !opened.recovered.rebuilt, "{:?} {ahead:?}", opened.warnings);
    assert_eq!(without_boot(again.state().clone()), without_boot(store.state().clone()));
    assert!(is_durable(&again.verify().unwrap()));
}

#[test]
fn checkpoints_shorten_the_start_and_a_damaged_one_does_not_matter() {
    let data = tempfile::tempdir().unwrap();
    let mut settings = settings();
    settings.checkpoint.events = 20;
    let (mut store, _) = Store::open(data.path(), &settings, &info()).unwrap();
    let mut generator = Generator::new(9);
    for _ in 0..60 {
        let batch = generator.batch(store.state());
        store.commit(batch).unwrap().unwrap();
    }
    let state = store.state().clone();
    let dir = data.path().join("checkpoint");
    drop(store);
    assert_sound(data.path());
    let newest = dir.join(files::names(&dir).unwrap().pop().unwrap());
    fs::write(&newest, b"{}").unwrap();
    let (store, opened) = Store::open(data.path(), &settings, &info()).unwrap();
    assert!(opened.warnings.iter().any(|warning| warning.contains("is skipped")), "{:?}", opened.warnings);
    assert_eq!(without_boot(store.state().clone()), without_boot(state));
    // A journal cut behind a checkpoint is damage, not a torn tail.
    drop(store);
    let path = segments(data.path()).pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let few: String = text.split_inclusive('\n').take(2).collect();
    fs::write(&path, few).unwrap();
    assert_eq!(Store::open(data.path(), &settings, &info()).unwrap().1.halt.unwrap().code, "journal_damaged");
}

#[test]
fn a_store_of_another_kind_and_a_file_in_its_place_are_refused() {
    let data = tempfile::tempdir().unwrap();
    drop(open(data.path()).unwrap());
    let mut live = info();
    live.data_kind = "live".into();
    let refused = Store::open(data.path(), &settings(), &live).unwrap_err();
    assert!(matches!(refused, StoreError::OtherDataKind { .. }) && refused.exit_code() == 2);
    let file = data.path().join("file");
    fs::write(&file, b"").unwrap();
    for path in [file.clone(), file.join("below")] {
        assert!(matches!(open(&path).unwrap_err(), StoreError::NotADirectory { .. }), "{}", path.display());
    }
}

#[test]
fn a_directory_without_permission_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("closed");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(data.join("probe"), b"").is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    let refused = open(&data).unwrap_err();
    assert!(matches!(refused, StoreError::Permission { .. } | StoreError::ReadOnly { .. }), "{refused}");
}

#[test]
fn directories_and_files_belong_to_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("new").join("store");
    let (store, _) = open(&data).unwrap();
    store.close().unwrap();
    let mut left = vec![data];
    while let Some(path) = left.pop() {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            left.extend(files::names(&path).unwrap().iter().map(|name| path.join(name)));
        } else if !path.parent().unwrap().ends_with("state") {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
}

#[test]
fn a_clean_stop_is_recognised() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, opened) = open(data.path()).unwrap();
    assert!(opened.created && opened.recovered.clean);
    store.commit(batch(vec![Event::CleanStop {}])).unwrap().unwrap();
    store.close().unwrap();
    let (store, opened) = open(data.path()).unwrap();
    assert!(!opened.created && opened.recovered.clean);
    drop(store);
    assert!(!open(data.path()).unwrap().1.recovered.clean);
}

#[test]
fn a_byte_that_changed_before_the_newest_checkpoint_is_found_beside_the_running_store() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let mut generator = Generator::new(10);
    for _ in 0..30 {
        let batch = generator.batch(store.state());
        store.commit(batch).unwrap().unwrap();
    }
    let records = store.state().meta.seq;
    store.close().unwrap();
    let audit = || verify::audit(data.path().to_owned()).blocking_recv().unwrap();
    assert_eq!(audit(), verify::Audit { records, ..Default::default() });
    let path = segments(data.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    // A start reads from the checkpoint on and meets nothing.
    let (_store, opened) = open(data.path()).unwrap();
    assert_eq!(opened.halt, None);
    let found = audit();
    assert_eq!(found.journal.len(), 1);
    assert!(found.journal[0].contains("line 1, seq 1"), "{}", found.journal[0]);
}

#[test]
fn an_identity_that_cannot_be_read_or_names_another_store_halts() {
    type Harm = fn(&str) -> String;
    let harms: [(&str, Harm); 3] = [
        ("no JSON", |_| "{".to_owned()),
        ("a field renamed", |text| text.replacen("inode", "jnode", 1)),
        ("another store", |text| {
            let at = text.find("\"store\": \"").unwrap() + 10;
            let other = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
            format!("{}{other}{}", &text[..at], &text[at + 1..])
        }),
    ];
    for (name, harm) in harms {
        let (data, before) = sample(11, 5);
        let path = data.path().join("identity.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, harm(&text)).unwrap();
        for _ in 0..2 {
            let (store, opened) = open(data.path()).unwrap();
            assert_eq!(opened.halt.unwrap().code, "store_moved", "{name}");
            assert_eq!(store.state().meta.store, before.meta.store, "{name}");
        }
        // Adopted, it is the same store again.
        triplegain::store::identity::adopt(data.path()).unwrap();
        assert_eq!(open(data.path()).unwrap().1.halt, None, "{name}");
        let adopted = fs::read_to_string(&path).unwrap();
        assert!(adopted.contains(&before.meta.store.to_string()), "{name}: {adopted}");
    }
}

#[test]
fn a_start_over_damage_counts_the_records_before_it() {
    let data = tempfile::tempdir().unwrap();
    let (mut store, _) = open(data.path()).unwrap();
    let before = store.state().meta.seq;
    for text in ["a", "b", "c"] {
        store.commit(batch(vec![note(text)])).unwrap().unwrap();
    }
    let copy = killed(data.path());
    let path = segments(copy.path()).pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let at = text.lines().take(before as usize).map(|line| line.len() + 1).sum::<usize>() + 40;
    let mut bytes = text.into_bytes();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (_store, opened) = open(copy.path()).unwrap();
    assert!(opened.frozen);
    // The event that says HALTED is in the state, but no record.
    assert_eq!(opened.recovered.records, before);
}

#[test]
fn k44_a_torn_tail_over_a_lost_embedded_store_halts() {
    let (data, _) = sample(13, 10);
    let path = segments(data.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    fs::remove_dir_all(data.path().join("state")).unwrap();
    for _ in 0..2 {
        let (store, opened) = open(data.path()).unwrap();
        assert_eq!(store.state().coordinator.state, CoordinatorState::Halted);
        assert!(!opened.frozen);
        assert!(store.state().coordinator.halt.as_ref().unwrap().reason.contains("torn"));
    }
    assert_sound(data.path());
}
