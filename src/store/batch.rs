//! What a committer hands in and gets back: a batch of events, what it expects to find, and the answer.

use std::{borrow::Cow, sync::Arc};

use uuid::Uuid;

use crate::model::{CoordinatorState, Event, PlanState, PositionId, Record, State, TradeKey, TradeState, Ts};

/// Events that belong together: applied as a whole or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In order; an empty batch is answered at once and writes nothing.
    pub events: Vec<Event>,
    /// Component or operator identity.
    pub actor: Cow<'static, str>,
    /// Root of the chain (decision, plan, command or run).
    pub corr: String,
    /// Direct cause.
    pub cause: String,
    /// Logical time; a time before the newest record is raised to it.
    pub ts: Ts,
    /// Compare-and-set: what must hold for the batch to be applied.
    pub expectation: Option<Expectation>,
}

impl Batch {
    /// A batch without an expectation.
    pub fn new(
        actor: impl Into<Cow<'static, str>>,
        corr: impl Into<String>,
        cause: impl Into<String>,
        ts: Ts,
        events: Vec<Event>,
    ) -> Batch {
        Batch { events, actor: actor.into(), corr: corr.into(), cause: cause.into(), ts, expectation: None }
    }

    /// The same batch, applied only if `expectation` holds.
    #[must_use]
    pub fn expecting(mut self, expectation: Expectation) -> Batch {
        self.expectation = Some(expectation);
        self
    }
}

/// One row of an auxiliary tree, beside the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuxChange {
    /// Name of the auxiliary tree.
    pub tree: &'static str,
    /// Key within it.
    pub key: String,
    /// Any bytes; absent = removed.
    pub value: Option<Vec<u8>>,
}

/// What must hold in the current state for a batch to be applied.
#[derive(Clone, PartialEq, Debug)]
pub enum Expectation {
    /// The trade is known and in exactly this state.
    TradeState(TradeKey, TradeState),
    /// The key was never used.
    NoTrade(TradeKey),
    /// The plan is active and the leg is still PLANNED.
    LegPlanned(Uuid, TradeKey),
    /// The command key was not used within its memory at this instant.
    CommandAbsent(String, Ts),
    /// The position is open and no further exit of it was begun.
    PositionUnchanged(PositionId, u32),
    /// The coordinator is in this state.
    CoordinatorState(CoordinatorState),
    /// All of them.
    All(Vec<Expectation>),
}

impl Expectation {
    /// Compares with the state.
    ///
    /// # Errors
    /// [`Refused`] with what was expected and what was found.
    pub fn check(&self, state: &State) -> Result<(), Refused> {
        match self {
            Expectation::TradeState(key, wanted) => {
                let found = state.trades.get(key).map(|trade| trade.state);
                let found = found.or_else(|| state.trade_index.get(key).map(|stub| stub.state));
                let text = found.map_or_else(|| "unknown".to_owned(), |found| format!("{found:?}"));
                refuse_unless(found == Some(*wanted), || {
                    (format!("trade {} in {wanted:?}", key.short()), format!("it is {text}"))
                })
            }
            Expectation::NoTrade(key) => {
                let found = state.trade_index.get(key);
                refuse_unless(found.is_none(), || {
                    let state = found.map(|stub| stub.state);
                    (format!("no trade {}", key.short()), format!("it exists in state {state:?}"))
                })
            }
            Expectation::LegPlanned(plan, key) => {
                let held = state.plans.get(plan).filter(|plan| plan.state == PlanState::Active);
                let leg = held.and_then(|plan| plan.legs.iter().find(|leg| leg.key == *key));
                refuse_unless(leg.is_some_and(|leg| leg.state == TradeState::Planned), || {
                    let found = match (held, leg) {
                        (None, _) => "the plan is not active".to_owned(),
                        (_, None) => "the plan has no such leg".to_owned(),
                        (_, Some(leg)) => format!("the leg is {:?}", leg.state),
                    };
                    (format!("leg {} of plan {plan} planned", key.short()), found)
                })
            }
            Expectation::CommandAbsent(key, now) => refuse_unless(state.command(key, *now).is_none(), || {
                (format!("command key `{key}` unused"), "it was used already".to_owned())
            }),
            Expectation::PositionUnchanged(id, exit_seq) => {
                let found = state.positions.get(id).map(|position| position.exit_seq);
                refuse_unless(found == Some(*exit_seq), || {
                    let found = found.map_or_else(|| "it is not open".to_owned(), |seq| format!("exit {seq} began"));
                    (format!("position {id} open with exit {exit_seq}"), found)
                })
            }
            Expectation::CoordinatorState(wanted) => {
                let found = state.coordinator.state;
                refuse_unless(found == *wanted, || (wanted.name().to_owned(), format!("it is {}", found.name())))
            }
            Expectation::All(all) => all.iter().try_for_each(|one| one.check(state)),
        }
    }
}

fn refuse_unless(holds: bool, texts: impl FnOnce() -> (String, String)) -> Result<(), Refused> {
    if holds {
        return Ok(());
    }
    let (expected, found) = texts();
    Err(Refused { expected, found })
}

/// A refused expectation: a normal answer; nothing was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected {expected}, but {found}; nothing was changed")]
pub struct Refused {
    /// What the committer expected.
    pub expected: String,
    /// What the state says.
    pub found: String,
}

impl Refused {
    /// The answer of a store opened over a damaged journal, which takes nothing at all; `why` is the damage.
    pub fn read_only(why: &str) -> Refused {
        Refused { expected: READ_ONLY.to_owned(), found: why.to_owned() }
    }

    /// Asking again does not help.
    pub fn is_read_only(&self) -> bool {
        self.expected == READ_ONLY
    }
}

const READ_ONLY: &str = "a store that can be written";

/// A batch that is durable.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Sequence number of its first record.
    pub first_seq: u64,
    /// Sequence number of its last record; one below `first_seq` for an empty batch.
    pub last_seq: u64,
    /// The records as written.
    pub records: Arc<[Record]>,
}

/// Answer to one batch.
pub type CommitResult = Result<Committed, Refused>;
