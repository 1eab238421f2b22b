//! How long the program went on after an instant, told by its records alone: only time in which it could have acted counts
//! against a trade that waits.

use std::collections::BTreeMap;

use crate::model::{Capability, CoordinatorState, DegradationLevel, Event, Record, Ts, time::MINUTE_MS};

/// Of a silence between two records so much counts as running: a process that stood still, or whose clock jumped, did
/// nothing in the rest of it.
const SILENCE_MS: i64 = 5 * MINUTE_MS;

/// Stretches of time without overlap, in order.
type Stretches = Vec<(Ts, Ts)>;

/// When the program ran, and when it also let legs and new attempts go.
#[derive(Clone, Debug, Default)]
pub(super) struct Running {
    now: Option<Ts>,
    /// Between the end of a process and the next boot, and the rest of long silences.
    down: Stretches,
    /// As `down`, and paused, halted or degraded.
    shut: Stretches,
    state: CoordinatorState,
    levels: BTreeMap<Capability, DegradationLevel>,
}

impl Running {
    pub(super) fn observe(&mut self, record: &Record) {
        let before = self.now.unwrap_or(record.ts);
        let now = before.max(record.ts);
        let ran_until = if matches!(record.event, Event::Booted { .. }) { before } else { before.plus_ms(SILENCE_MS) };
        add(&mut self.down, ran_until.min(now), now);
        let is_open =
            self.state == CoordinatorState::Running && self.levels.values().all(|at| *at == DegradationLevel::Normal);
        add(&mut self.shut, if is_open { ran_until.min(now) } else { before }, now);
        match &record.event {
            Event::StateChanged { to, .. } => self.state = *to,
            Event::DegradationChanged { capability, to, .. } => _ = self.levels.insert(*capability, *to),
            _ => {}
        }
        self.now = Some(now);
    }

    /// How long it ran since `at`, milliseconds.
    pub(super) fn ran_since(&self, at: Ts) -> i64 {
        self.without(&self.down, at)
    }

    /// How long it ran since `at` while nothing kept legs and new attempts waiting, milliseconds.
    pub(super) fn open_since(&self, at: Ts) -> i64 {
        self.without(&self.shut, at)
    }

    fn without(&self, stretches: &[(Ts, Ts)], at: Ts) -> i64 {
        let Some(now) = self.now else { return 0 };
        let within = stretches.iter().rev().take_while(|(_, to)| *to > at);
        let off: i64 = within.map(|(from, to)| to.since_ms((*from).max(at))).sum();
        now.since_ms(at).max(0) - off
    }
}

/// Adds a stretch; one that begins where the last one ends makes that one longer.
fn add(stretches: &mut Stretches, from: Ts, to: Ts) {
    if to <= from {
        return;
    }
    match stretches.last_mut() {
        Some(last) if last.1 == from => last.1 = to,
        _ => stretches.push((from, to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Ts {
        Ts(minutes * MINUTE_MS)
    }

    fn record(minutes: i64, event: Event) -> Record {
        Record {
            v: 1,
            seq: 1,
            epoch: 1,
            ts: at(minutes),
            n: None,
            actor: "test".into(),
            corr: String::new(),
            cause: String::new(),
            event,
        }
    }

    fn note() -> Event {
        Event::Noted { what: "x".into(), facts: BTreeMap::new() }
    }

    #[test]
    fn downtime_silence_and_a_closed_gate_do_not_count() {
        let mut running = Running::default();
        assert_eq!(running.ran_since(at(0)), 0);
        let to = |from, to| Event::StateChanged { from, to, reason: String::new(), halt: None };
        let (run, paused) = (CoordinatorState::Running, CoordinatorState::Paused);
        let booted = || Event::Booted { epoch: 2, version: String::new(), config_hash: String::new() };
        let level =
            |to| Event::DegradationChanged { capability: Capability::Venue, from: DegradationLevel::Normal, to };
        let story = [
            (0, note()),
            (4, note()),
            // Nobody was there for 96 minutes; then a silence of 20, of which 5 count.
            (100, booted()),
            (120, note()),
            (121, to(run, paused)),
            (125, note()),
            (126, to(paused, run)),
            (129, level(DegradationLevel::Limited)),
            (131, level(DegradationLevel::Normal)),
            (134, note()),
        ];
        story.into_iter().for_each(|(minutes, event)| running.observe(&record(minutes, event)));
        let ran = |minutes| running.ran_since(at(minutes)) / MINUTE_MS;
        let open = |minutes| running.open_since(at(minutes)) / MINUTE_MS;
        assert_eq!((ran(0), ran(4), ran(50), ran(100), ran(110), ran(130)), (23, 19, 19, 19, 14, 4));
        assert_eq!((open(0), open(100), open(121), open(127), open(130), open(200)), (16, 12, 6, 5, 3, 0));
    }
}
