//! Power losses: at every request the store makes of the file system, with every combination tried of unsynced writes
//! and names that survive, the journal keeps what was acknowledged and accepts nothing else.
//!
//! The embedded store is taken as lost each time, so the journal and its checkpoints must do it alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    batch::Batch,
    checkpoint,
    core::{OpenInfo, Store},
    files, identity,
    journal::{JournalFile, Opener},
    reader::{self, ReadError, Start},
    recover::{self, CHECKPOINTS, JOURNAL},
    trace::{self, Op},
    verify,
};
use crate::{
    model::{Event, State, Ts, time::DAY_MS},
    settings::{Settings, sections::StoreSettings},
};

const SECTOR: usize = 512;
/// So many unsynced sectors survive in every combination; of more, drawn ones are tried.
const ALL_SUBSETS: usize = 8;

/// What is written to a file besides what is known to be on the disk.
#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    length: usize,
}

#[derive(Clone)]
enum Name {
    Given(PathBuf, usize),
    Moved(PathBuf, PathBuf, usize),
    Gone(PathBuf),
}

/// A disk that keeps only what was synced; the rest survives as it likes.
#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<Inode>,
    durable: BTreeMap<PathBuf, usize>,
    current: BTreeMap<PathBuf, usize>,
    pending: Vec<Name>,
}

/// What survives of an unsynced write.
enum Kept {
    Nothing,
    All,
    /// The first bytes.
    First(usize),
    /// Any sectors; the others read as zeros.
    Sectors,
}

impl Disk {
    fn of(files: BTreeMap<PathBuf, Vec<u8>>) -> Disk {
        let mut disk = Disk::default();
        for (path, durable) in files {
            disk.durable.insert(path.clone(), disk.inodes.len());
            disk.current.insert(path, disk.inodes.len());
            let length = durable.len();
            disk.inodes.push(Inode { durable, pending: Vec::new(), length });
        }
        disk
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path) => {
                self.current.insert(path.clone(), self.inodes.len());
                self.pending.push(Name::Given(path.clone(), self.inodes.len()));
                self.inodes.push(Inode::default());
            }
            Op::Write(path, bytes) => {
                let inode = &mut self.inodes[self.current[path]];
                inode.pending.push((inode.length, bytes.clone()));
                inode.length += bytes.len();
            }
            Op::Sync(path) => {
                let inode = &mut self.inodes[self.current[path]];
                for (at, bytes) in std::mem::take(&mut inode.pending) {
                    put(&mut inode.durable, at, &bytes);
                }
            }
            Op::Rename(from, to) => {
                let inode = self.current.remove(from).unwrap();
                self.current.insert(to.clone(), inode);
                self.pending.push(Name::Moved(from.clone(), to.clone(), inode));
            }
            Op::Remove(path) => {
                self.current.remove(path);
                self.pending.push(Name::Gone(path.clone()));
            }
            Op::SyncDir(dir) => {
                let (now, later) = std::mem::take(&mut self.pending).into_iter().partition(|name| {
                    let (Name::Given(path, _) | Name::Moved(_, path, _) | Name::Gone(path)) = name;
                    path.parent() == Some(dir)
                });
                self.pending = later;
                now.into_iter().for_each(|name: Name| rename(&mut self.durable, name));
            }
            Op::Acknowledged(_) => {}
        }
    }

    /// What a power loss leaves: `name` says whether an unsynced name survives, `write` what survives of a write.
    fn image(
        &self,
        rng: &mut ChaCha8Rng,
        name: &dyn Fn(&mut ChaCha8Rng) -> bool,
        write: &dyn Fn(&mut ChaCha8Rng) -> Kept,
    ) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut names = self.durable.clone();
        for pending in &self.pending {
            if name(rng) {
                rename(&mut names, pending.clone());
            }
        }
        let mut image = BTreeMap::new();
        for (path, inode) in names {
            let inode = &self.inodes[inode];
            let mut bytes = inode.durable.clone();
            for (at, written) in &inode.pending {
                match write(rng) {
                    Kept::Nothing => {}
                    Kept::All => put(&mut bytes, *at, written),
                    Kept::First(count) => put(&mut bytes, *at, &written[..count.min(written.len())]),
                    Kept::Sectors => {
                        for (_, from, piece) in sectors(*at, written) {
                            if rng.random_bool(0.5) {
                                put(&mut bytes, from, piece);
                            }
                        }
                    }
                }
            }
            image.insert(path, bytes);
        }
        image
    }

    /// Sectors of the disk that hold something unsynced: file and number.
    fn unsynced(&self) -> Vec<(usize, usize)> {
        let of = |number: &usize| {
            let pieces = self.inodes[*number].pending.iter().flat_map(|(at, written)| sectors(*at, written));
            pieces.map(|(sector, ..)| (*number, sector)).collect::<BTreeSet<_>>()
        };
        self.current.values().flat_map(of).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What a power loss leaves when every name and exactly these unsynced sectors survive.
    fn image_of(&self, kept: &BTreeSet<(usize, usize)>) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut image = BTreeMap::new();
        for (path, number) in &self.current {
            let inode = &self.inodes[*number];
            let mut bytes = inode.durable.clone();
            for (sector, from, piece) in inode.pending.iter().flat_map(|(at, written)| sectors(*at, written)) {
                if kept.contains(&(*number, sector)) {
                    put(&mut bytes, from, piece);
                }
            }
            image.insert(path.clone(), bytes);
        }
        image
    }
}

