//! Tells the world what became durable: topics on the bus, lines in the log. Never decides anything.

use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler};

use super::describe::{Loudness, describe};
use crate::{
    bus::{AlertKind, Payload, RiskAlert, Severity, actor::Publisher},
    model::{Event, Record},
    runtime::failpoint,
    store::actor::CommittedBatch,
};

/// The announcer actor.
pub struct Announcer {
    bus: Publisher,
    log: bool,
}

impl Announcer {
    /// Starts it; `log` is off in backtests, whose report says what happened.
    pub fn start_with(bus: Publisher, log: bool) -> Addr<Announcer> {
        Announcer { bus, log }.start()
    }

    fn announce(&self, record: &Record) {
        failpoint::effect("announce", record.event.kind());
        if self.log
            && let Some((loudness, line)) = describe(record)
        {
            let seq = record.seq;
            match loudness {
                Loudness::Info => tracing::info!(at = %record.ts, seq, "{line}"),
                Loudness::Warning => tracing::warn!(at = %record.ts, seq, "{line}"),
                Loudness::Error => tracing::error!(at = %record.ts, seq, "{line}"),
            }
        }
        match &record.event {
            Event::SignalReceived { signal, .. } => {
                let signal = Arc::new((**signal).clone());
                self.bus.publish("coordinator", Some(signal.head.symbol), Payload::Signal(signal));
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
                self.bus.publish("risk", None, Payload::RiskAlert(Arc::new(alert)));
            }
            _ => {}
        }
        let payload = Payload::of_record(Arc::new(record.clone()));
        let symbol = payload.symbol();
        self.bus.publish("store", symbol, payload);
    }
}

impl Actor for Announcer {
    type Context = Context<Self>;
}

impl Handler<CommittedBatch> for Announcer {
    type Result = ();
    fn handle(&mut self, CommittedBatch(records): CommittedBatch, _: &mut Context<Self>) {
        for record in records.iter() {
            self.announce(record);
        }
    }
}
