//! What goes into the scheduler and what comes out of it. Values only.

use crate::model::{
    CoordinatorState, DegradationLevel, InFlightMarker, RunId, RunKey, RunOutcome, SkipReason, SlotId, TaskName,
    TaskSet, Ts,
};

/// Most dependencies a task can have: every other task once.
pub const DEPENDENCIES_MAX: usize = TaskName::ALL.len() - 1;

/// The number of a key inside one scheduler; stable for its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId(pub(super) u32);

/// What makes outputs comparable: an output of another generation is never fresh (B5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Generation {
    /// Taken from the hash of the effective settings.
    pub config: u64,
    /// Version of the output types.
    pub schema: u32,
}

/// The newest accepted success of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Output {
    /// Which run made it; names the output.
    pub run_id: RunId,
    /// The instant of the data it was computed from.
    pub as_of: Ts,
    /// Under which settings and types.
    pub generation: Generation,
}

/// One accepted output a run is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InputRef {
    /// Whose output.
    pub task: TaskName,
    /// Which output.
    pub run_id: RunId,
    /// Its data instant.
    pub as_of: Ts,
}

/// The inputs of a run, in the order of `depends_on`; absent dependencies are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Inputs {
    items: [Option<InputRef>; DEPENDENCIES_MAX],
}

impl Inputs {
    /// All present inputs.
    pub fn iter(&self) -> impl Iterator<Item = &InputRef> {
        self.items.iter().flatten()
    }

    /// The input of one task.
    pub fn of(&self, task: TaskName) -> Option<&InputRef> {
        self.iter().find(|input| input.task == task)
    }

    pub(super) fn set(&mut self, place: usize, input: InputRef) {
        if let Some(item) = self.items.get_mut(place) {
            *item = Some(input);
        }
    }
}

/// Remarks on a run that the result carries along.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunTags {
    /// A run of a dependency of the same instant had not ended within the wait; the older output was used.
    pub superseded_input: bool,
    /// A dependency is stale (`on_stale = run_stale`): the result may only reduce risk.
    pub stale: bool,
    /// Decides whether a quarantined key is back.
    pub probe: bool,
}

/// A run to be started now. The marker must be written before the agent is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunRequest {
    /// To be given back with the result.
    pub id: KeyId,
    /// What.
    pub key: RunKey,
    /// Identity of this execution; fences late results.
    pub run_id: RunId,
    /// Idempotency key together with `key`.
    pub slot: SlotId,
    /// When the slot began, or when the run was asked for.
    pub due: Ts,
    /// Now.
    pub started_at: Ts,
    /// The run is over then, whatever the agent does.
    pub deadline: Ts,
    /// The snapshot must have been read by then; absent = no snapshot deadline.
    pub snapshot_deadline: Option<Ts>,
    /// From 1.
    pub attempt: u32,
    /// How often a crash interrupted this slot.
    pub interruptions: u32,
    /// 0 safety … 4 housekeeping.
    pub class: u8,
    /// Remarks.
    pub tags: RunTags,
    /// Accepted outputs of the dependencies.
    pub inputs: Inputs,
}

impl RunRequest {
    /// The in-flight marker of this run (C8).
    pub fn marker(&self) -> InFlightMarker {
        InFlightMarker {
            key: self.key,
            slot: self.slot.clone(),
            run_id: self.run_id,
            started_at: self.started_at,
            interruptions: self.interruptions,
        }
    }
}

/// What the coordinator as a whole allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gates {
    /// RUNNING, PAUSED or HALTED.
    pub state: CoordinatorState,
    /// The global degradation level.
    pub level: DegradationLevel,
    /// Tasks whose models the money of the day does not pay any more.
    pub unpaid: TaskSet,
}

/// The result of a run as its agent or the snapshot reader reported it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunReport {
    /// From the request.
    pub id: KeyId,
    /// From the request.
    pub run_id: RunId,
    /// `TimedOut("snapshot")` when the snapshot deadline passed.
    pub outcome: RunOutcome,
    /// Data instant of the output; used with `Succeeded` only.
    pub as_of: Ts,
}

