//! The bus as an actor, in virtual time: slow, failing, dying and dead subscribers, and consistent counters.

#![expect(clippy::unwrap_used, reason = "helpers outside #[test] functions fail the test that calls them")]

use std::{cell::RefCell, rc::Rc, sync::Arc, sync::Mutex, time::Duration};

use actix::prelude::*;
use triplegain::{
    bus::{
        BusLimits, Draft, Envelope, EnvelopeFactory, MarketData, Payload, Priority, Topic,
        actor::{BusActor, Deliver, HandlingFailed, Latest, Publish, Recent, Stats, Subscribe, Unsubscribe},
    },
    model::{Clock, Ts},
    runtime::{
        clock::LogicalClock,
        placement::run_virtual,
        post::post,
        supervisor::{Policy, Worker, run_fatal, supervise},
    },
};

const START: Ts = Ts(1_700_000_000_000);

/// What happens to a message at a subscriber.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Handled at once.
    Quick,
    /// Handled after one second.
    Slow,
    /// Refused.
    Fails,
    /// Panics on the source `poison`.
    Panics,
}

type Seen = Rc<RefCell<Vec<String>>>;

struct Reader {
    manner: Manner,
    seen: Seen,
}

impl Actor for Reader {
    type Context = Context<Self>;
}
impl Supervised for Reader {}
impl Worker for Reader {}

#[derive(Message)]
#[rtype(result = "()")]
struct Leave;

