//! The moving part of one key: where it is in the table of run states (§4) and what it remembers.

use super::{
    grid::{Grid, NEVER},
    rules::KeyPlace,
    stats::KeyCounts,
    types::{DEPENDENCIES_MAX, InputRef, Inputs, Output, RunTags},
};
use crate::{
    coordinator::quarantine::Quarantine,
    model::{RunId, RunOutcome, SkipReason, SlotId, Symbol, TaskName, Ts},
};

/// Where the work of a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Phase {
    /// Nothing to do.
    #[default]
    Idle,
    /// A failed or interrupted slot runs again at `at`.
    Retry,
    /// A pull may be under way; wait until `at`.
    Waiting,
    /// Admitted, waits for a permit until `at`.
    Queued,
    /// Marker written; deadline `at`.
    Running,
    /// Past its deadline and cancelled; the permit is held until `at`.
    Cancelling,
}

/// The one piece of work a key can have; meaningful unless idle.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub slot: SlotId,
    pub due: Ts,
    pub attempt: u32,
    pub interruptions: u32,
    pub class: u8,
    /// The phase's own instant.
    pub at: Ts,
    /// When the wait for dependencies began.
    pub waited_from: Option<Ts>,
    /// Bit per dependency already pulled for this slot.
    pub pulled: u8,
    pub tags: RunTags,
    pub queued_at: Ts,
    /// Class after ageing.
    pub queued_class: u8,
    /// Symbol counter under which it lies in the queue; absent = not in a bucket yet.
    pub queued_rank: Option<u64>,
    pub on_reserve: bool,
    /// Holds a permit of each provider of its task.
    pub asks: bool,
    pub run_id: RunId,
    pub started_at: Ts,
    pub inputs: Inputs,
}

impl Work {
    pub fn new(slot: SlotId, due: Ts, class: u8) -> Work {
        Work {
            slot,
            due,
            attempt: 1,
            interruptions: 0,
            class,
            at: NEVER,
            waited_from: None,
            pulled: 0,
            tags: RunTags::default(),
            queued_at: due,
            queued_class: class,
            queued_rank: None,
            on_reserve: false,
            asks: false,
            run_id: RunId::default(),
            started_at: due,
            inputs: Inputs::default(),
        }
    }

    pub fn is_manual(&self) -> bool {
        matches!(self.slot, SlotId::Manual(_))
    }
}

/// Everything of one key.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub task: usize,
    pub symbol: Symbol,
    pub symbol_index: usize,
    pub grid: Grid,
    pub needs: Vec<Option<u32>>,
    pub needed_by: Vec<u32>,
    /// Slot before the first one of this process; base of the identities.
    pub base_slot: i64,
    /// Newest claimed slot.
    pub last_slot: i64,
    /// Next slot begins; [`NEVER`] while dormant.
    pub next_due: Ts,
    pub phase: Phase,
    pub work: Work,
    pub latest: Option<Output>,
    pub consumed: [Option<Ts>; DEPENDENCIES_MAX],
    pub last_started: Option<Ts>,
    pub last_finished: Option<Ts>,
    pub last_succeeded: Option<Ts>,
    pub last_outcome: Option<RunOutcome>,
    /// Newest success, or when the key came into being.
    pub alive_at: Ts,
    pub starve_at: Ts,
    pub starved: bool,
    pub overlaps: u32,
    pub blocked: Option<(TaskName, SkipReason)>,
    pub quarantine: Quarantine,
    pub counts: KeyCounts,
    /// What the timers hold.
    pub armed: Ts,
}

impl Key {
    pub fn new(place: KeyPlace, now: Ts) -> Key {
        // A key never seen has missed its current slot; the one before it is over even if the spread hides that.
        let slot = place.grid.unspread_slot(now);
        Key {
            task: place.task,
            symbol: place.symbol,
            symbol_index: place.symbol_index,
            grid: place.grid,
            needs: place.needs,
            needed_by: place.needed_by,
            base_slot: slot - 1,
            last_slot: slot - 1,
            next_due: NEVER,
            phase: Phase::Idle,
            work: Work::new(SlotId::Grid(slot - 1), now, 3),
            latest: None,
            consumed: [None; DEPENDENCIES_MAX],
            last_started: None,
            last_finished: None,
            last_succeeded: None,
            last_outcome: None,
            alive_at: now,
            starve_at: NEVER,
            starved: false,
            overlaps: 0,
            blocked: None,
            quarantine: Quarantine::default(),
            counts: KeyCounts::default(),
            armed: NEVER,
        }
    }

    /// The next instant at which time alone changes something.
    pub fn next_instant(&self) -> Ts {
        let phase = if self.phase == Phase::Idle { NEVER } else { self.work.at };
        self.next_due.min(phase).min(self.starve_at)
    }

    /// The newest output as an input of a dependent.
    pub fn as_input(&self, task: TaskName) -> Option<InputRef> {
        self.latest.map(|output| InputRef { task, run_id: output.run_id, as_of: output.as_of })
    }
}
