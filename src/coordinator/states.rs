//! RUNNING, PAUSED, HALTED: who may trade (scheduling §3). A cause and the state go in, the events to record come out.
//!
//! Upward is always allowed. Downward only by `reset` (with the current halt id) and `resume`; a restart lifts nothing.
//! A pause while HALTED only adds its reason. Nothing here stops supervision, cancels or reconciliation.

use std::collections::BTreeMap;

use crate::model::{BreakerKind, CoordinatorState, DegradationLevel, Event, Halt, Latch, Ts, state::CoordinatorView};

/// Pause reason of the operator.
pub const OPERATOR: &str = "operator";
/// Pause reason of the EMERGENCY level; removes itself.
pub const DEGRADATION: &str = "degradation";
/// Pause reason of a clock that is not trusted; removes itself.
pub const CLOCK: &str = "clock";

/// Pause reason of a venue that is not in service, or whose prices have all stopped; removes itself.
pub const VENUE: &str = "venue";

/// Why a transition was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct StateRefusal {
    /// Short and stable, for programs.
    pub code: &'static str,
    /// For people.
    pub reason: String,
}

fn refused<T>(code: &'static str, reason: String) -> Result<T, StateRefusal> {
    Err(StateRefusal { code, reason })
}

/// The pause reason of a breaker: `breaker:daily_loss`.
pub fn breaker_reason(breach: &str) -> String {
    format!("breaker:{breach}")
}

/// The pause reason of a boot check: `boot:crash_loop`.
pub fn boot_reason(why: &str) -> String {
    format!("boot:{why}")
}

/// Adds a pause reason. RUNNING becomes PAUSED; PAUSED and HALTED keep their state; a known reason changes nothing.
pub fn pause(view: &CoordinatorView, reason: &str) -> Vec<Event> {
    let mut events = Vec::new();
    if !view.pause_reasons.contains(reason) {
        events.push(Event::PauseReasonAdded { reason: reason.to_owned() });
    }
    if view.state == CoordinatorState::Running {
        events.push(moved(CoordinatorState::Running, CoordinatorState::Paused, reason));
    }
    events
}

/// Removes a reason whose cause has ended (`degradation`, `clock`, `venue`); the last one lets PAUSED become RUNNING.
pub fn clear(view: &CoordinatorView, reason: &str) -> Vec<Event> {
    remove(view, |known| known == reason, &format!("{reason} ended"))
}

fn remove(view: &CoordinatorView, goes: impl Fn(&str) -> bool, why: &str) -> Vec<Event> {
    let (gone, kept): (Vec<&String>, Vec<&String>) = view.pause_reasons.iter().partition(|known| goes(known));
    let mut events: Vec<Event> =
        gone.iter().map(|reason| Event::PauseReasonRemoved { reason: (*reason).clone() }).collect();
    if kept.is_empty() && view.state == CoordinatorState::Paused {
        events.push(moved(CoordinatorState::Paused, CoordinatorState::Running, why));
    }
    events
}

fn moved(from: CoordinatorState, to: CoordinatorState, reason: &str) -> Event {
    Event::StateChanged { from, to, reason: reason.to_owned(), halt: None }
}

/// HALTED with a new halt id, also while HALTED already, so that a reset that races this halt names an old id and is
/// refused. The id is the number of the halt: it never repeats.
pub fn halt(view: &CoordinatorView, reason: &str, actor: &str, now: Ts) -> Event {
    let id = format!("H{}", view.halts + 1);
    let halt = Halt { id, reason: reason.to_owned(), actor: actor.to_owned(), at: now };
    Event::StateChanged { from: view.state, to: CoordinatorState::Halted, reason: reason.to_owned(), halt: Some(halt) }
}

/// HALTED → PAUSED(operator) when `halt_id` is the current one.
///
/// The drawdown peak is re-based in the same commit by [`crate::risk::breakers::reset_drawdown`].
///
/// # Errors
/// `not_halted`, `wrong_halt_id` (with the current id).
pub fn reset(view: &CoordinatorView, halt_id: &str) -> Result<Vec<Event>, StateRefusal> {
    let Some(current) = view.halt.as_ref().filter(|_| view.state == CoordinatorState::Halted) else {
        return refused("not_halted", format!("the program is {}; there is no halt to reset", view.state.name()));
    };
    if current.id != halt_id {
        let reason = format!("halt `{halt_id}` is not the current one; it is `{}` ({})", current.id, current.reason);
        return refused("wrong_halt_id", reason);
    }
    let mut events = Vec::new();
    if !view.pause_reasons.contains(OPERATOR) {
        events.push(Event::PauseReasonAdded { reason: OPERATOR.to_owned() });
    }
    events.push(moved(CoordinatorState::Halted, CoordinatorState::Paused, &format!("reset of {halt_id}")));
    Ok(events)
}

/// What `resume` did.
#[derive(Clone, PartialEq, Debug)]
pub struct Resumed {
    /// To record.
    pub events: Vec<Event>,
    /// The state afterwards.
    pub state: CoordinatorState,
    /// Reasons that stay because their cause has not ended.
    pub remaining: Vec<String>,
    /// Latched breakers; those that halt trading keep refusing entries.
    pub latched: Vec<BreakerKind>,
}

/// Removes operator, breaker and boot reasons; `degradation`, `clock` and `venue` remove themselves. With `auto_clear` off
/// nobody else removes those, so the operator does.
///
/// # Errors
/// `halted`: only `reset` leads out of HALTED.
pub fn resume(
    view: &CoordinatorView,
    latched: &BTreeMap<BreakerKind, Latch>,
    auto_clear: bool,
) -> Result<Resumed, StateRefusal> {
    if view.state == CoordinatorState::Halted {
        let id = view.halt.as_ref().map_or("", |halt| halt.id.as_str());
        return refused("halted", format!("the program is HALTED; `reset` with halt id `{id}` comes first"));
    }
    let stays = |reason: &str| auto_clear && [DEGRADATION, CLOCK, VENUE].contains(&reason);
    let events = remove(view, |reason| !stays(reason), "resume");
    let remaining: Vec<String> = view.pause_reasons.iter().filter(|reason| stays(reason)).cloned().collect();
    let state = if remaining.is_empty() { CoordinatorState::Running } else { CoordinatorState::Paused };
    Ok(Resumed { events, state, remaining, latched: latched.keys().copied().collect() })
}

/// The pause reason `degradation` follows the global level: added at EMERGENCY, removed at REDUCED or better (A123).
pub fn follow_degradation(view: &CoordinatorView, level: DegradationLevel, auto_clear: bool) -> Vec<Event> {
    let held = view.pause_reasons.contains(DEGRADATION);
    match level {
        DegradationLevel::Emergency if !held => pause(view, DEGRADATION),
        DegradationLevel::Normal | DegradationLevel::Reduced if held && auto_clear => clear(view, DEGRADATION),
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "states_tests.rs"]
mod tests;
