//! Damaged logs of the embedded store: opening says so or everything in it can be read.

use std::{sync::mpsc, time::Duration};

use super::*;

const PAGE: usize = 4_096;

/// A log with rows beside the state, and the snapshot that a second start makes of it: with one, pages are read where
/// it says they are, without looking at the log first.
fn sample(dir: &Path) {
    let Loaded { mut db, state, .. } = open(dir, 1).unwrap();
    db.commit(&Touched::default(), &state).unwrap();
    for row in 0..300 {
        let text = format!("{row} ").repeat(700);
        let value = Some(text.into_bytes());
        db.aux_write(&[AuxChange { tree: "rows", key: format!("row {row:03}"), value }]).unwrap();
    }
    db.aux_flush().unwrap();
    drop(db);
    drop(open(dir, 1).unwrap());
}

/// What becomes of a damaged log: absent when it does not end, false when it was refused.
fn outcome(dir: PathBuf) -> Option<bool> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let read = open(&dir, 1).map(|loaded| loaded.db.aux_rows("rows").map(|rows| rows.len()));
        let _ = tell.send(match read {
            Err(_) => false,
            Ok(rows) => {
                rows.unwrap();
                true
            }
        });
    });
    // Reading takes milliseconds; this is for what never ends.
    told.recv_timeout(Duration::from_secs(60)).ok()
}

#[test]
fn pages_that_changed_places_are_refused_or_do_no_harm_and_reading_ends() {
    let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let whole = home.path().join("whole");
    sample(&whole);
    let bytes = fs::read(whole.join("db")).unwrap();
    let (pages, mut refused) = (bytes.len() / PAGE, 0);
    for number in 0..120 {
        let (a, b) = (number * 7 % pages * PAGE, (number * 31 + 50) % pages * PAGE);
        let dir = home.path().join(format!("{number}"));
        fs::create_dir(&dir).unwrap();
        for name in files::names(&whole).unwrap().iter().filter(|name| name.contains("conf") || name.contains("snap")) {
            fs::copy(whole.join(name), dir.join(name)).unwrap();
        }
        let mut changed = bytes.clone();
        changed[a..a + PAGE].copy_from_slice(&bytes[b..b + PAGE]);
        changed[b..b + PAGE].copy_from_slice(&bytes[a..a + PAGE]);
        fs::write(dir.join("db"), changed).unwrap();
        match outcome(dir.clone()) {
            None => panic!("pages at {a} and {b}: reading does not end"),
            Some(is_read) => refused += u64::from(!is_read),
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    println!("{refused} of 120 refused");
    assert!(refused > 0, "no page that mattered was moved");
}

fn of_epoch(epoch: u32) -> State {
    let mut state = State::default();
    state.meta.epoch = epoch;
    state
}

#[test]
fn a_store_written_by_a_later_epoch_fences_the_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = open(&dir.path().join("state"), 16).unwrap().db;
    first.commit(&Touched::default(), &of_epoch(1)).unwrap();
    let file = first.file.try_clone().unwrap();
    let (db, trees) = (first.db.clone(), first.trees.clone());
    let mut second = StateDb { db, trees, file, mirror: BTreeSet::new(), epoch: 1 };
    second.commit(&Touched::default(), &of_epoch(2)).unwrap();
    let refused = first.commit(&Touched::default(), &of_epoch(1));
    assert!(matches!(refused, Err(Fatal::Fenced { found: 2, ours: 1 })), "{refused:?}");
}

#[test]
fn a_full_disk_is_no_damage_of_what_is_on_it() {
    let words = |code| sled::Error::Io(std::io::Error::from_raw_os_error(code)).to_string();
    assert_eq!(of_the_system(&words(28)).map(|error| error.kind()), Some(std::io::ErrorKind::StorageFull));
    assert_eq!(of_the_system(&words(30)).map(|error| error.kind()), Some(std::io::ErrorKind::ReadOnlyFilesystem));
    assert!(of_the_system(&words(5)).is_none(), "an error of reading may be the damage itself");
    assert!(of_the_system("it names record 7, but its meta is of 6").is_none());
}
