//! One timer of an actor that is set again and again: no allocation and no cancelled future for each new instant.
//!
//! `run_later` makes a future per call; an actor that is woken every candle and moves its alarm with every answer pays
//! for two of them per candle. This one is polled with its actor, after the mailbox, and rings on the actor itself.

use std::{
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use actix::{Actor, ActorFuture, AsyncContext, Context};
use tokio::time::{Instant, Sleep, sleep_until};

use super::clock::LogicalClock;
use crate::model::Ts;

/// The timer; its actor owns it and gives it out by [`Alarmed::alarm`].
#[derive(Default)]
pub struct Alarm {
    at: Option<Ts>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Moves the alarm to the logical instant `at`, or takes it back. An instant already past rings at once.
    pub fn set(&mut self, at: Option<Ts>, clock: &LogicalClock) {
        if self.at == at {
            return;
        }
        self.at = at;
        let Some(at) = at else { return };
        let due = Instant::now() + clock.until(at);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(due),
            None => self.sleep = Some(Box::pin(sleep_until(due))),
        }
    }

    /// True once for each instant that has come.
    fn rings(&mut self, task: &mut TaskContext<'_>) -> bool {
        let Some(sleep) = self.sleep.as_mut().filter(|_| self.at.is_some()) else { return false };
        let rings = sleep.as_mut().poll(task).is_ready();
        if rings {
            self.at = None;
        }
        rings
    }
}

/// An actor with an alarm. Call [`install`] once in `started`.
pub trait Alarmed: Actor<Context = Context<Self>> {
    /// Its alarm.
    fn alarm(&mut self) -> &mut Alarm;
    /// The instant has come; the alarm is not set any more.
    fn rung(&mut self, ctx: &mut Context<Self>);
}

/// Lets the alarm of an actor ring from now on.
pub fn install<A: Alarmed>(ctx: &mut Context<A>) {
    ctx.spawn(Ringing);
}

struct Ringing;

impl<A: Alarmed> ActorFuture<A> for Ringing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, ctx: &mut Context<A>, task: &mut TaskContext<'_>) -> Poll<()> {
        while actor.alarm().rings(task) {
            actor.rung(ctx);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;
    use crate::{model::Clock, runtime::placement::run_virtual};

    struct Waker {
        alarm: Alarm,
        clock: LogicalClock,
        rung: Rc<RefCell<Vec<i64>>>,
        plan: Vec<i64>,
    }

    impl Actor for Waker {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Context<Self>) {
            install(ctx);
            // Later, then earlier, then back: only the last one counts.
            for at in [50, 3, 20] {
                self.alarm.set(Some(Ts(at)), &self.clock);
            }
        }
    }

    impl Alarmed for Waker {
        fn alarm(&mut self) -> &mut Alarm {
            &mut self.alarm
        }
        fn rung(&mut self, _: &mut Context<Self>) {
            self.rung.borrow_mut().push(self.clock.now().0);
            let next = self.plan.pop();
            self.alarm.set(next.map(Ts), &self.clock);
        }
    }

    #[test]
    fn an_alarm_rings_once_at_each_instant_it_was_last_moved_to() {
        let rung = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&rung);
        let done = run_virtual(Ts(0), |place| async move {
            let (alarm, clock) = (Alarm::default(), place.clock.clone());
            let _waker = Waker { alarm, clock, rung: seen, plan: vec![60_000, 10, 25] }.start();
            place.clock.sleep_until(Ts(120_000)).await;
        });
        done.unwrap();
        // 10 was past when it was set at 25: it rings at once.
        assert_eq!(*rung.borrow(), [20, 25, 25, 60_000]);
    }
}
