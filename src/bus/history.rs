//! What was published lately: one bounded ring per topic and the newest message per (symbol, source). Never delivers.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    envelope::Envelope,
    topic::{BusLimits, Topic},
};
use crate::model::{Symbol, Ts};

type LatestKey = (Option<Symbol>, Cow<'static, str>);

/// History of one topic.
#[derive(Debug, Default)]
struct TopicHistory {
    ring: VecDeque<Arc<Envelope>>,
    /// Not bounded by the ring: an entry leaves only when its ttl has passed or a newer one replaces it.
    latest: BTreeMap<LatestKey, Arc<Envelope>>,
}

/// Rings and latest indexes of all topics. A busy topic cannot evict another's messages.
#[derive(Debug)]
pub struct History {
    capacity: usize,
    cleanup_ms: i64,
    next_purge: Option<Ts>,
    topics: [TopicHistory; Topic::COUNT],
}

impl History {
    /// Empty, with the bounds of `limits`.
    pub fn new(limits: &BusLimits) -> History {
        History {
            capacity: limits.history_per_topic,
            cleanup_ms: limits.cleanup_ms,
            next_purge: None,
            topics: std::array::from_fn(|_| TopicHistory::default()),
        }
    }

    /// Adds a message; the oldest of its topic leaves when the ring is full.
    pub fn push(&mut self, message: &Arc<Envelope>) {
        let topic = &mut self.topics[message.topic().index()];
        if topic.ring.len() >= self.capacity {
            topic.ring.pop_front();
        }
        topic.ring.push_back(Arc::clone(message));
        // A static source name is borrowed, so the key of a repeated publisher costs no allocation.
        let key = (message.symbol(), message.source_key().clone());
        topic.latest.insert(key, Arc::clone(message));
    }

    /// Removes what has expired, at most once per cleanup interval of logical time.
    pub fn purge_if_due(&mut self, now: Ts) {
        match self.next_purge {
            Some(due) if now < due => {}
            Some(_) => {
                self.purge(now);
                self.next_purge = Some(now.plus_ms(self.cleanup_ms));
            }
            None => self.next_purge = Some(now.plus_ms(self.cleanup_ms)),
        }
    }

    /// Removes what has expired. A message behind a longer-lived one stays in the ring, invisible, until that one goes.
    pub fn purge(&mut self, now: Ts) {
        for topic in &mut self.topics {
            while topic.ring.front().is_some_and(|message| !message.is_visible(now)) {
                topic.ring.pop_front();
            }
            topic.latest.retain(|_, message| message.is_visible(now));
        }
    }

    /// Visible messages of a topic, newest first, at most `limit`, of one symbol when given.
    pub fn recent(&self, topic: Topic, symbol: Option<Symbol>, limit: usize, now: Ts) -> Vec<Arc<Envelope>> {
        let wanted = |message: &&Arc<Envelope>| {
            message.is_visible(now) && symbol.is_none_or(|symbol| message.symbol() == Some(symbol))
        };
        self.topics[topic.index()].ring.iter().rev().filter(wanted).take(limit).cloned().collect()
    }

    /// The newest visible message of (topic, symbol), of one source when given; the later id wins among sources.
    pub fn latest(&self, topic: Topic, symbol: Option<Symbol>, source: Option<&str>, now: Ts) -> Option<Arc<Envelope>> {
        let first: LatestKey = (symbol, Cow::Borrowed(""));
        let entries = self.topics[topic.index()].latest.range(first..);
        entries
            .take_while(|((of, _), _)| *of == symbol)
            .filter(|((_, of), message)| source.is_none_or(|source| of == source) && message.is_visible(now))
            .map(|(_, message)| message)
            .max_by_key(|message| message.id())
            .cloned()
    }

    /// Messages held for a topic: (ring, latest index), expired ones not yet purged included.
    pub fn held(&self, topic: Topic) -> (usize, usize) {
        let topic = &self.topics[topic.index()];
        (topic.ring.len(), topic.latest.len())
    }
}
