//! `apply`: the only writer of the state. Pure, total, and the same live, in recovery and in verification.
//!
//! A record that does not fit the state it meets (a fill of an unknown trade, a rank that would decrease) is a broken
//! invariant: it is reported, never skipped, and ends the process. Trades and money are folded in `apply_trades.rs`,
//! plans in `apply_plans.rs`.

use super::state::*;
use super::*;

/// A record contradicts the state it is applied to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} ({kind}) does not fit the state: {why}")]
pub struct Misfit {
    /// Which record.
    pub seq: u64,
    /// Its kind.
    pub kind: &'static str,
    /// What does not fit.
    pub why: String,
}

/// Commands older than this are forgotten, milliseconds.
pub const COMMAND_MEMORY_MS: i64 = 24 * time::HOUR_MS;
/// Votes wait this long for their mark at most, milliseconds; then they are dropped as unmarked.
pub const VOTE_MEMORY_MS: i64 = 48 * time::HOUR_MS;
/// Ended emergencies kept, so that the same instance never starts twice within its period.
pub const ENDED_EMERGENCIES_KEPT: usize = 64;

impl State {
    /// The command that used this key, as long as it is remembered: afterwards the key is free.
    pub fn command(&self, key: &str, now: Ts) -> Option<&CommandRecord> {
        self.commands.get(key).filter(|record| now.since_ms(record.at) < COMMAND_MEMORY_MS)
    }

    /// Folds one record in.
    ///
    /// # Errors
    /// [`Misfit`] when the record contradicts the state. The state may then be partly changed and must be discarded.
    pub fn apply(&mut self, record: &Record) -> Result<(), Misfit> {
        let fits = self.place(record).and_then(|()| self.fold(record));
        fits.map_err(|why| Misfit { seq: record.seq, kind: record.event.kind(), why })
    }

    fn place(&mut self, record: &Record) -> Result<(), String> {
        if record.seq != self.meta.seq + 1 {
            return Err(format!("expected seq {}, got {}", self.meta.seq + 1, record.seq));
        }
        if record.epoch < self.meta.epoch {
            return Err(format!("epoch {} is older than {}", record.epoch, self.meta.epoch));
        }
        self.meta.seq = record.seq;
        self.meta.logical_time = self.meta.logical_time.max(record.ts);
        self.meta.clean_stop = matches!(record.event, Event::CleanStop {});
        Ok(())
    }