/// A write cut where sectors of the file begin: number of the sector, place in the file, bytes.
fn sectors(at: usize, written: &[u8]) -> Vec<(usize, usize, &[u8])> {
    let (mut from, mut rest, mut pieces) = (at, written, Vec::new());
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(SECTOR - from % SECTOR));
        pieces.push((from / SECTOR, from, piece));
        (from, rest) = (from + piece.len(), more);
    }
    pieces
}

/// Where a write may end: beside every end of a line, and where sectors of the file begin, one byte less and one more.
fn cuts(at: usize, written: &[u8]) -> BTreeSet<usize> {
    let lines = written.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place + 1);
    let sectors = sectors(at, written).into_iter().map(|(_, from, _)| from - at);
    let around = |place: usize| [place.saturating_sub(1), place, place + 1];
    lines.chain(sectors).flat_map(around).filter(|cut| *cut < written.len()).collect()
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, name: Name) {
    match name {
        Name::Given(path, inode) => drop(names.insert(path, inode)),
        Name::Moved(from, to, inode) => {
            names.remove(&from);
            names.insert(to, inode);
        }
        Name::Gone(path) => drop(names.remove(&path)),
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

struct Recorded(PathBuf, File);

impl JournalFile for Recorded {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        trace::record(|| Op::Write(self.0.clone(), bytes.to_vec()));
        self.1.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        trace::record(|| Op::Sync(self.0.clone()));
        self.1.sync_data()
    }
}

fn recording() -> Opener {
    Box::new(|path, new| {
        if new {
            trace::record(|| Op::Create(path.to_owned()));
        }
        let file = files::owner_only().append(true).create_new(new).open(path)?;
        Ok(Box::new(Recorded(path.to_owned(), file)) as Box<dyn JournalFile>)
    })
}

fn settings() -> StoreSettings {
    let mut settings = Settings::defaults().store;
    settings.checkpoint.events = 9;
    settings.checkpoint.keep = 2;
    settings
}

fn info() -> OpenInfo {
    OpenInfo {
        seed: 7,
        data_kind: "simulated".into(),
        config_hash: "c".repeat(64),
        version: "test".into(),
        now: Ts::from_secs(1_700_000_000),
        deposits: BTreeMap::new(),
        stands_still: true,
        store_id: None,
    }
}

fn all_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for sub in [dir.to_owned(), dir.join(JOURNAL), dir.join(CHECKPOINTS)] {
        for path in files::names(&sub).unwrap().iter().map(|name| sub.join(name)).filter(|path| path.is_file()) {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

/// A directory that needs no disk, where there is one: the disk is modelled.
fn home() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A run over some days: what was asked of the disk, what it held before, and the state at the end of every batch.
struct Run {
    home: tempfile::TempDir,
    before: Disk,
    ops: Vec<Op>,
    states: BTreeMap<u64, State>,
}

fn run(rng: &mut ChaCha8Rng) -> Run {
    let home = home();
    let (mut store, _) = Store::open_with(home.path(), &settings(), &info(), recording()).unwrap();
    let mut states = BTreeMap::from([(store.state().meta.seq, store.state().clone())]);
    let before = Disk::of(all_files(home.path()));
    trace::begin();
    for group in 0..24 {
        let at = info().now.plus_ms(group * DAY_MS / 7);
        let batches: Vec<Batch> = (0..rng.random_range(1..=3))
            .map(|number| {
                let text = "x".repeat(rng.random_range(0..900));
                let events = (0..rng.random_range(1..=3)).map(|_| match rng.random_range(0..3) {
                    0 => Event::PauseReasonAdded { reason: format!("r{group}-{number}") },
                    _ => Event::Noted { what: text.clone(), facts: BTreeMap::new() },
                });
                Batch::new("test", "root", "cause", at, events.collect())
            })
            .collect();
        let mut fold = store.state().clone();
        for committed in store.commit_group(batches).unwrap() {
            for record in committed.unwrap().records.iter() {
                fold.apply(record).unwrap();
            }
            states.insert(fold.meta.seq, fold.clone());
        }
        trace::record(|| Op::Acknowledged(store.state().meta.seq));
    }
    Run { home, before, ops: trace::end(), states }
}

/// What a start makes of an image.
#[derive(PartialEq, Debug)]
enum Start1 {
    /// Up to this record.
    Whole(u64),
    /// HALTED over damage, with the state of this record.
    Halted(u64),
}

/// Journal and checkpoints alone, by the functions a start uses; then the chain from its first record on.
fn recover(dir: &Path) -> Result<(State, Start1), String> {
    let (checkpoint, _) = checkpoint::newest(&dir.join(CHECKPOINTS)).map_err(|error| error.to_string())?;
    let journal = dir.join(JOURNAL);
    match recover::fold(&journal, checkpoint) {
        Ok(folded) => {
            if folded.end.torn.is_some() {
                reader::cut_torn_tail(&journal, folded.end.position, 1).map_err(|error| error.to_string())?;
            }
            let end = reader::read(&journal, Start::BEGINNING, &mut |_| Ok(()));
            let end = end.map_err(|error| format!("the chain is not whole after recovery: {error:?}"))?;
            if end.torn.is_some() || end.seq != folded.state.meta.seq {
                return Err("the chain ends elsewhere after recovery".into());
            }
            let seq = folded.state.meta.seq;
            Ok((folded.state, Start1::Whole(seq)))
        }
        Err(ReadError::Damage(damage)) => {
            let mut state = State::default();
            let _ = reader::read(&journal, Start::BEGINNING, &mut |batch| {
                batch.drain(..).try_for_each(|record| state.apply(&record).map_err(|misfit| misfit.to_string()))
            });
            let seq = state.meta.seq;
            println!("HALTED at {seq}: {damage}");
            Ok((state, Start1::Halted(seq)))
        }
        Err(ReadError::Refused(error)) => Err(error.to_string()),
    }
}

struct Tally {
    images: u64,
    halted: u64,
    opened: u64,
}

/// Writes an image, recovers it, and holds it against what was acknowledged.
fn check(
    run: &Run,
    image: BTreeMap<PathBuf, Vec<u8>>,
    acknowledged: u64,
    reordered: bool,
    tally: &mut Tally,
    what: &str,
) {
    let dir = home();
    for sub in [JOURNAL, CHECKPOINTS] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    for (path, bytes) in &image {
        fs::write(dir.path().join(path.strip_prefix(run.home.path()).unwrap()), bytes).unwrap();
    }
    let (state, start) = recover(dir.path()).unwrap_or_else(|why| panic!("{what}: {why}"));
    let seq = match start {
        Start1::Whole(seq) => seq,
        Start1::Halted(seq) => {
            // Only sectors that changed places within one append may look like damage.
            assert!(reordered, "{what}: HALTED");
            tally.halted += 1;
            seq
        }
    };
    assert!(seq >= acknowledged, "{what}: {acknowledged} was acknowledged, {seq} is there");
    assert_eq!(run.states.get(&seq), Some(&state), "{what}: record {seq} is no end of a batch, or of another state");
    tally.images += 1;
    if tally.images.is_multiple_of(97) && matches!(start, Start1::Whole(_)) {
        identity::adopt(dir.path()).unwrap();
        let (store, opened) = Store::open(dir.path(), &settings(), &info()).unwrap();
        assert_eq!((opened.halt, opened.recovered.records), (None, seq), "{what}");
        drop(store);
        assert!(verify::check(dir.path()).is_sound(), "{what}");
        tally.opened += 1;
    }
}

/// Every set of unsynced sectors survives once, when they are few enough.
fn every_set(run: &Run, disk: &Disk, acknowledged: u64, tally: &mut Tally, what: &dyn Fn(&str) -> String) -> bool {
    let unsynced = disk.unsynced();
    if unsynced.len() > ALL_SUBSETS {
        return false;
    }
    for mask in 0..1_u32 << unsynced.len() {
        let kept: BTreeSet<_> = (0..unsynced.len()).filter(|n| mask >> n & 1 == 1).map(|n| unsynced[n]).collect();
        // When the first ones of each file survive, nothing has changed places.
        let reordered = unsynced
            .windows(2)
            .any(|pair| pair[0].0 == pair[1].0 && !kept.contains(&pair[0]) && kept.contains(&pair[1]));
        check(run, disk.image_of(&kept), acknowledged, reordered, tally, &what(&format!("sectors {mask:b} survive")));
    }
    true
}

#[test]
fn a_power_loss_at_any_request_keeps_what_was_acknowledged() {
    for seed in 0..2 {
        println!("seed {seed}");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let run = run(&mut rng);
        let is_segment =
            |op: &&Op| matches!(op, Op::Create(path) if path.parent() == Some(&run.home.path().join(JOURNAL)));
        let segments = run.ops.iter().filter(is_segment).count();
        let checkpoints = run.ops.iter().filter(|op| matches!(op, Op::Rename(..))).count();
        assert!(segments >= 3 && checkpoints >= 3, "{segments} segments, {checkpoints} checkpoints");
        let mut disk = run.before.clone();
        let mut acknowledged = *run.states.keys().next().unwrap();
        let (mut writes, mut whole_sets) = (0, 0);
        let mut tally = Tally { images: 0, halted: 0, opened: 0 };
        for (number, op) in run.ops.iter().enumerate() {
            disk.apply(op);
            if let Op::Acknowledged(seq) = op {
                acknowledged = *seq;
            }
            let what = |how: &str| format!("seed {seed}, request {number} {}, {how}", short(op));
            let mut image = |disk: &Disk,
                             how: &str,
                             name: &dyn Fn(&mut ChaCha8Rng) -> bool,
                             write: &dyn Fn(&mut ChaCha8Rng) -> Kept,
                             reordered| {
                let image = disk.image(&mut rng, name, write);
                check(&run, image, acknowledged, reordered, &mut tally, &what(how));
            };
            image(&disk, "nothing unsynced survives", &|_| false, &|_| Kept::Nothing, false);
            image(&disk, "everything survives", &|_| true, &|_| Kept::All, false);
            image(&disk, "names alone survive", &|_| true, &|_| Kept::Nothing, false);
            image(&disk, "writes alone survive", &|_| false, &|_| Kept::All, false);
            if let Op::Write(path, bytes) = op {
                // Every byte of some writes; of every write, around each end of a line and each sector.
                writes += 1;
                let at = disk.inodes[disk.current[path]].length - bytes.len();
                let places = if writes % 16 == 1 { (0..bytes.len()).collect() } else { cuts(at, bytes) };
                for cut in places {
                    image(&disk, &format!("torn at byte {cut}"), &|_| true, &|_| Kept::First(cut), false);
                }
            }
            for _ in 0..4 {
                let any = |rng: &mut ChaCha8Rng| rng.random_bool(0.5);
                let torn = |rng: &mut ChaCha8Rng| match rng.random_range(0..3) {
                    0 => Kept::Nothing,
                    1 => Kept::All,
                    _ => Kept::First(rng.random_range(0..2_000)),
                };
                image(&disk, "any of it survives", &any, &torn, false);
                image(&disk, "any sectors survive", &any, &|_| Kept::Sectors, true);
            }
            if matches!(op, Op::Write(..)) {
                let tried = every_set(&run, &disk, acknowledged, &mut tally, &what);
                whole_sets += u32::from(tried);
            }
        }
        println!(
            "{} requests, {writes} writes ({whole_sets} with every set of sectors), {} images, {} of them opened whole, {} HALTED over \
             reordered sectors of an unacknowledged append",
            run.ops.len(),
            tally.images,
            tally.opened,
            tally.halted
        );
        assert!(tally.images > 2_000 && tally.opened > 10);
    }
}

fn short(op: &Op) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match op {
        Op::Create(path) => format!("create {}", name(path)),
        Op::Write(path, bytes) => format!("write {} bytes to {}", bytes.len(), name(path)),
        Op::Sync(path) => format!("sync {}", name(path)),
        Op::Rename(_, to) => format!("rename to {}", name(to)),
        Op::Remove(path) => format!("remove {}", name(path)),
        Op::SyncDir(path) => format!("sync directory {}", name(path)),
        Op::Acknowledged(seq) => format!("acknowledge {seq}"),
    }
}
