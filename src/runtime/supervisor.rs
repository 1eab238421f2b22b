//! The project's own supervisor: an actor that panicked goes on with a fresh state, its address and its backlog.
//!
//! Actix restarts an actor only when it stops itself; a panic in a handler, an interval or an actor-bound future ends
//! it for good (`tests/supervisor.rs` shows it). Here the actor is polled under a guard. After a panic its futures and
//! timers are dropped, the mailbox is kept, and after a back-off the first thing the new life does is to replace the
//! state by a fresh one and call [`Worker::begin`], before any message of the backlog.
//!
//! It never hides a panic: each one is counted and told to the owner, and too many of them are escalated.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Supervised, WrapFuture, dev::ContextFut,
};
use futures_util::FutureExt;
use tokio::time::{Duration, Instant};

use super::chaos;
use crate::settings::sections::SupervisorSettings;

/// An actor that can be restarted in place. Implement `actix::Supervised` beside it with an empty body.
///
/// `Actor::started` must stay unused: in a second life it would still see the state that panicked.
pub trait Worker: Actor<Context = Context<Self>> + Supervised {
    /// First thing of every life, on the fresh state and before any message: arm timers and intervals here.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        let _ = ctx;
    }
}

/// How often and how fast an actor is restarted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Restarts allowed within the window; one more gives up.
    pub max_restarts: u32,
    /// Length of the window.
    pub window: Duration,
    /// Wait before the first restart of a window; doubled for each further one.
    pub backoff: Duration,
    /// Longest wait.
    pub backoff_max: Duration,
}

impl Policy {
    /// The policy `[supervisor]` asks for.
    pub fn from_settings(settings: &SupervisorSettings) -> Policy {
        Policy {
            max_restarts: settings.max_restarts,
            window: Duration::from_secs(u64::from(settings.window_seconds)),
            backoff: Duration::from_millis(u64::from(settings.backoff_ms)),
            backoff_max: Duration::from_millis(u64::from(settings.backoff_max_ms)),
        }
    }

    /// Wait before the restart that follows `earlier` ones of the same window.
    pub fn wait(&self, earlier: u32) -> Duration {
        self.backoff.saturating_mul(1u32.checked_shl(earlier).unwrap_or(u32::MAX)).min(self.backoff_max)
    }
}

impl Default for Policy {
    /// resilience.md §4: 100 ms doubled to 5 s; more than 5 restarts in 60 s give up.
    fn default() -> Policy {
        Policy {
            max_restarts: 5,
            window: Duration::from_secs(60),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// What follows a panic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The actor goes on with a fresh state after this wait.
    RestartIn(Duration),
    /// It does not: its address is dead, its owner must escalate.
    GaveUp,
}

/// One panic, told to the owner of the actor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incident {
    /// Name of the actor.
    pub actor: &'static str,
    /// Text of the panic.
    pub message: String,
    /// Panics of this actor so far, this one included.
    pub panics: u64,
    /// What follows.
    pub next: Next,
}

/// Counters of one actor name, over all its lives in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lives {
    /// Panics caught.
    pub panics: u64,
    /// Restarts made.
    pub restarts: u64,
    /// Times the supervisor gave up.
    pub gave_up: u64,
}

static LIVES: Mutex<BTreeMap<&'static str, Lives>> = Mutex::new(BTreeMap::new());

fn table() -> MutexGuard<'static, BTreeMap<&'static str, Lives>> {
    // Counters are plain numbers; a panic elsewhere cannot have broken them.
    LIVES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counters of every actor that ever panicked, by name.
pub fn lives() -> BTreeMap<&'static str, Lives> {
    table().clone()
}

