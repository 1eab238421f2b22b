//! The bus itself, pure: who wants what, what waits for whom, what was published. It never calls a subscriber and
//! never waits; the shell asks for the next delivery and reports how it went.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    envelope::Envelope,
    history::History,
    queue::{PriorityQueue, Waiting},
    stats::{BusStats, SubscriptionStats, Tally, TopicStats},
    topic::{BusLimits, Topic},
};
use crate::model::{Symbol, Ts};

/// Names a subscriber for as long as it lives; not used again for another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubscriberId {
    slot: u32,
    generation: u32,
}

/// A filter could not say yes or no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the filter failed: {0}")]
pub struct FilterFailed(pub String);

/// Whether a subscription wants a message. An error, or a panic, counts as no match and as an error.
pub type Filter = Box<dyn Fn(&Envelope) -> Result<bool, FilterFailed> + Send>;

/// Names one delivery, so that a late report cannot settle another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// To whom.
    pub subscriber: SubscriberId,
    number: u64,
}

/// One message on its way to one subscriber; report it with [`Bus::settle`].
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What to report with.
    pub ticket: Ticket,
    /// What.
    pub message: Arc<Envelope>,
}

struct Subscription {
    topic: Topic,
    filter: Option<Filter>,
    queue: PriorityQueue,
    tally: Tally,
}

struct Subscriber {
    name: Arc<str>,
    generation: u32,
    alive: bool,
    /// Topic and publication number of the message being handled; one at a time.
    in_flight: Option<(Topic, u64)>,
    subscriptions: Vec<Subscription>,
}

/// Subscriptions, queues, counters and history.
pub struct Bus {
    limits: BusLimits,
    history: History,
    subscribers: Vec<Subscriber>,
    /// Per topic the (slot, position) of every subscription, in the order of subscribing; rebuilt on each change.
    routes: [Vec<(u32, u32)>; Topic::COUNT],
    published: [u64; Topic::COUNT],
    /// Counters of subscriptions that are gone.
    retired: [Tally; Topic::COUNT],
    number: u64,
    dead_subscribers: u64,
}

impl Bus {
    /// An empty bus.
    pub fn new(limits: BusLimits) -> Bus {
        Bus {
            history: History::new(&limits),
            limits,
            subscribers: Vec::new(),
            routes: std::array::from_fn(|_| Vec::new()),
            published: [0; Topic::COUNT],
            retired: [Tally::default(); Topic::COUNT],
            number: 0,
            dead_subscribers: 0,
        }
    }

    /// Registers a subscriber; it gets nothing until it subscribes.
    pub fn join(&mut self, name: impl Into<Arc<str>>) -> SubscriberId {
        let name = name.into();
        if let Some(slot) = self.subscribers.iter().position(|subscriber| !subscriber.alive) {
            let free = &mut self.subscribers[slot];
            free.generation += 1;
            let generation = free.generation;
            *free = Subscriber { name, generation, alive: true, in_flight: None, subscriptions: Vec::new() };
            return SubscriberId { slot: slot as u32, generation };
        }
        let slot = self.subscribers.len() as u32;
        self.subscribers.push(Subscriber {
            name,
            generation: 0,
            alive: true,
            in_flight: None,
            subscriptions: Vec::new(),
        });
        SubscriberId { slot, generation: 0 }
    }

    /// Subscribes to a topic. One subscription per (subscriber, topic): repeating it replaces the filter and keeps
    /// queue and counters. False when the subscriber is not registered.
    pub fn subscribe(&mut self, id: SubscriberId, topic: Topic, filter: Option<Filter>) -> bool {
        let capacity = self.limits.subscriber_queue;
        let Some(subscriber) = self.living_mut(id) else { return false };
        match subscriber.subscriptions.iter_mut().find(|subscription| subscription.topic == topic) {
            Some(existing) => existing.filter = filter,
            None => {
                let queue = PriorityQueue::new(capacity);
                subscriber.subscriptions.push(Subscription { topic, filter, queue, tally: Tally::default() });
                self.rebuild_routes();
            }
        }
        true
    }

    /// Ends one subscription; what waited is counted as dropped. False when there was none.
    pub fn unsubscribe(&mut self, id: SubscriberId, topic: Topic) -> bool {
        let Some(subscriber) = self.living_mut(id) else { return false };
        let Some(position) = subscriber.subscriptions.iter().position(|subscription| subscription.topic == topic)
        else {
            return false;
        };
        if subscriber.in_flight.is_some_and(|(of, _)| of == topic) {
            subscriber.in_flight = None;
        }
        let gone = subscriber.subscriptions.remove(position);
        self.retire(&gone);
        self.rebuild_routes();
        true
    }

    /// Removes a subscriber with all its subscriptions; `dead` counts it as one that disappeared.
    pub fn leave(&mut self, id: SubscriberId, dead: bool) -> bool {
        let Some(subscriber) = self.living_mut(id) else { return false };
        subscriber.alive = false;
        subscriber.in_flight = None;
        let gone = std::mem::take(&mut subscriber.subscriptions);
        for subscription in &gone {
            self.retire(subscription);
        }
        self.dead_subscribers += u64::from(dead);
        self.rebuild_routes();
        true
    }

