//! The breaker of one endpoint: closed, open, half-open (resilience §3). Pure; the caller carries calls and the clock.
//!
//! Who wants to call asks [`Breaker::admit`] and gets a ticket; whatever came of the call goes back with that ticket to
//! [`Breaker::record`], or to [`Breaker::abandon`] when nothing is known. Answers to calls from before the last change
//! of state decide nothing any more: a burst of old time-outs must not fail the probes of a provider that came back.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Ts, time::SECOND_MS},
    settings::ProviderBreakerSettings,
};

/// What came of one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A valid answer, and how long it took of how long it could have taken, milliseconds.
    Answered {
        /// Until the whole answer was read.
        took_ms: i64,
        /// The call's own limit.
        timeout_ms: i64,
    },
    /// No answer, a time-out, or an answer that cannot be used.
    Failed,
    /// The endpoint does not accept who asks. Asking again cannot help.
    Unauthorised,
    /// The endpoint asks to be left alone (429); the header's time if it named one, milliseconds.
    TooMany {
        /// From `Retry-After`.
        retry_after_ms: Option<i64>,
    },
}

/// Where the breaker stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum BreakerState {
    /// Calls pass.
    #[default]
    Closed,
    /// No call passes before `until`.
    Open {
        /// First instant of the probes.
        until: Ts,
    },
    /// Probes pass, one after another.
    HalfOpen,
    /// Closed to everybody until [`Breaker::release`]: the endpoint refused who asks.
    Locked,
}

/// The right to one call; goes back with its outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    term: u64,
    probe: bool,
}

impl Ticket {
    /// The call decides whether the breaker closes.
    pub const fn is_probe(self) -> bool {
        self.probe
    }
}

/// Why a call does not pass. It is no failure of the endpoint and is counted nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Open, or held by `Retry-After`, until this instant.
    Until(Ts),
    /// Half-open, and a probe is under way.
    Probing,
    /// Until the configuration changes or the operator releases it.
    Locked,
}

/// A change of state, for the event and for the capability's `strained`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerChange {
    /// Before.
    pub from: BreakerState,
    /// After.
    pub to: BreakerState,
}

/// One endpoint's breaker. Serialisable: a restart goes on with it, so that a crash loop does not call what is open.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Breaker {
    state: BreakerState,
    /// Newest outcomes while closed, oldest first; true = failure.
    recent: VecDeque<bool>,
    failed_in_a_row: u32,
    /// No call before this instant, whatever the state.
    held_until: Option<Ts>,
    /// Time of the newest opening without jitter, milliseconds.
    open_ms: i64,
    opened_at: Option<Ts>,
    probes_ok: u32,
    probes_failed: u32,
    /// A probe is under way. Not kept: what was under way at a crash has no answer any more.
    #[serde(skip)]
    probing: bool,
    /// Counts changes of state; tickets of older terms decide nothing.
    term: u64,
}

impl Breaker {
    /// Where it stands; an open one stays open here until somebody asks for a call after its time.
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// Calls do not pass freely: the capability is strained while its chain works without this endpoint (A124).
    pub const fn is_open(&self) -> bool {
        !matches!(self.state, BreakerState::Closed)
    }

    /// Asks for one call.
    ///
    /// # Errors
    /// [`Refused`] with what to wait for.
    pub fn admit(&mut self, now: Ts) -> Result<Ticket, Refused> {
        if matches!(self.state, BreakerState::Locked) {
            return Err(Refused::Locked);
        }
        if let Some(until) = self.held_until.filter(|until| now < *until) {
            return Err(Refused::Until(until));
        }
        match self.state {
            BreakerState::Open { until } if now < until => return Err(Refused::Until(until)),
            BreakerState::Open { .. } => self.enter(BreakerState::HalfOpen),
            _ => {}
        }
        let probe = matches!(self.state, BreakerState::HalfOpen);
        if probe && self.probing {
            return Err(Refused::Probing);
        }
        self.probing = probe;
        Ok(Ticket { term: self.term, probe })
    }