    fn fold(&mut self, record: &Record) -> Result<(), String> {
        let at = record.ts;
        match &record.event {
            Event::StoreCreated { store, seed, data_kind } => {
                if record.seq != 1 {
                    return Err("a store is created once".into());
                }
                self.meta.store = *store;
                self.meta.seed = *seed;
                self.meta.data_kind.clone_from(data_kind);
                self.meta.created_at = at;
            }
            Event::Booted { epoch, config_hash, .. } => {
                if *epoch <= self.meta.epoch {
                    return Err(format!("epoch {epoch} is not above {}", self.meta.epoch));
                }
                self.meta.epoch = *epoch;
                self.meta.config_hash.clone_from(config_hash);
            }
            Event::StoreAdopted { store } => {
                if *store != self.meta.store {
                    return Err(format!("store {store} is not this one, {}", self.meta.store));
                }
            }
            Event::RecoveryDone { .. } | Event::CleanStop {} | Event::ClockJump { .. } | Event::Noted { .. } => {}
            Event::StateChanged { .. }
            | Event::PauseReasonAdded { .. }
            | Event::PauseReasonRemoved { .. }
            | Event::DegradationChanged { .. }
            | Event::Quarantined { .. }
            | Event::QuarantineEnded { .. }
            | Event::TaskSwitched { .. }
            | Event::RunClaimed { .. }
            | Event::InFlightRecovered { .. } => self.coordinator.fold(&record.event, at),
            Event::RunFinished { ballots, .. } => {
                self.coordinator.fold(&record.event, at);
                drop(self.leaderboard.count(ballots));
            }
            Event::CommandReceived { .. } | Event::CommandDone { .. } | Event::CommandRefused { .. } => {
                self.fold_command(&record.event, at);
            }
            Event::SignalReceived { .. }
            | Event::DecisionClassified { .. }
            | Event::ConsensusComputed { .. }
            | Event::ConflictsFound { .. }
            | Event::ResolutionDone { .. }
            | Event::Sized { .. }
            | Event::RiskApproved { .. }
            | Event::RiskRefused { .. }
            | Event::DecisionEnded { .. }
            | Event::VotesMarked { .. } => self.fold_decision(&record.event, at),
            Event::TradeIntent { trade } => self.fold_intent(trade)?,
            Event::TradeSubmitting { .. }
            | Event::TradeAcked { .. }
            | Event::TradeSettled { .. }
            | Event::TradeRejected { .. }
            | Event::TradeRefused { .. }
            | Event::TradeExpired { .. }
            | Event::TradeNotExecuted { .. }
            | Event::TradeUnknown { .. }
            | Event::TradeManual { .. }
            | Event::TradeCancelled { .. } => self.fold_trade(&record.event, at)?,
            Event::TradeResolved { trade_key, resolution } => self.fold_resolution(*trade_key, resolution)?,
            Event::TradeCancelRequested { trade_key, reason } => self.fold_cancel_request(*trade_key, reason)?,
            Event::NoncesReserved { until } => {
                if *until <= self.meta.nonces {
                    return Err(format!("request numbers below {} are reserved already", self.meta.nonces));
                }
                self.meta.nonces = *until;
            }
            Event::GapReplayed { symbol, at, done } => {
                let known = self.meta.replayed.entry(*symbol).or_default();
                if *at < known.at {
                    return Err(format!("the downtime of {symbol} is worked off until {} already", known.at));
                }
                *known = Replayed { at: *at, done: done.clone() };
            }
            Event::TradeFill { .. } => self.fold_fill(&record.event)?,
            Event::PlanCreated { .. }
            | Event::LegsRespread { .. }
            | Event::PlanCompleted { .. }
            | Event::PlanSuperseded { .. }
            | Event::PlanExpired { .. }
            | Event::LegsCancelled { .. } => self.fold_plan(&record.event, at)?,
            Event::Deposit { .. }
            | Event::PositionOpened { .. }
            | Event::PositionChanged { .. }
            | Event::PositionClosed { .. }
            | Event::StopMoved { .. } => self.fold_account(&record.event)?,
            Event::PeriodRolled { .. }
            | Event::PeakChanged { .. }
            | Event::BreakerTripped { .. }
            | Event::BreakerRearmed { .. }
            | Event::CooldownSet { .. }
            | Event::StreakChanged { .. }
            | Event::OrderErrorsChanged { .. } => self.risk.fold(&record.event),
            Event::BudgetReserved { .. } | Event::BudgetSettled { .. } | Event::BudgetExhausted { .. } => {
                self.spend(&record.event);
            }
            Event::EmergencyStarted { .. } | Event::EmergencyStep { .. } | Event::EmergencyDone { .. } => {
                self.fold_emergency(&record.event)?;
            }
        }
        Ok(())
    }

    /// Books what model calls hold and cost.
    pub(crate) fn spend(&mut self, event: &Event) {
        self.models.fold(event);
    }

    fn fold_command(&mut self, event: &Event, at: Ts) {
        match event {
            Event::CommandReceived { key, command, body_hash } => {
                self.commands.retain(|_, record| at.since_ms(record.at) < COMMAND_MEMORY_MS);
                let record = CommandRecord {
                    key: key.clone(),
                    name: command.name().to_owned(),
                    body_hash: body_hash.clone(),
                    at,
                    answer: None,
                };
                self.commands.insert(key.clone(), record);
            }
            Event::CommandDone { key, result } => {
                if let Some(record) = self.commands.get_mut(key) {
                    record.answer = Some(CommandAnswer::Ok { result: result.clone() });
                }
            }
            Event::CommandRefused { key, code, reason } => {
                if let Some(record) = self.commands.get_mut(key) {
                    record.answer = Some(CommandAnswer::Refused { code: code.clone(), reason: reason.clone() });
                }
            }
            _ => {}
        }
    }

