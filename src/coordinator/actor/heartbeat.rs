//! The beat of the coordinator behind the service watchdog: asks every actor for a ping, and tells whoever watches
//! whether everybody answered and time advanced. The rule is [`super::watchdog`]'s.

use std::{collections::BTreeSet, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::time::Instant;

use super::{Coordinator, watchdog::Watchdog};
use crate::{
    model::Clock,
    runtime::pulse::{Ping, Pulse},
};

/// What one beat found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Who has been silent for too long; empty = everything is alive.
    pub silent: Vec<&'static str>,
    /// One line for a person.
    pub status: String,
}

/// Told of every beat.
pub type OnBeat = Box<dyn FnMut(&Beat) + Send>;

/// Beat from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Watch {
    /// Who must answer.
    pub pulses: Vec<Pulse>,
    /// Within which real time.
    pub horizon: Duration,
    /// Real time between two beats.
    pub every: Duration,
    /// Told of every beat.
    pub on_beat: OnBeat,
}

/// The coordinator's part.
pub(super) struct Heartbeat {
    pulses: Vec<Pulse>,
    watchdog: Watchdog,
    began: Instant,
    /// Asked and not answered yet: nobody is asked twice.
    asked: BTreeSet<&'static str>,
    silent: Vec<&'static str>,
    on_beat: OnBeat,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Handler<Watch> for Coordinator {
    type Result = ();

    fn handle(&mut self, watch: Watch, ctx: &mut Context<Self>) {
        self.heartbeat = Some(Heartbeat {
            pulses: watch.pulses,
            watchdog: Watchdog::new(millis(watch.horizon), self.clock.now(), 0),
            began: Instant::now(),
            asked: BTreeSet::new(),
            silent: Vec::new(),
            on_beat: watch.on_beat,
        });
        self.beat(ctx);
        ctx.run_interval(watch.every, |actor, ctx| actor.beat(ctx));
    }
}

impl Coordinator {
    fn beat(&mut self, ctx: &mut Context<Self>) {
        let (now, status) = (self.clock.now(), self.one_line());
        let Some(heart) = self.heartbeat.as_mut() else { return };
        let at = millis(heart.began.elapsed());
        heart.watchdog.time(now, at);
        let mut questions = Vec::new();
        for pulse in &heart.pulses {
            if !pulse.ping.connected() {
                // Given up: its owner has escalated that, and a beat less would end everybody else as well.
                heart.watchdog.forget(pulse.actor);
                continue;
            }
            heart.watchdog.expect(pulse.actor, at);
            if heart.asked.insert(pulse.actor) {
                questions.push((pulse.actor, pulse.ping.send(Ping)));
            }
        }
        let silent = heart.watchdog.silent(at);
        if silent != heart.silent {
            if silent.is_empty() {
                tracing::info!("everybody answers again");
            } else {
                tracing::error!("no answer for {} ms: {}", heart.watchdog.horizon_ms(), silent.join(", "));
            }
            heart.silent.clone_from(&silent);
        }
        let status = if silent.is_empty() { status } else { format!("{status}; silent: {}", silent.join(", ")) };
        (heart.on_beat)(&Beat { silent, status });
        for (who, question) in questions {
            ctx.spawn(question.into_actor(self).map(move |answer, actor, _| {
                if let Some(heart) = actor.heartbeat.as_mut() {
                    heart.asked.remove(who);
                    if answer.is_ok() {
                        // A panic loses the question; the next life is asked at the next beat.
                        heart.watchdog.heard(who, millis(heart.began.elapsed()));
                    }
                }
            }));
        }
    }

    /// State, reasons and level in one line.
    pub(super) fn one_line(&self) -> String {
        let state = self.view.read();
        let reasons: Vec<&str> = state.coordinator.pause_reasons.iter().map(String::as_str).collect();
        let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        let name = state.coordinator.state.name();
        format!(
            "{name}{why}, level {}, {} positions, program time {}",
            self.level().name(),
            state.positions.len(),
            self.clock.now()
        )
    }
}
