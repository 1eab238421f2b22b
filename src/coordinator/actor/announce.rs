//! Tells the world what became durable: topics on the bus, lines in the log. Never decides anything.

use std::{sync::Arc, time::Duration};

use actix::{Actor, Addr, AsyncContext, Context, Handler};

use super::describe::{Loudness, describe, topic};
use crate::{
    bus::{AlertKind, Payload, RiskAlert, Severity, actor::Publisher},
    model::{Event, Record},
    runtime::{
        failpoint,
        post::post,
        webhook::{Line, Webhook},
    },
    store::{ANNOUNCED, AuxRow, AuxWrite, META, StoreActor, actor::CommittedBatch},
};

/// Who says what a process before this one could not say any more.
const AGAIN: &str = "boot";

/// Where the announcer notes how far it has got.
pub struct Progress {
    /// The store.
    pub store: Addr<StoreActor>,
    /// At most this often.
    pub every: Duration,
}

/// Where lines are posted, and the least loud of them.
#[derive(Clone, Debug)]
pub struct Notifier {
    /// The address.
    pub hook: Webhook,
    /// The least that is posted.
    pub least: Loudness,
}

/// The announcer actor.
pub struct Announcer {
    bus: Publisher,
    notifier: Option<Notifier>,
    progress: Option<Progress>,
    /// Number of the newest announced record, when it is not noted yet.
    newest: Option<u64>,
}

impl Announcer {
    /// Starts it, saying again what was perhaps never said. Without `progress` nothing outlives the process and nobody
    /// reads a log (backtests, whose report says what happened).
    pub fn start_with(
        bus: Publisher,
        progress: Option<Progress>,
        notifier: Option<Notifier>,
        again: &[Record],
    ) -> Addr<Announcer> {
        let announcer = Announcer { bus, notifier, progress, newest: None };
        for record in again {
            announcer.announce(record, Some(AGAIN));
        }
        announcer.start()
    }

    /// Noted beside the truth, once in a while: what is said twice is marked, what is never said is lost.
    fn note(&mut self, seq: u64, ctx: &mut Context<Self>) {
        let Some(progress) = &self.progress else { return };
        if self.newest.replace(seq).is_some() {
            return;
        }
        ctx.run_later(progress.every, |actor, _| {
            if let (Some(progress), Some(newest)) = (&actor.progress, actor.newest.take()) {
                let row = AuxRow::put(META, ANNOUNCED.to_owned(), newest);
                post("store", &progress.store, AuxWrite(vec![row]));
            }
        });
    }

    /// `again` = who repeats it; subscribers of this process hear it once.
    fn announce(&self, record: &Record, again: Option<&'static str>) {
        failpoint::effect("announce", record.event.kind());
        if self.progress.is_some()
            && let Some((loudness, line)) = describe(record)
        {
            let seq = record.seq;
            let line = if again.is_some() { format!("(again) {line}") } else { line };
            match loudness {
                Loudness::Info => tracing::info!(at = %record.ts, seq, "{line}"),
                Loudness::Warning => tracing::warn!(at = %record.ts, seq, "{line}"),
                Loudness::Error => tracing::error!(at = %record.ts, seq, "{line}"),
            }
            if let Some(notifier) = self.notifier.as_ref().filter(|notifier| loudness >= notifier.least) {
                let (what, level) = (topic(record).to_owned(), loudness.name());
                notifier.hook.offer(Line { what, level, at: record.ts, seq, text: line });
            }
        }
        match &record.event {
            Event::SignalReceived { signal, .. } => {
                let signal = Arc::new((**signal).clone());
                self.bus.publish(again.unwrap_or("coordinator"), Some(signal.head.symbol), Payload::Signal(signal));
            }
            Event::BreakerTripped { latch, .. } => {
                let alert = RiskAlert {
                    kind: AlertKind::CircuitBreaker,
                    breach: latch.breaker.name().into(),
                    severity: Severity::Critical,
                    measured: latch.measured.to_string(),
                    limit: latch.limit.to_string(),
                    period: Some(latch.period.clone()),
                    symbol: None,
                    message: format!("{} reached its limit", latch.breaker),
                };
                self.bus.publish(again.unwrap_or("risk"), None, Payload::RiskAlert(Arc::new(alert)));
            }
            _ => {}
        }
        let payload = Payload::of_record(Arc::new(record.clone()));
        let symbol = payload.symbol();
        self.bus.publish(again.unwrap_or("store"), symbol, payload);
    }
}

impl Actor for Announcer {
    type Context = Context<Self>;
}

impl Handler<CommittedBatch> for Announcer {
    type Result = ();
    fn handle(&mut self, CommittedBatch(records): CommittedBatch, ctx: &mut Context<Self>) {
        for record in records.iter() {
            self.announce(record, None);
        }
        if let Some(newest) = records.last() {
            self.note(newest.seq, ctx);
        }
    }
}
