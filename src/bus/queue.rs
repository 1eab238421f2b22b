//! The waiting messages of one subscription: bounded, by priority, and honest about what it drops.

use std::{collections::VecDeque, sync::Arc};

use super::{envelope::Envelope, topic::Priority};

/// A waiting message with its place in the order of publication over all topics.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Publication number, increasing.
    pub number: u64,
    /// The message.
    pub message: Arc<Envelope>,
}

/// A bounded queue with one lane per priority. Order within a priority is the order of publication.
#[derive(Debug)]
pub struct PriorityQueue {
    capacity: usize,
    len: usize,
    lanes: [VecDeque<Waiting>; 4],
}

impl PriorityQueue {
    /// Empty; `capacity` is at least 1.
    pub fn new(capacity: usize) -> PriorityQueue {
        PriorityQueue { capacity: capacity.max(1), len: 0, lanes: std::array::from_fn(|_| VecDeque::new()) }
    }

    /// Adds a message. When full, the oldest of the lowest priority present, the new one included, is dropped and
    /// returned; so nothing is ever dropped in favour of something lower.
    pub fn push(&mut self, waiting: Waiting) -> Option<Waiting> {
        let lane = waiting.message.priority().index();
        if self.len < self.capacity {
            self.lanes[lane].push_back(waiting);
            self.len += 1;
            return None;
        }
        for lower in &mut self.lanes[..=lane] {
            if let Some(dropped) = lower.pop_front() {
                self.lanes[lane].push_back(waiting);
                return Some(dropped);
            }
        }
        Some(waiting)
    }

    /// Priority and number of the message [`PriorityQueue::pop`] would give.
    pub fn peek(&self) -> Option<(Priority, u64)> {
        let first = |priority: Priority| Some((priority, self.lanes[priority.index()].front()?.number));
        Priority::ALL.into_iter().rev().find_map(first)
    }

    /// Takes the oldest message of the highest priority.
    pub fn pop(&mut self) -> Option<Waiting> {
        let popped = self.lanes.iter_mut().rev().find_map(VecDeque::pop_front)?;
        self.len -= 1;
        Some(popped)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