    /// Counts what came of the call. `jitter` in -1..1 is drawn by the caller and spreads the time open; values
    /// outside are clamped.
    pub fn record(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        limits: &ProviderBreakerSettings,
        jitter: f64,
        now: Ts,
    ) -> Option<BreakerChange> {
        if ticket.term != self.term {
            return None;
        }
        let from = self.state;
        self.probing = false;
        match outcome {
            Outcome::Unauthorised => self.enter(BreakerState::Locked),
            Outcome::TooMany { retry_after_ms: Some(wait) } => self.hold(wait, limits, now),
            _ => {}
        }
        if !matches!(self.state, BreakerState::Locked) {
            let failed = is_failure(outcome, limits);
            if ticket.probe {
                self.probed(failed, limits, jitter, now)
            } else {
                self.count(failed, limits, jitter, now)
            }
        }
        (from != self.state).then_some(BreakerChange { from, to: self.state })
    }

    /// The call was given up by the caller, or never left: nothing is known, the next probe may go.
    pub fn abandon(&mut self, ticket: Ticket) {
        if ticket.term == self.term {
            self.probing = false;
        }
    }

    /// The configuration changed or the operator releases it: as new, except for a time the endpoint asked for.
    pub fn release(&mut self) -> Option<BreakerChange> {
        let from = self.state;
        let kept = (self.term, self.held_until);
        *self = Breaker { term: kept.0.wrapping_add(1), held_until: kept.1, ..Breaker::default() };
        (from != self.state).then_some(BreakerChange { from, to: self.state })
    }

    fn hold(&mut self, wait_ms: i64, limits: &ProviderBreakerSettings, now: Ts) {
        let longest = i64::from(limits.retry_after_max_seconds) * SECOND_MS;
        let until = now.plus_ms(wait_ms.clamp(0, longest));
        self.held_until = Some(self.held_until.map_or(until, |held| held.max(until)));
    }

    fn count(&mut self, failed: bool, limits: &ProviderBreakerSettings, jitter: f64, now: Ts) {
        self.failed_in_a_row = if failed { self.failed_in_a_row.saturating_add(1) } else { 0 };
        self.recent.push_back(failed);
        while self.recent.len() > limits.window.max(1) as usize {
            self.recent.pop_front();
        }
        let failures = self.recent.iter().filter(|failed| **failed).count() as f64;
        let enough = self.recent.len() >= limits.min_calls.max(1) as usize;
        let by_ratio = enough && failures > 0.0 && failures >= limits.failure_ratio * self.recent.len() as f64;
        if by_ratio || self.failed_in_a_row >= limits.consecutive.max(1) {
            self.open(limits, jitter, now);
        }
    }

    fn probed(&mut self, failed: bool, limits: &ProviderBreakerSettings, jitter: f64, now: Ts) {
        let needed = limits.probes_needed.clamp(1, limits.probes.max(1));
        if failed {
            self.probes_failed += 1;
        } else {
            self.probes_ok += 1;
        }
        if self.probes_ok >= needed {
            self.enter(BreakerState::Closed);
        } else if self.probes_failed > limits.probes.max(1) - needed {
            // The rest of the probes could not close it any more; they are spared.
            self.open(limits, jitter, now);
        }
    }

    fn open(&mut self, limits: &ProviderBreakerSettings, jitter: f64, now: Ts) {
        let first = i64::from(limits.open_seconds) * SECOND_MS;
        let longest = i64::from(limits.open_max_seconds.max(limits.open_seconds)) * SECOND_MS;
        let window = i64::from(limits.reopen_window_seconds) * SECOND_MS;
        let again = self.opened_at.is_some_and(|at| now.since_ms(at) <= window);
        self.open_ms = if again { self.open_ms.saturating_mul(2).clamp(first, longest) } else { first };
        self.opened_at = Some(now);
        // Times are seconds; a float of them is exact.
        let spread = self.open_ms as f64 * limits.jitter.clamp(0.0, 1.0) * jitter.clamp(-1.0, 1.0);
        self.enter(BreakerState::Open { until: now.plus_ms(self.open_ms + spread as i64) });
    }

    fn enter(&mut self, state: BreakerState) {
        self.state = state;
        self.term = self.term.wrapping_add(1);
        self.recent.clear();
        (self.failed_in_a_row, self.probes_ok, self.probes_failed, self.probing) = (0, 0, 0, false);
    }
}

/// Whether an outcome speaks against the endpoint: a slow answer does, before it becomes a time-out.
pub fn is_failure(outcome: Outcome, limits: &ProviderBreakerSettings) -> bool {
    match outcome {
        Outcome::Answered { took_ms, timeout_ms } => took_ms as f64 > limits.slow_ratio * timeout_ms as f64,
        Outcome::Failed | Outcome::Unauthorised | Outcome::TooMany { .. } => true,
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