impl Handler<Leave> for Reader {
    type Result = ();
    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Deliver> for Reader {
    type Result = ResponseFuture<Result<(), HandlingFailed>>;

    fn handle(&mut self, Deliver(message): Deliver, _: &mut Self::Context) -> Self::Result {
        let (manner, seen) = (self.manner, Rc::clone(&self.seen));
        assert!(manner != Manner::Panics || message.source() != "poison", "poisoned");
        Box::pin(async move {
            if manner == Manner::Slow {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            if manner == Manner::Fails {
                return Err(HandlingFailed("always".to_owned()));
            }
            seen.borrow_mut().push(message.source().to_owned());
            Ok(())
        })
    }
}

/// A bus with its clock and a way to publish feed messages named by their source.
struct Rig {
    bus: Addr<BusActor>,
    clock: LogicalClock,
    factory: EnvelopeFactory,
}

impl Rig {
    fn new(clock: LogicalClock) -> Rig {
        let limits = BusLimits::default();
        let factory = EnvelopeFactory::new(1, &limits);
        let bus = run_fatal("bus", BusActor::new(limits, clock.clone()), |incident| panic!("{incident:?}"));
        Rig { bus, clock, factory }
    }

    fn publish(&self, name: &str, priority: Priority) {
        let (feed, detail) = ("simulated".into(), "".into());
        let payload = Payload::Market(MarketData::FeedHealth { symbol: None, feed, healthy: true, detail });
        let draft = Draft::new(name.to_owned(), payload).priority(priority);
        post("bus", &self.bus, Publish(self.factory.build(draft, self.clock.now()).unwrap()));
    }

    async fn subscribe(&self, name: &str, recipient: Recipient<Deliver>) {
        let wish = Subscribe { subscriber: name.into(), recipient, topic: Topic::MarketData, filter: None };
        self.bus.send(wish).await.unwrap();
    }

    async fn reader(&self, name: &str, manner: Manner) -> (Addr<Reader>, Seen) {
        let seen = Seen::default();
        let reader = Reader { manner, seen: Rc::clone(&seen) }.start();
        self.subscribe(name, reader.clone().recipient()).await;
        (reader, seen)
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn a166_a_slow_subscriber_delays_nobody_urgent_overtakes_and_overflow_is_counted() {
    run_virtual(START, |place| async move {
        let rig = Rig::new(place.clock.clone());
        let (_slow, slow) = rig.reader("slow", Manner::Slow).await;
        let (_quick, quick) = rig.reader("quick", Manner::Quick).await;
        for n in 0..200 {
            rig.publish(&format!("n{n}"), Priority::Normal);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(quick.borrow().len(), 200, "the other subscriber has everything within 5 ms");
        for n in 200..300 {
            rig.publish(&format!("n{n}"), Priority::Normal);
        }
        rig.publish("urgent", Priority::Urgent);
        let before = place.clock.now();
        assert!(rig.bus.send(Stats).await.unwrap().is_balanced());
        assert_eq!(place.clock.now(), before, "publishing and asking took no time");

        pass(400).await;
        assert_eq!(quick.borrow().len(), 301);
        let stats = rig.bus.send(Stats).await.unwrap();
        assert!(stats.is_balanced());
        let tally = stats.subscriptions[0].tally;
        // One was in work and 256 waited; 43 of the other 299 and one more for the urgent one had to go.
        assert_eq!((tally.offered, tally.dropped, tally.delivered), (301, 44, 257));
        let slow = slow.borrow();
        assert_eq!(slow[..3], ["n0", "urgent", "n45"], "{:?}", &slow[..3]);
        assert_eq!(slow.last().map(String::as_str), Some("n299"));
    })
    .unwrap();
}

#[test]
fn a167_f10_counters_balance_at_every_snapshot_of_ten_thousand_publishes_with_a_failing_subscriber() {
    run_virtual(START, |place| async move {
        let rig = Rc::new(Rig::new(place.clock.clone()));
        let (_failing, _) = rig.reader("failing", Manner::Fails).await;
        let (_fine, fine) = rig.reader("fine", Manner::Quick).await;
        let publisher = |publisher: usize| {
            let rig = Rc::clone(&rig);
            actix_rt::spawn(async move {
                for n in 0..1_000 {
                    rig.publish(&format!("{publisher}:{n}"), Priority::ALL[n % 4]);
                    if n % 50 == publisher {
                        let stats = rig.bus.send(Stats).await.unwrap();
                        assert!(stats.is_balanced(), "{stats:?}");
                    }
                }
            })
        };
        let publishers: Vec<_> = (0..10).map(publisher).collect();
        for publisher in publishers {
            publisher.await.unwrap();
        }
        pass(1).await;
        let stats = rig.bus.send(Stats).await.unwrap();
        assert!(stats.is_balanced());
        let [failing, good] = [stats.subscriptions[0].tally, stats.subscriptions[1].tally];
        assert_eq!((failing.offered, failing.delivered, failing.queued), (10_000, 0, 0));
        assert!(failing.errors > 0);
        assert_eq!((good.offered, good.errors, good.queued), (10_000, 0, 0));
        assert_eq!(good.delivered, fine.borrow().len() as u64);
    })
    .unwrap();
}

#[test]
fn a_dead_subscriber_is_counted_and_removed_and_the_others_go_on() {
    run_virtual(START, |place| async move {
        let rig = Rig::new(place.clock.clone());
        let (dying, _) = rig.reader("dying", Manner::Quick).await;
        let (_fine, fine) = rig.reader("fine", Manner::Quick).await;
        dying.send(Leave).await.unwrap();
        rig.publish("a", Priority::Normal);
        rig.publish("b", Priority::Normal);
        pass(1).await;
        let stats = rig.bus.send(Stats).await.unwrap();
        assert!(stats.is_balanced());
        assert_eq!(stats.dead_subscribers, 1);
        assert_eq!(stats.subscriptions.len(), 1);
        let tally = stats.topic(Topic::MarketData).unwrap().tally;
        assert_eq!((tally.offered, tally.delivered, tally.errors, tally.dropped), (4, 2, 1, 1));
        assert_eq!(*fine.borrow(), ["a", "b"]);
    })
    .unwrap();
}

#[test]
fn a_subscriber_that_panics_under_supervision_loses_one_message_and_keeps_its_subscription() {
    run_virtual(START, |place| async move {
        let rig = Rig::new(place.clock.clone());
        let seen = Seen::default();
        let of_life = Rc::clone(&seen);
        let make = move || Reader { manner: Manner::Panics, seen: Rc::clone(&of_life) };
        let addr = supervise("reader", Policy::default(), make, |_| ());
        rig.subscribe("reader", addr.clone().recipient()).await;
        for name in ["a", "poison", "b"] {
            rig.publish(name, Priority::Normal);
        }
        pass(1).await;
        assert_eq!(*seen.borrow(), ["a", "b"]);
        let stats = rig.bus.send(Stats).await.unwrap();
        assert!(stats.is_balanced());
        let tally = stats.subscriptions[0].tally;
        assert_eq!((tally.delivered, tally.errors, stats.dead_subscribers), (2, 1, 0));
    })
    .unwrap();
}

#[test]
fn subscribing_again_replaces_and_ending_it_stops_delivery() {
    run_virtual(START, |place| async move {
        let rig = Rig::new(place.clock.clone());
        let (_old, old) = rig.reader("same", Manner::Quick).await;
        let (_new, new) = rig.reader("same", Manner::Quick).await;
        rig.publish("a", Priority::Normal);
        pass(1).await;
        assert!(old.borrow().is_empty());
        assert_eq!(*new.borrow(), ["a"]);
        let end = || Unsubscribe { subscriber: "same".into(), topic: Some(Topic::MarketData) };
        assert!(rig.bus.send(end()).await.unwrap());
        assert!(!rig.bus.send(end()).await.unwrap());
        rig.publish("b", Priority::Normal);
        pass(1).await;
        assert_eq!(new.borrow().len(), 1);
    })
    .unwrap();
}

#[test]
fn a168_history_and_latest_follow_the_logical_clock() {
    run_virtual(START, |place| async move {
        let rig = Rig::new(place.clock.clone());
        rig.publish("market", Priority::Low);
        let latest = || Latest { topic: Topic::MarketData, symbol: None, source: Some("market".into()) };
        let recent = || Recent { topic: Topic::MarketData, symbol: None, limit: 10 };
        pass(1).await;
        place.clock.sleep_until(START.plus_ms(60_000)).await;
        assert!(rig.bus.send(latest()).await.unwrap().is_some());
        assert_eq!(rig.bus.send(recent()).await.unwrap().len(), 1);
        place.clock.sleep_until(START.plus_ms(61_000)).await;
        assert!(rig.bus.send(latest()).await.unwrap().is_none());
        assert!(rig.bus.send(recent()).await.unwrap().is_empty());
    })
    .unwrap();
}

#[test]
fn d31_a_message_is_one_shared_value_for_all_subscribers() {
    type Kept = Arc<Mutex<Vec<Arc<Envelope>>>>;
    struct Keeper(Kept);
    impl Actor for Keeper {
        type Context = Context<Self>;
    }
    impl Handler<Deliver> for Keeper {
        type Result = Result<(), HandlingFailed>;
        fn handle(&mut self, Deliver(message): Deliver, _: &mut Self::Context) -> Self::Result {
            self.0.lock().unwrap().push(message);
            Ok(())
        }
    }
    run_virtual(START, |place| async move {
        let rig = Rig::new(place.clock.clone());
        let kept = Kept::default();
        for name in ["one", "two"] {
            rig.subscribe(name, Keeper(Arc::clone(&kept)).start().recipient()).await;
        }
        rig.publish("market", Priority::Low);
        pass(1).await;
        let kept = kept.lock().unwrap();
        assert_eq!(kept.len(), 2);
        assert!(Arc::ptr_eq(&kept[0], &kept[1]));
    })
    .unwrap();
}