/// Starts an actor under supervision on the current arbiter. `factory` makes the state of every life; `on_incident` is
/// told of every panic, and by [`Next::GaveUp`] that the actor is gone. An actor that stops itself is not restarted.
pub fn supervise<A, F, I>(name: &'static str, policy: Policy, mut factory: F, on_incident: I) -> Addr<A>
where
    A: Worker,
    F: FnMut() -> A + 'static,
    I: FnMut(&Incident) + 'static,
{
    let mut ctx = Context::new();
    let addr = ctx.address();
    let first = factory();
    ctx.wait(async {}.into_actor(&first).map(move |(), actor: &mut A, ctx| {
        chaos::starting(name);
        actor.begin(ctx);
    }));
    actix_rt::spawn(guard(name, policy, ctx.into_future(first), factory, on_incident));
    addr
}

async fn guard<A, F, I>(
    name: &'static str,
    policy: Policy,
    mut life: ContextFut<A, Context<A>>,
    mut factory: F,
    mut on_incident: I,
) where
    A: Worker,
    F: FnMut() -> A,
    I: FnMut(&Incident),
{
    let mut restarts: VecDeque<Instant> = VecDeque::new();
    loop {
        let Err(panic) = AssertUnwindSafe(&mut life).catch_unwind().await else { return };
        let mut panic = text_of(&*panic);
        loop {
            let now = Instant::now();
            while restarts.front().is_some_and(|at| now.duration_since(*at) > policy.window) {
                restarts.pop_front();
            }
            let earlier = u32::try_from(restarts.len()).unwrap_or(u32::MAX);
            let next =
                if earlier >= policy.max_restarts { Next::GaveUp } else { Next::RestartIn(policy.wait(earlier)) };
            let panics = count(name, next);
            on_incident(&Incident { actor: name, message: panic, panics, next });
            let Next::RestartIn(wait) = next else {
                abandon(&mut life);
                return;
            };
            restarts.push_back(now);
            // At once, so that work bound to the old life is cancelled now and not after the wait.
            if !cancel_everything(&mut life) {
                abandon(&mut life);
                return;
            }
            tokio::time::sleep(wait).await;
            match catch_unwind(AssertUnwindSafe(&mut factory)) {
                Ok(fresh) => {
                    let replace = async {}.into_actor(&fresh).map(move |(), actor: &mut A, ctx| {
                        *actor = fresh;
                        chaos::starting(name);
                        actor.begin(ctx);
                    });
                    life.ctx().wait(replace);
                    break;
                }
                Err(again) => panic = text_of(&*again),
            }
        }
    }
}

/// Drops all futures and timers of the actor and keeps its mailbox; false when nobody holds its address any more.
fn cancel_everything<A: Worker>(life: &mut ContextFut<A, Context<A>>) -> bool {
    // Dropping a future may panic too. Each try empties one more list of the context, and there are four.
    for _ in 0..4 {
        if let Ok(connected) = catch_unwind(AssertUnwindSafe(|| life.restart())) {
            return connected;
        }
    }
    true
}

/// Marks the context as stopped, so that dropping it does not run `stopping` and `stopped` on a broken state.
fn abandon<A: Actor<Context = Context<A>>>(life: &mut ContextFut<A, Context<A>>) {
    life.ctx().terminate();
}

fn count(name: &'static str, next: Next) -> u64 {
    let mut table = table();
    let lives = table.entry(name).or_default();
    lives.panics += 1;
    match next {
        Next::RestartIn(_) => lives.restarts += 1,
        Next::GaveUp => lives.gave_up += 1,
    }
    lives.panics
}

pub(super) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic without a text".to_owned())
}

/// Starts an actor that is not restarted in place (Coordinator, Store, Execution, Bus). `on_panic` is told of its
/// panic; in live mode it ends the process with [`super::failure::Exit::Internal`], and the next start recovers.
pub fn run_fatal<A, P>(name: &'static str, actor: A, on_panic: P) -> Addr<A>
where
    A: Actor<Context = Context<A>>,
    P: FnOnce(&Incident) + 'static,
{
    let ctx = Context::new();
    let addr = ctx.address();
    let mut life = ctx.into_future(actor);
    actix_rt::spawn(async move {
        let lived = AssertUnwindSafe(async {
            chaos::starting(name);
            (&mut life).await;
        });
        let Err(panic) = lived.catch_unwind().await else { return };
        let panics = count(name, Next::GaveUp);
        on_panic(&Incident { actor: name, message: text_of(&*panic), panics, next: Next::GaveUp });
        abandon(&mut life);
    });
    addr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_its_limit() {
        let policy = Policy::default();
        let waits: Vec<u128> = (0..8).map(|earlier| policy.wait(earlier).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(policy.wait(u32::MAX), Duration::from_secs(5));
    }
}