    /// Publishes a message: into the history and into the queues of those who want it. Never waits for anyone.
    /// Calls `ready` with every subscriber that now has something waiting and nothing in flight.
    pub fn publish(&mut self, message: &Arc<Envelope>, now: Ts, mut ready: impl FnMut(SubscriberId)) {
        self.history.purge_if_due(now);
        let topic = message.topic().index();
        self.published[topic] += 1;
        self.number += 1;
        self.history.push(message);
        for &(slot, position) in &self.routes[topic] {
            // Routes are rebuilt with every change of subscribers, so both indexes exist.
            let subscriber = &mut self.subscribers[slot as usize];
            let subscription = &mut subscriber.subscriptions[position as usize];
            if offer(subscription, message, self.number) && subscriber.in_flight.is_none() {
                ready(SubscriberId { slot, generation: subscriber.generation });
            }
        }
    }

    /// The next message for a subscriber: highest priority first, then order of publication, over all its topics.
    /// Nothing while one is in flight or none waits.
    pub fn next(&mut self, id: SubscriberId) -> Option<Delivery> {
        let subscriber = self.living_mut(id)?;
        if subscriber.in_flight.is_some() {
            return None;
        }
        let subscription = match subscriber.subscriptions.as_mut_slice() {
            [only] => only,
            all => {
                all.iter_mut()
                    .filter_map(|subscription| Some((subscription.queue.peek()?, subscription)))
                    .max_by_key(|((priority, number), _)| (*priority, std::cmp::Reverse(*number)))?
                    .1
            }
        };
        let Waiting { number, message } = subscription.queue.pop()?;
        subscriber.in_flight = Some((subscription.topic, number));
        Some(Delivery { ticket: Ticket { subscriber: id, number }, message })
    }

    /// Reports how a delivery ended and counts it. Nothing changes when it is no longer in flight: its subscription
    /// was ended meanwhile and the message was counted as dropped then.
    pub fn settle(&mut self, ticket: Ticket, handled: bool) {
        let Some(subscriber) = self.living_mut(ticket.subscriber) else { return };
        let Some((topic, _)) = subscriber.in_flight.take_if(|(_, number)| *number == ticket.number) else { return };
        let of_topic = |subscription: &&mut Subscription| subscription.topic == topic;
        if let Some(subscription) = subscriber.subscriptions.iter_mut().find(of_topic) {
            let counter = if handled { &mut subscription.tally.delivered } else { &mut subscription.tally.errors };
            *counter += 1;
            subscription.tally.queued -= 1;
        }
    }

    /// Visible messages of a topic, newest first; see [`History::recent`].
    pub fn recent(&self, topic: Topic, symbol: Option<Symbol>, limit: usize, now: Ts) -> Vec<Arc<Envelope>> {
        self.history.recent(topic, symbol, limit, now)
    }

    /// The newest visible message of (topic, symbol, source); see [`History::latest`].
    pub fn latest(&self, topic: Topic, symbol: Option<Symbol>, source: Option<&str>, now: Ts) -> Option<Arc<Envelope>> {
        self.history.latest(topic, symbol, source, now)
    }

    /// Removes expired messages from the history now, due or not.
    pub fn purge(&mut self, now: Ts) {
        self.history.purge(now);
    }

    /// All counters in one step.
    pub fn stats(&self) -> BusStats {
        let mut topics: Vec<TopicStats> = Topic::ALL
            .into_iter()
            .map(|topic| {
                let (history, latest) = self.history.held(topic);
                let (published, tally) = (self.published[topic.index()], self.retired[topic.index()]);
                TopicStats { topic, published, tally, history, latest }
            })
            .collect();
        let mut subscriptions = Vec::new();
        for subscriber in &self.subscribers {
            for subscription in &subscriber.subscriptions {
                topics[subscription.topic.index()].tally.add(&subscription.tally);
                subscriptions.push(SubscriptionStats {
                    subscriber: Arc::clone(&subscriber.name),
                    topic: subscription.topic,
                    tally: subscription.tally,
                });
            }
        }
        BusStats { topics, subscriptions, dead_subscribers: self.dead_subscribers }
    }

    fn living_mut(&mut self, id: SubscriberId) -> Option<&mut Subscriber> {
        let living = |subscriber: &&mut Subscriber| subscriber.alive && subscriber.generation == id.generation;
        self.subscribers.get_mut(id.slot as usize).filter(living)
    }

    fn retire(&mut self, gone: &Subscription) {
        let mut tally = gone.tally;
        tally.dropped += tally.queued;
        tally.queued = 0;
        self.retired[gone.topic.index()].add(&tally);
    }

    fn rebuild_routes(&mut self) {
        for route in &mut self.routes {
            route.clear();
        }
        for (slot, subscriber) in self.subscribers.iter().enumerate() {
            for (position, subscription) in subscriber.subscriptions.iter().enumerate() {
                self.routes[subscription.topic.index()].push((slot as u32, position as u32));
            }
        }
    }
}

/// Queues the message for one subscription when its filter wants it; true when something new waits.
#[inline]
fn offer(subscription: &mut Subscription, message: &Arc<Envelope>, number: u64) -> bool {
    let tally = &mut subscription.tally;
    if let Some(filter) = &subscription.filter {
        // A panicking filter is somebody else's defect; it must not end the bus.
        match catch_unwind(AssertUnwindSafe(|| filter(message))) {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return false,
            Ok(Err(_)) | Err(_) => {
                tally.offered += 1;
                tally.errors += 1;
                return false;
            }
        }
    }
    tally.offered += 1;
    match subscription.queue.push(Waiting { number, message: Arc::clone(message) }) {
        None => tally.queued += 1,
        Some(_) => tally.dropped += 1,
    }
    true
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