/// Something happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// A run ended.
    Finished(RunReport),
    /// The work of a cancelled run is gone.
    Cancelled {
        /// From the request.
        id: KeyId,
        /// From the request.
        run_id: RunId,
    },
    /// State or level changed.
    Gates(Gates),
    /// The operator switched a task; absent = as configured.
    Switch {
        /// Which.
        task: TaskName,
        /// On, off or as configured.
        enabled: Option<bool>,
    },
    /// The operator wants a run (`run_task`).
    Force {
        /// Becomes the slot id `manual:<command id>`.
        command_id: String,
        /// Task name as given.
        task: String,
        /// Symbol as given.
        symbol: String,
    },
    /// The operator releases a quarantined key.
    Release {
        /// Which.
        key: RunKey,
    },
    /// The actor behind a task panicked too often and is gone: its keys are out.
    GiveUp {
        /// Which.
        task: TaskName,
    },
    /// Shutdown: nothing starts any more, running work is cancelled.
    Drain,
}

/// How a forced run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ForcedEnd {
    /// It ran; the outcome of its last attempt.
    Ran(RunOutcome),
    /// It did not run.
    Skipped(SkipReason),
}

/// What the coordinator has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Write the marker, then ask the agent.
    Start(RunRequest),
    /// Cancel the agent's work; its result does not count any more.
    Cancel {
        /// Which.
        key: RunKey,
        /// Which execution.
        run_id: RunId,
    },
    /// A run is over: commit the outcome, remove the marker, publish a success.
    Ended {
        /// What.
        key: RunKey,
        /// Which execution.
        run_id: RunId,
        /// Which slot.
        slot: SlotId,
        /// Which attempt, from 1.
        attempt: u32,
        /// How; `Succeeded` means: accepted.
        outcome: RunOutcome,
        /// When it began.
        started_at: Ts,
        /// Its inputs; consumption marks of a success.
        inputs: Inputs,
        /// Its remarks.
        tags: RunTags,
    },
    /// Another attempt of the slot will be made.
    Retry {
        /// What.
        key: RunKey,
        /// Which slot.
        slot: SlotId,
        /// Number of the coming attempt.
        attempt: u32,
        /// When.
        at: Ts,
    },
    /// A slot was consumed without a run.
    Skip {
        /// What.
        key: RunKey,
        /// Which slot.
        slot: SlotId,
        /// Why.
        reason: SkipReason,
    },
    /// Slots passed while nobody looked; only the newest one was considered.
    Missed {
        /// What.
        key: RunKey,
        /// How many older ones.
        count: u64,
    },
    /// A result of a run that is not the running one of its key.
    LateResult {
        /// Which execution.
        run_id: RunId,
    },
    /// More slots in a row than configured fell due while the key was running.
    IntervalTooShort {
        /// What.
        key: RunKey,
        /// How many in a row.
        overlaps: u32,
    },
    /// No success for too long, or a success again.
    Starved {
        /// What.
        key: RunKey,
        /// True when it is over.
        recovered: bool,
    },
    /// The reason why a dependency blocks the key changed.
    Blocked {
        /// What.
        key: RunKey,
        /// By whom.
        dependency: TaskName,
        /// Why.
        reason: SkipReason,
    },
    /// Dependencies no longer block the key.
    Unblocked {
        /// What.
        key: RunKey,
    },
    /// A run of a dependency was requested by a waiting key.
    Pulled {
        /// The dependency's key.
        key: RunKey,
        /// Who waits.
        by: RunKey,
        /// The slot it runs under.
        slot: SlotId,
    },
    /// A key is out.
    Quarantined {
        /// What.
        key: RunKey,
        /// Absent = until released.
        until: Option<Ts>,
        /// For people.
        reason: String,
        /// How often within 24 h.
        count: u32,
    },
    /// A key is back.
    QuarantineEnded {
        /// What.
        key: RunKey,
    },
    /// A forced run is admitted.
    ForcedAccepted {
        /// Which command.
        command_id: String,
    },
    /// A forced run is refused.
    ForcedRefused {
        /// Which command.
        command_id: String,
        /// `busy`, `disabled`, `unknown`, `stopping` or the name of the gate.
        code: &'static str,
        /// For people.
        reason: String,
    },
    /// A forced run is over.
    ForcedEnded {
        /// Which command.
        command_id: String,
        /// How.
        end: ForcedEnd,
    },
}
