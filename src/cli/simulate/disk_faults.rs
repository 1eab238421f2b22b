//! When and how the disk of one process fails: at most once, because the program ends with the first failure.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rand::{Rng, seq::IndexedRandom};

use super::plan::{Fault, Plan};
use crate::store::memory_disk::{DiskAnswer, DiskOp, Faults};

/// Operations that are too rare to be met by counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rare {
    Create,
    SyncNames,
    Checkpoint,
    Sync,
    Read,
}

impl Rare {
    const fn is(self, op: DiskOp) -> bool {
        matches!(
            (self, op),
            (Rare::Create, DiskOp::Create)
                | (Rare::SyncNames, DiskOp::SyncNames)
                | (Rare::Checkpoint, DiskOp::Checkpoint)
                | (Rare::Sync, DiskOp::Sync)
                | (Rare::Read, DiskOp::Read(_))
        )
    }
}

/// One failure, at the operation of that number; of reads only reads are counted.
#[derive(Clone, Debug)]
pub struct DiskFaults {
    at: u64,
    /// Only an operation of this kind, the first one from there on; absent = any.
    only: Option<Rare>,
    /// The process dies there instead of seeing an error.
    dies: bool,
    kind: io::ErrorKind,
    /// Part of an append that reaches the disk, or of a segment that can be read, in 1/256.
    part: u8,
    struck: Arc<AtomicBool>,
}

impl DiskFaults {
    /// The failure of one life; absent when its disk works.
    pub fn draw(plan: &Plan, life: u32) -> Option<DiskFaults> {
        let mut rng = plan.stream("disk", life);
        let (crash, store) = (plan.faults.has(Fault::Crash), plan.faults.has(Fault::Store));
        let dies = rng.random_bool(0.5);
        // Half of the lives end within a commit, some of them within the first ones.
        if !(if dies { crash } else { store }) || rng.random_bool(0.4) {
            return None;
        }
        let most = [10, 200, 2_000, 10_000].choose(&mut rng).copied().unwrap_or(10);
        let kinds = [io::ErrorKind::Other, io::ErrorKind::StorageFull, io::ErrorKind::TimedOut];
        let rare = [Rare::Create, Rare::SyncNames, Rare::Checkpoint, Rare::Sync, Rare::Read].map(Some);
        let only = rare.into_iter().chain([None, None]).collect::<Vec<_>>().choose(&mut rng).copied().flatten();
        Some(DiskFaults {
            // A start reads one segment for each day, most of them only at their ends.
            at: if only == Some(Rare::Read) { rng.random_range(0..4) } else { rng.random_range(0..most) },
            only,
            dies,
            kind: kinds.choose(&mut rng).copied().unwrap_or(io::ErrorKind::Other),
            part: rng.random(),
            struck: Arc::default(),
        })
    }

    /// The process dies at the operation after `at` others, with that part (in 1/256) of an append.
    pub fn death(at: u64, part: u8) -> DiskFaults {
        DiskFaults { at, only: None, dies: true, kind: io::ErrorKind::Other, part, struck: Arc::default() }
    }

    /// The process dies at the first sync after `at` operations: written, and not durable.
    pub fn death_before_sync(at: u64) -> DiskFaults {
        DiskFaults { only: Some(Rare::Sync), ..DiskFaults::death(at, 0) }
    }

    /// What the disk asks.
    pub fn injector(&self) -> Faults {
        let faults = self.clone();
        let mut asked = 0;
        Box::new(move |op| {
            let is_read = matches!(op, DiskOp::Read(_));
            asked += u64::from(is_read || faults.only != Some(Rare::Read));
            let fits = asked > faults.at && faults.only.is_none_or(|rare| rare.is(op));
            if !fits || faults.struck.swap(true, Ordering::Relaxed) {
                return DiskAnswer::Done;
            }
            let part = match op {
                DiskOp::Append(bytes) | DiskOp::Read(bytes) => bytes * usize::from(faults.part) / 256,
                _ => 0,
            };
            if faults.dies { DiskAnswer::Dies(part) } else { DiskAnswer::Fails(faults.kind, part) }
        })
    }

    /// True when it happened.
    pub fn struck(&self) -> bool {
        self.struck.load(Ordering::Relaxed)
    }

    /// A crash within a commit, not an error of the disk.
    pub fn is_crash(&self) -> bool {
        self.dies
    }
}
