//! Where the actors run and whose time they see. Placement is a parameter: the actors are the same in both.
//!
//! Live, the store has an arbiter of its own and everything else shares one. In simulation and backtest everything is
//! on one arbiter under Tokio's paused clock, which jumps to the next timer as soon as nothing is left to do.

use std::{future::Future, io};

use actix::{Actor, Addr, Arbiter, ArbiterHandle, Context, System};
use tokio::sync::oneshot;

use super::{
    clock::LogicalClock,
    supervisor::{Incident, run_fatal},
};
use crate::model::Ts;

/// What a program is given to place its actors.
#[derive(Clone, Debug)]
pub struct Place {
    /// Logical time.
    pub clock: LogicalClock,
    /// The store's own arbiter in live mode; absent under virtual time, which other threads do not share.
    store: Option<ArbiterHandle>,
}

impl Place {
    /// Starts the store's actor where it belongs, ended by its first panic; see [`run_fatal`].
    ///
    /// # Errors
    /// The store's arbiter ended before the actor was made, which means that `make` panicked.
    pub async fn start_store<A, M, P>(&self, make: M, on_panic: P) -> io::Result<Addr<A>>
    where
        A: Actor<Context = Context<A>>,
        M: FnOnce() -> A + Send + 'static,
        P: FnOnce(&Incident) + Send + 'static,
    {
        let Some(arbiter) = &self.store else { return Ok(run_fatal("store", make(), on_panic)) };
        let (started, address) = oneshot::channel();
        arbiter.spawn_fn(move || {
            // The receiver is gone only when the caller gave up waiting; then the address is dropped and the actor ends.
            let _ = started.send(run_fatal("store", make(), on_panic));
        });
        address.await.map_err(|_| io::Error::other("the store's thread ended before the store was started"))
    }

    /// True when time is virtual and everything is on one thread.
    pub fn is_virtual(&self) -> bool {
        self.store.is_none()
    }
}

/// Runs `program` under virtual time that starts at `start`, on this thread, and returns what it returns. Actors that
/// are left end with it. There is no I/O driver: sockets and signals do not exist here, and parking costs no system
/// call.
///
/// # Errors
/// The runtime could not be built.
pub fn run_virtual<F, P>(start: Ts, program: P) -> io::Result<F::Output>
where
    F: Future,
    P: FnOnce(Place) -> F,
{
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let system = System::with_tokio_rt(|| tokio);
    Ok(system.block_on(async { program(Place { clock: LogicalClock::start(start, 1), store: None }).await }))
}

/// Runs `program` in real time: logical time starts at `start` and runs `speed` times as fast. The store's arbiter is
/// stopped and joined when the program returns.
///
/// # Errors
/// The runtime or the store's thread could not be made, or the latter panicked outside its actor.
pub fn run_live<F, P>(start: Ts, speed: u32, program: P) -> io::Result<F::Output>
where
    F: Future,
    P: FnOnce(Place) -> F,
{
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let system = System::with_tokio_rt(|| tokio);
    let store = Arbiter::try_new()?;
    let place_store = Some(store.handle());
    let result = system
        .block_on(async { program(Place { clock: LogicalClock::start(start, speed), store: place_store }).await });
    store.stop();
    store.join().map_err(|_| io::Error::other("the store's thread panicked"))?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use actix::{Handler, Message};

    use super::*;
    use crate::model::{Clock, time::DAY_MS};

    struct Thread;
    #[derive(Message)]
    #[rtype(result = "String")]
    struct Which;
    impl Actor for Thread {
        type Context = Context<Self>;
    }
    impl Handler<Which> for Thread {
        type Result = String;
        fn handle(&mut self, _: Which, _: &mut Context<Self>) -> String {
            format!("{:?}", std::thread::current().id())
        }
    }

    async fn thread_of_store(place: Place) -> String {
        let store = place.start_store(|| Thread, |_| ()).await.unwrap();
        store.send(Which).await.unwrap()
    }

    #[test]
    fn a_month_of_virtual_time_passes_and_ends_exactly() {
        let start = Ts(1_700_000_000_000);
        let end = run_virtual(start, |place| async move {
            assert!(place.is_virtual());
            for day in 1..=30 {
                place.clock.sleep_until(start.plus_ms(day * DAY_MS)).await;
            }
            place.clock.now()
        });
        assert_eq!(end.unwrap(), start.plus_ms(30 * DAY_MS));
    }

    #[test]
    fn the_store_has_its_own_thread_live_and_shares_the_only_one_in_virtual_time() {
        let here = format!("{:?}", std::thread::current().id());
        assert_eq!(run_virtual(Ts(0), thread_of_store).unwrap(), here);
        assert_ne!(run_live(Ts(0), 1, thread_of_store).unwrap(), here);
    }
}
