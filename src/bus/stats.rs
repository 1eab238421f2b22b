//! Counters of the bus as values: taken in one step by the owner, hence consistent (F10). Nothing here counts.

use std::sync::Arc;

use super::topic::Topic;

/// What became of the messages offered. `offered = delivered + errors + dropped + queued` in every snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Matched the subscription, or its filter failed on them.
    pub offered: u64,
    /// The subscriber handled them.
    pub delivered: u64,
    /// The filter or the subscriber failed.
    pub errors: u64,
    /// Given up on overflow, or left behind by a subscriber that is gone.
    pub dropped: u64,
    /// Waiting, or being handled at this moment.
    pub queued: u64,
}

impl Tally {
    /// Whether the identity holds.
    pub const fn is_balanced(&self) -> bool {
        self.offered == self.delivered + self.errors + self.dropped + self.queued
    }

    /// Adds another tally to this one.
    pub fn add(&mut self, other: &Tally) {
        self.offered += other.offered;
        self.delivered += other.delivered;
        self.errors += other.errors;
        self.dropped += other.dropped;
        self.queued += other.queued;
    }
}

/// Counters of one subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionStats {
    /// Subscriber name.
    pub subscriber: Arc<str>,
    /// Topic.
    pub topic: Topic,
    /// Its messages.
    pub tally: Tally,
}

/// Counters of one topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicStats {
    /// Which.
    pub topic: Topic,
    /// Messages published.
    pub published: u64,
    /// Sum over all its subscriptions, living and gone.
    pub tally: Tally,
    /// Messages in the ring.
    pub history: usize,
    /// Entries of the latest index.
    pub latest: usize,
}

/// One consistent snapshot of the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusStats {
    /// All topics, in the order of [`Topic::ALL`].
    pub topics: Vec<TopicStats>,
    /// Living subscriptions, by subscriber and then topic in the order of subscribing.
    pub subscriptions: Vec<SubscriptionStats>,
    /// Subscribers removed because they were gone.
    pub dead_subscribers: u64,
}

impl BusStats {
    /// Whether the identity holds for every topic and every subscription.
    pub fn is_balanced(&self) -> bool {
        self.topics.iter().all(|topic| topic.tally.is_balanced())
            && self.subscriptions.iter().all(|subscription| subscription.tally.is_balanced())
    }

    /// The counters of one topic.
    pub fn topic(&self, topic: Topic) -> Option<&TopicStats> {
        self.topics.get(topic.index())
    }
}