    fn fold_decision(&mut self, event: &Event, at: Ts) {
        match event {
            Event::SignalReceived { decision, signal, .. } => {
                self.totals.signals += 1;
                self.leaderboard.cast(*decision, signal, at);
                let open = OpenDecision { id: *decision, symbol: signal.head.symbol, received_at: at };
                self.decisions.insert(*decision, open);
            }
            Event::RiskApproved { reservation, .. } => {
                self.risk.reservations.insert(reservation.key, reservation.clone());
            }
            Event::DecisionEnded { decision, end, .. } => {
                self.decisions.remove(decision);
                *self.totals.decisions.entry(end.name().to_owned()).or_default() += 1;
            }
            Event::VotesMarked { decision, marks } => self.leaderboard.mark(*decision, marks),
            _ => {}
        }
    }

    fn fold_emergency(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::EmergencyStarted { emergency } => {
                let id = emergency.key.to_string();
                if self.emergencies.contains_key(&id) {
                    return Err(format!("emergency {id} started already"));
                }
                self.emergencies.insert(id, emergency.clone());
            }
            Event::EmergencyStep { key, position, retry_at, .. } => {
                let held =
                    self.emergencies.get_mut(&key.to_string()).ok_or_else(|| format!("emergency {key} is unknown"))?;
                *held.attempts.entry(*position).or_default() += 1;
                held.retry_at = *retry_at;
            }
            Event::EmergencyDone { key, .. } => {
                let held =
                    self.emergencies.get_mut(&key.to_string()).ok_or_else(|| format!("emergency {key} is unknown"))?;
                held.done = true;
                let mut done: Vec<(Ts, String)> =
                    self.emergencies.values().filter(|e| e.done).map(|e| (e.started_at, e.key.to_string())).collect();
                done.sort();
                for (_, id) in done.iter().take(done.len().saturating_sub(ENDED_EMERGENCIES_KEPT)) {
                    self.emergencies.remove(id);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl CoordinatorView {
    fn fold(&mut self, event: &Event, at: Ts) {
        match event {
            Event::StateChanged { to, halt, .. } => {
                self.state = *to;
                // A halt while HALTED counts too: it has an id of its own, so that an older reset cannot match it.
                self.halts += u64::from(halt.is_some());
                self.halt = if *to == CoordinatorState::Halted { halt.clone() } else { None };
            }
            Event::PauseReasonAdded { reason } => {
                self.pause_reasons.insert(reason.clone());
            }
            Event::PauseReasonRemoved { reason } => {
                self.pause_reasons.remove(reason);
            }
            Event::DegradationChanged { capability, to, .. } => {
                self.degradation.insert(*capability, *to);
            }
            Event::Quarantined { key, until, reason, count } => {
                let entry = QuarantineEntry { until: *until, reason: reason.clone(), count: *count };
                self.quarantine.insert(*key, entry);
            }
            Event::QuarantineEnded { key } => {
                self.quarantine.remove(key);
            }
            Event::TaskSwitched { task, enabled } => {
                self.task_switches.insert(*task, *enabled);
            }
            Event::RunClaimed { marker } => {
                if let SlotId::Grid(slot) = marker.slot {
                    let last = self.last_slot.entry(marker.key).or_insert(slot);
                    *last = slot.max(*last);
                }
                self.in_flight.insert(marker.key, marker.clone());
            }
            Event::RunFinished { key, outcome, consumed, .. } => {
                self.in_flight.remove(key);
                if *outcome == RunOutcome::Succeeded {
                    self.consumed.insert(*key, consumed.clone());
                    self.last_success.insert(*key, at);
                }
            }
            Event::InFlightRecovered { runs } => {
                for run in runs {
                    self.in_flight.remove(&run.marker.key);
                }
            }
            _ => {}
        }
    }
}

impl RiskState {
    fn fold(&mut self, event: &Event) {
        match event {
            Event::PeriodRolled { day, week, equity } => {
                if *day != self.day {
                    self.day = *day;
                    self.day_start_equity = *equity;
                }
                if *week != self.week {
                    self.week = *week;
                    self.week_start_equity = *equity;
                }
                self.peak = self.peak.max(*equity);
            }
            Event::PeakChanged { peak } => self.peak = *peak,
            Event::BreakerTripped { latch, .. } => {
                *self.trips.entry(latch.breaker).or_default() += 1;
                self.latched.insert(latch.breaker, latch.clone());
            }
            Event::BreakerRearmed { breaker, .. } => {
                self.latched.remove(breaker);
            }
            Event::CooldownSet { until, cause } if *until > self.cooldown_until => {
                self.cooldown_until = *until;
                self.cooldown_cause = Some(*cause);
            }
            Event::StreakChanged { losses, wins } => {
                self.losses = *losses;
                self.wins = *wins;
            }
            Event::OrderErrorsChanged { consecutive } => self.order_errors = *consecutive,
            _ => {}
        }
    }
}

/// The kind of a failure is a short word; whole sentences are counted together, so that their number stays bounded.
fn kind_of(why: &str) -> &str {
    let is_word = why.len() <= 32 && why.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_word { why } else { "other" }
}

impl ModelTally {
    fn add(&mut self, call: &ModelCall) {
        if call.unasked {
            // No call was made: it took no time of a model and cost nothing.
            self.unasked += 1;
            return;
        }
        self.calls += 1;
        self.cost_usd += call.cost_usd;
        self.latency_ms_sum = self.latency_ms_sum.saturating_add(call.latency_ms);
        if self.latencies_ms.len() >= LATENCIES_KEPT {
            self.latencies_ms.remove(0);
        }
        self.latencies_ms.push(call.latency_ms);
    }
}

impl Leaderboard {
    /// Counts ballots; the valid votes of them.
    fn count(&mut self, ballots: &[NamedBallot]) -> Vec<(String, Action, Score)> {
        let mut votes = Vec::new();
        for named in ballots {
            let tally = match self.tallies.get_mut(&*named.voter) {
                Some(tally) => tally,
                None => self.tallies.entry(named.voter.to_string()).or_default(),
            };
            match &named.ballot {
                Ballot::Vote(vote) => {
                    tally.votes += 1;
                    *tally.by_action.entry(vote.action).or_default() += 1;
                    tally.confidence_sum += i64::from(vote.confidence.0);
                    votes.push((named.voter.to_string(), vote.action, vote.confidence));
                }
                Ballot::Abstain(_) => tally.abstentions += 1,
                Ballot::Failed(why) => {
                    tally.failures += 1;
                    *tally.failures_by_kind.entry(kind_of(why).to_owned()).or_default() += 1;
                }
            }
            if let Some(call) = &named.model {
                tally.models.get_or_insert_default().add(call);
            }
        }
        votes
    }

    fn cast(&mut self, decision: DecisionId, signal: &Signal, at: Ts) {
        let votes = self.count(&signal.ballots);
        self.pending.retain(|_, pending| at.since_ms(pending.at) < VOTE_MEMORY_MS);
        if !votes.is_empty() {
            let pending = PendingVotes { symbol: signal.head.symbol, at, price: signal.price, votes };
            self.pending.insert(decision, pending);
        }
    }

    fn mark(&mut self, decision: DecisionId, marks: &[VoteMark]) {
        self.pending.remove(&decision);
        for mark in marks {
            let tally = self.tallies.entry(mark.voter.clone()).or_default();
            let Some(correct) = mark.correct else {
                tally.unmarked += 1;
                continue;
            };
            tally.marked += 1;
            tally.correct += u64::from(correct);
            if let Some(bp) = mark.signed_return_bp {
                tally.return_bp_sum += bp;
                tally.return_count += 1;
            }
            let decile = (mark.confidence.0.clamp(0, 9_999) / 1_000) as usize;
            tally.calibration[decile].0 += 1;
            tally.calibration[decile].1 += u64::from(correct);
        }
    }
}
