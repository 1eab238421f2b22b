//! The queue of admitted work (B6): by effective class, least recently started task, least recently started symbol.

use std::collections::BTreeSet;

use crate::model::Ts;

/// Effective classes 0..=3; housekeeping is class 4.
const CLASSES: usize = 5;

/// Entries by (task, class); inside ordered by the symbol's start counter, then key.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    buckets: Vec<BTreeSet<(u64, u32)>>,
    tasks: usize,
    len: usize,
    /// When an entry rises by one class.
    ageing: BTreeSet<(Ts, u32)>,
}

impl Queue {
    pub fn new(tasks: usize) -> Queue {
        Queue { buckets: vec![BTreeSet::new(); tasks * CLASSES], tasks, len: 0, ageing: BTreeSet::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn place(task: usize, class: u8) -> usize {
        task * CLASSES + (class as usize).min(CLASSES - 1)
    }

    pub fn insert(&mut self, task: usize, class: u8, rank: u64, key: u32) {
        if let Some(bucket) = self.buckets.get_mut(Self::place(task, class)) {
            self.len += usize::from(bucket.insert((rank, key)));
        }
    }

    pub fn remove(&mut self, task: usize, class: u8, rank: u64, key: u32) {
        if let Some(bucket) = self.buckets.get_mut(Self::place(task, class)) {
            self.len -= usize::from(bucket.remove(&(rank, key)));
        }
    }

    /// The first entry of one task and class.
    pub fn first(&self, task: usize, class: u8) -> Option<(u64, u32)> {
        self.buckets.get(Self::place(task, class))?.first().copied()
    }

    /// All classes and tasks, best class first.
    pub fn lanes(&self) -> impl Iterator<Item = (u8, usize)> + use<> {
        let tasks = self.tasks;
        (0..CLASSES as u8).flat_map(move |class| (0..tasks).map(move |task| (class, task)))
    }

    /// Lets an entry rise at `at`.
    pub fn age_at(&mut self, at: Ts, key: u32) {
        self.ageing.insert((at, key));
    }

    /// The next entry that has risen by `now`. It may have left the queue meanwhile: the caller checks.
    pub fn pop_aged(&mut self, now: Ts) -> Option<(Ts, u32)> {
        let first = self.ageing.first().copied().filter(|(at, _)| *at <= now)?;
        self.ageing.remove(&first);
        Some(first)
    }
}
