//! Supervision: what actix does not do after a panic, and what the project's supervisor does instead. Virtual time.

use std::{cell::RefCell, rc::Rc, time::Duration};

use actix::prelude::*;
use tokio::time::Instant;
use triplegain::{
    model::Ts,
    runtime::{
        placement::run_virtual,
        post::{drops, post},
        supervisor::{Incident, Next, Policy, Worker, lives, run_fatal, supervise},
    },
};

#[derive(Message)]
#[rtype(result = "u32")]
struct Add(u32);

#[derive(Message)]
#[rtype(result = "()")]
enum Break {
    /// In the handler itself.
    Handler,
    /// In a future bound to the actor, after a virtual second.
    Future,
    /// In an interval, at its first beat after a virtual second.
    Interval,
    /// In a handler, and again in the destructor of a future that the restart cancels.
    Drop,
    /// After cancelling a future, which leaves the cancellation for the next life.
    AfterCancel,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Halt;

#[derive(Default, Clone)]
struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    fn note(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut())
    }
    fn count(&self, what: &str) -> usize {
        self.0.borrow().iter().filter(|noted| *noted == what).count()
    }
}

/// Counts; its sum is the state that must be fresh after a panic.
struct Counter {
    sum: u32,
    trace: Trace,
}

impl Actor for Counter {
    type Context = Context<Self>;
    fn stopped(&mut self, _: &mut Self::Context) {
        self.trace.note("stopped");
    }
}
impl Supervised for Counter {}
impl Worker for Counter {
    fn begin(&mut self, ctx: &mut Context<Self>) {
        self.trace.note(format!("begin {}", self.sum));
        ctx.run_interval(Duration::from_secs(10), |counter, _| counter.trace.note("beat"));
    }
}

impl Handler<Add> for Counter {
    type Result = u32;
    fn handle(&mut self, Add(n): Add, _: &mut Self::Context) -> u32 {
        self.sum += n;
        self.sum
    }
}

impl Handler<Halt> for Counter {
    type Result = ();
    fn handle(&mut self, _: Halt, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

struct PanicsWhenDropped(Trace);
impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        self.0.note("dropped");
        panic!("in a destructor");
    }
}

impl Handler<Break> for Counter {
    type Result = ();
    fn handle(&mut self, how: Break, ctx: &mut Self::Context) {
        let second = Duration::from_secs(1);
        match how {
            Break::Handler => panic!("in a handler"),
            Break::Future => {
                let waits = async move { tokio::time::sleep(second).await };
                ctx.spawn(waits.into_actor(self).map(|(), _, _| panic!("in a future")));
            }
            Break::Interval => {
                ctx.run_interval(second, |_, _| panic!("in an interval"));
            }
            Break::Drop => {
                let bomb = PanicsWhenDropped(self.trace.clone());
                let holds = async move {
                    std::future::pending::<()>().await;
                    drop(bomb);
                };
                ctx.spawn(holds.into_actor(self));
                ctx.run_later(second, |_, _| panic!("in a timer"));
            }
            Break::AfterCancel => {
                // The first handle is the interval of `begin`, in this life and in the next.
                ctx.cancel_future(SpawnHandle::default().next());
                panic!("after a cancellation");
            }
        }
    }
}

type Incidents = Rc<RefCell<Vec<Incident>>>;

