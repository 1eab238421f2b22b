//! Faults on demand (feature `failpoints`): a panic or a standstill in an actor, at a place. Without the feature there is
//! nothing here but an empty function.
//!
//! A test in the same process sends `Strike` or calls `arm_start`. The real binary reads `TRIPLEGAIN_CHAOS`, a list
//! of `actor:place:deed[:n]` separated by commas: place `handler`, `future`, `interval` or `start`, deed `panic` or
//! `pause`; n = milliseconds after the start of the actors, or, for `start`, how many starts are struck (1).

/// The actor's life begins; a fault that was ordered for it happens here.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn starting(_actor: &'static str) {}

#[cfg(feature = "failpoints")]
pub use faults::*;

#[cfg(feature = "failpoints")]
mod faults {
    use std::{cell::RefCell, collections::BTreeMap, sync::Mutex, time::Duration};

    use actix::{Actor, ActorFutureExt, AsyncContext, Context, Message, WrapFuture};

    use crate::runtime::{post::post, pulse::Pulse};

    /// Where in an actor.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Spot {
        /// In the handler of a message.
        Handler,
        /// In a future bound to the actor.
        Future,
        /// In an interval of the actor.
        Interval,
    }

    /// What happens there.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Deed {
        /// A panic.
        Panic,
        /// The thread stands still for good, and every actor on it.
        Pause,
    }

    /// Strikes an actor.
    #[derive(Message, Clone, Copy, Debug)]
    #[rtype(result = "()")]
    pub struct Strike {
        /// Where.
        pub spot: Spot,
        /// What.
        pub deed: Deed,
    }

    fn perform(deed: Deed) {
        match deed {
            Deed::Panic => panic!("chaos"),
            Deed::Pause => loop {
                std::thread::park();
            },
        }
    }

    /// Carries a strike out on the actor it was sent to.
    pub fn strike<A: Actor<Context = Context<A>>>(actor: &A, strike: Strike, ctx: &mut Context<A>) {
        let deed = strike.deed;
        match strike.spot {
            Spot::Handler => perform(deed),
            Spot::Future => {
                let soon = async { tokio::time::sleep(Duration::from_millis(1)).await };
                ctx.spawn(soon.into_actor(actor).map(move |(), _, _| perform(deed)));
            }
            Spot::Interval => drop(ctx.run_interval(Duration::from_millis(1), move |_, _| perform(deed))),
        }
    }

    thread_local! {
        /// Starts still to be struck, by actor: set by tests on their own thread.
        static STARTS: RefCell<BTreeMap<String, u32>> = const { RefCell::new(BTreeMap::new()) };
    }
    /// The same from the environment, for every thread of a process; absent until it is read.
    static STARTS_OF_PROCESS: Mutex<Option<BTreeMap<String, u32>>> = Mutex::new(None);

    /// From now on the next `times` lives of this actor on this thread panic as they begin.
    pub fn arm_start(actor: &str, times: u32) {
        STARTS.with_borrow_mut(|starts| starts.insert(actor.to_owned(), times));
    }

    fn take(starts: &mut BTreeMap<String, u32>, actor: &str) -> bool {
        let Some(left) = starts.get_mut(actor).filter(|left| **left > 0) else { return false };
        *left -= 1;
        true
    }

    /// The actor's life begins; a fault that was ordered for it happens here.
    pub fn starting(actor: &'static str) {
        let struck = STARTS.with_borrow_mut(|starts| take(starts, actor)) || {
            let mut of_process = STARTS_OF_PROCESS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let starts = of_process.get_or_insert_with(|| {
                let orders = orders().into_iter().filter(|order| order.1 == "start");
                orders.map(|(actor, _, _, n)| (actor, n.unwrap_or(1))).collect()
            });
            take(starts, actor)
        };
        if struck {
            perform(Deed::Panic);
        }
    }

    type Order = (String, String, Deed, Option<u32>);

    fn orders() -> Vec<Order> {
        let text = std::env::var("TRIPLEGAIN_CHAOS").unwrap_or_default();
        let order = |part: &str| -> Option<Order> {
            let mut words = part.split(':').map(str::trim);
            let (actor, spot) = (words.next()?, words.next()?);
            let deed = match words.next()? {
                "panic" => Deed::Panic,
                "pause" => Deed::Pause,
                _ => return None,
            };
            Some((actor.to_owned(), spot.to_owned(), deed, words.next().and_then(|n| n.parse().ok())))
        };
        text.split(',').filter_map(order).collect()
    }

    /// Carries out what the environment asks for, once the actors run.
    pub fn from_environment(pulses: &[Pulse]) {
        for (actor, spot, deed, after) in orders() {
            let spot = match spot.as_str() {
                "handler" => Spot::Handler,
                "future" => Spot::Future,
                "interval" => Spot::Interval,
                _ => continue,
            };
            for pulse in pulses.iter().filter(|pulse| pulse.actor == actor) {
                let (recipient, actor) = (pulse.strike.clone(), pulse.actor);
                let wait = Duration::from_millis(after.unwrap_or(0).into());
                actix_rt::spawn(async move {
                    tokio::time::sleep(wait).await;
                    post(actor, &recipient, Strike { spot, deed });
                });
            }
        }
    }
}