fn start(name: &'static str, policy: Policy) -> (Addr<Counter>, Trace, Incidents) {
    let (trace, incidents) = (Trace::default(), Incidents::default());
    let (of_life, told) = (trace.clone(), Rc::clone(&incidents));
    let make = move || Counter { sum: 0, trace: of_life.clone() };
    let addr = supervise(name, policy, make, move |incident| told.borrow_mut().push(incident.clone()));
    (addr, trace, incidents)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn actix_alone_does_not_restart_after_a_panic_with_or_without_its_supervisor() {
    struct Fragile;
    impl Actor for Fragile {
        type Context = Context<Self>;
    }
    impl Supervised for Fragile {}
    impl Handler<Break> for Fragile {
        type Result = ();
        fn handle(&mut self, _: Break, _: &mut Self::Context) {
            panic!("in a handler");
        }
    }
    run_virtual(Ts(0), |_| async {
        for addr in [Fragile.start(), Supervisor::start(|_| Fragile)] {
            assert!(matches!(addr.send(Break::Handler).await, Err(MailboxError::Closed)));
            pass(60).await;
            assert!(!addr.connected(), "the address is dead for good");
            assert!(matches!(addr.send(Break::Handler).await, Err(MailboxError::Closed)));
        }
    })
    .unwrap();
}

#[test]
fn after_a_panic_the_state_is_fresh_the_address_holds_and_the_backlog_is_handled() {
    run_virtual(Ts(0), |_| async {
        let (addr, trace, incidents) = start("fresh", Policy::default());
        assert_eq!(addr.send(Add(7)).await.unwrap(), 7);
        let begun = Instant::now();
        // All four are in the mailbox before the actor sees the first.
        let (before, broken, two, three) =
            tokio::join!(addr.send(Add(1)), addr.send(Break::Handler), addr.send(Add(2)), addr.send(Add(3)));
        assert_eq!(before.unwrap(), 8);
        assert!(matches!(broken, Err(MailboxError::Closed)), "the message it died of is lost, its caller is told");
        assert_eq!((two.unwrap(), three.unwrap()), (2, 5), "fresh state, order kept");
        assert_eq!(begun.elapsed(), Duration::from_millis(100), "the first back-off");
        assert_eq!(trace.take(), ["begin 0", "begin 0"], "`stopped` did not run on the broken state");
        let incident = incidents.borrow()[0].clone();
        assert_eq!(incident.message, "in a handler");
        assert_eq!(incident.next, Next::RestartIn(Duration::from_millis(100)));
        assert_eq!((lives()["fresh"].panics, lives()["fresh"].restarts), (1, 1));
    })
    .unwrap();
}

#[test]
fn panics_in_bound_futures_and_intervals_are_covered_and_cancel_the_work_of_the_old_life() {
    for (name, how) in [("future", Break::Future), ("interval", Break::Interval)] {
        run_virtual(Ts(0), |_| async move {
            let (addr, trace, incidents) = start(name, Policy::default());
            addr.send(Add(7)).await.unwrap();
            addr.send(how).await.unwrap();
            pass(2).await;
            assert_eq!(incidents.borrow().len(), 1, "{name}");
            assert_eq!(addr.send(Add(1)).await.unwrap(), 1, "{name}: fresh");
            pass(35).await;
            assert_eq!(incidents.borrow().len(), 1, "{name}: the interval of the old life is gone");
            assert_eq!(trace.count("beat"), 3, "{name}: exactly one interval beats");
        })
        .unwrap();
    }
}

#[test]
fn a_destructor_that_panics_during_the_restart_does_not_end_the_actor() {
    run_virtual(Ts(0), |_| async {
        let (addr, trace, _) = start("drop", Policy::default());
        addr.send(Break::Drop).await.unwrap();
        pass(2).await;
        assert_eq!(trace.count("dropped"), 1);
        assert_eq!(addr.send(Add(4)).await.unwrap(), 4);
    })
    .unwrap();
}

#[test]
fn a_cancellation_left_by_the_old_life_does_not_hit_the_timers_of_the_new_one() {
    run_virtual(Ts(0), |_| async {
        let (addr, trace, _) = start("cancel", Policy::default());
        assert!(matches!(addr.send(Break::AfterCancel).await, Err(MailboxError::Closed)));
        pass(25).await;
        assert_eq!(trace.count("beat"), 2, "the interval armed by the second `begin` lives");
    })
    .unwrap();
}

#[test]
fn the_back_off_doubles_and_more_than_five_restarts_in_a_minute_escalate() {
    run_virtual(Ts(0), |_| async {
        let (addr, trace, incidents) = start("intense", Policy::default());
        let mut waits = Vec::new();
        for _ in 0..6 {
            let begun = Instant::now();
            assert!(matches!(addr.send(Break::Handler).await, Err(MailboxError::Closed)));
            let _ = addr.send(Add(1)).await;
            waits.push(begun.elapsed().as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 0]);
        let told: Vec<Next> = incidents.borrow().iter().map(|incident| incident.next).collect();
        assert_eq!((told.len(), told[5]), (6, Next::GaveUp));
        assert!(!addr.connected());
        assert!(matches!(addr.send(Add(1)).await, Err(MailboxError::Closed)));
        assert_eq!(trace.count("stopped"), 0);
        let lives = lives()["intense"];
        assert_eq!((lives.panics, lives.restarts, lives.gave_up), (6, 5, 1));
        assert!(!post("intense", &addr, Add(1)));
        assert_eq!(drops()["intense"].closed, 1);
    })
    .unwrap();
}

#[test]
fn panics_outside_the_window_do_not_add_up_and_the_back_off_starts_again() {
    run_virtual(Ts(0), |_| async {
        let (addr, _, incidents) = start("calm", Policy::default());
        for _ in 0..20 {
            let _ = addr.send(Break::Handler).await;
            pass(61).await;
        }
        let first = Next::RestartIn(Duration::from_millis(100));
        assert_eq!(incidents.borrow().len(), 20);
        assert!(incidents.borrow().iter().all(|incident| incident.next == first));
        assert_eq!(addr.send(Add(1)).await.unwrap(), 1);
    })
    .unwrap();
}

#[test]
fn an_actor_that_stops_itself_is_not_restarted_and_one_that_nobody_knows_ends() {
    run_virtual(Ts(0), |_| async {
        let (addr, trace, incidents) = start("halt", Policy::default());
        addr.send(Halt).await.unwrap();
        pass(1).await;
        assert!(!addr.connected());
        assert_eq!(trace.count("stopped"), 1);
        assert!(incidents.borrow().is_empty());

        let (addr, trace, incidents) = start("alone", Policy::default());
        post("alone", &addr, Break::Handler);
        drop(addr);
        pass(1).await;
        assert_eq!(incidents.borrow().len(), 1);
        assert_eq!(trace.take(), ["begin 0"], "no second life without an address");
    })
    .unwrap();
}

#[test]
fn a_factory_that_panics_counts_like_any_other_panic() {
    run_virtual(Ts(0), |_| async {
        let incidents = Incidents::default();
        let told = Rc::clone(&incidents);
        let mut lives = 0;
        let make = move || {
            lives += 1;
            assert!(lives != 2, "in the factory");
            Counter { sum: 0, trace: Trace::default() }
        };
        let addr = supervise("factory", Policy::default(), make, move |i: &Incident| told.borrow_mut().push(i.clone()));
        let _ = addr.send(Break::Handler).await;
        assert_eq!(addr.send(Add(2)).await.unwrap(), 2);
        let messages: Vec<String> = incidents.borrow().iter().map(|incident| incident.message.clone()).collect();
        assert_eq!(messages, ["in a handler", "in the factory"]);
    })
    .unwrap();
}

#[test]
fn a_fatal_actor_is_not_restarted_and_its_panic_is_told_once() {
    run_virtual(Ts(0), |_| async {
        let (trace, told) = (Trace::default(), Incidents::default());
        let of_callback = Rc::clone(&told);
        let actor = Counter { sum: 0, trace: trace.clone() };
        let addr = run_fatal("fatal", actor, move |incident| of_callback.borrow_mut().push(incident.clone()));
        assert_eq!(addr.send(Add(1)).await.unwrap(), 1);
        assert!(matches!(addr.send(Break::Handler).await, Err(MailboxError::Closed)));
        pass(60).await;
        assert!(!addr.connected());
        assert_eq!((told.borrow().len(), told.borrow()[0].next), (1, Next::GaveUp));
        assert_eq!(trace.count("stopped"), 0);
    })
    .unwrap();
}
