//! Anchored slots (B1) and the heap of the next instant of every key. Arithmetic only.

use crate::model::{Ts, time::SECOND_MS};

/// The slot grid of one key: `due(n) = phase + n · interval`, in Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    phase_ms: i64,
    spread_ms: i64,
    interval_ms: i64,
}

impl Grid {
    /// A grid; `spread_ms` × the symbol's position moves it, by at most a tenth of the interval.
    pub fn new(interval_seconds: u32, phase_seconds: u32, spread_ms: u32, position: usize) -> Grid {
        let interval_ms = (i64::from(interval_seconds) * SECOND_MS).max(1);
        let spread = i64::from(spread_ms).saturating_mul(i64::try_from(position).unwrap_or(i64::MAX));
        let spread_ms = spread.min(interval_ms / 10);
        Grid { phase_ms: i64::from(phase_seconds) * SECOND_MS + spread_ms, spread_ms, interval_ms }
    }

    /// The slot `now` would lie in without the spread: one more than [`Grid::slot`] while the spread delays it.
    pub fn unspread_slot(&self, now: Ts) -> i64 {
        self.slot(now.plus_ms(self.spread_ms))
    }

    /// The slot `now` lies in.
    pub fn slot(&self, now: Ts) -> i64 {
        now.since_ms(Ts(self.phase_ms)).div_euclid(self.interval_ms)
    }

    /// When slot `n` begins.
    pub fn due(&self, n: i64) -> Ts {
        Ts(self.phase_ms.saturating_add(n.saturating_mul(self.interval_ms)))
    }

    /// Length of a slot, milliseconds, > 0.
    pub fn interval_ms(&self) -> i64 {
        self.interval_ms
    }
}

/// Nothing will happen by time alone.
pub const NEVER: Ts = Ts(i64::MAX);

/// A binary heap that holds every key exactly once and moves it when its instant changes: no stale entries, so the top
/// is always the true next instant.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    heap: Vec<(Ts, u32)>,
    place: Vec<u32>,
}

impl Timers {
    /// All of `count` keys at [`NEVER`].
    pub fn new(count: usize) -> Timers {
        let ids = 0..u32::try_from(count).unwrap_or(u32::MAX);
        Timers { heap: ids.clone().map(|key| (NEVER, key)).collect(), place: ids.collect() }
    }

    /// The earliest instant and its key.
    pub fn first(&self) -> Option<(Ts, u32)> {
        self.heap.first().copied().filter(|(at, _)| *at < NEVER)
    }

    /// Moves a key to another instant.
    pub fn set(&mut self, key: u32, at: Ts) {
        let Some(place) = self.place.get(key as usize).map(|p| *p as usize) else { return };
        let Some(entry) = self.heap.get_mut(place) else { return };
        let before = entry.0;
        entry.0 = at;
        // Ties are ordered by key, so that the order of keys of one instant is total.
        if at < before {
            self.up(place);
        } else if at > before {
            self.down(place);
        }
    }

    fn up(&mut self, mut child: usize) {
        while child > 0 {
            let parent = (child - 1) / 2;
            if self.heap[parent] <= self.heap[child] {
                break;
            }
            self.swap(parent, child);
            child = parent;
        }
    }

    fn down(&mut self, mut parent: usize) {
        loop {
            let left = 2 * parent + 1;
            let Some(smallest) = (left..(left + 2).min(self.heap.len())).min_by_key(|i| self.heap[*i]) else { break };
            if self.heap[parent] <= self.heap[smallest] {
                break;
            }
            self.swap(parent, smallest);
            parent = smallest;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.place[self.heap[a].1 as usize] = a as u32;
        self.place[self.heap[b].1 as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b1_slots_are_anchored_and_do_not_drift() {
        let grid = Grid::new(60, 5, 250, 2);
        assert_eq!(grid.due(0), Ts(5_500));
        assert_eq!(grid.slot(Ts(5_499)), -1);
        assert_eq!(grid.slot(Ts(5_500)), 0);
        assert_eq!(grid.slot(grid.due(1_000_000)), 1_000_000);
    }

    #[test]
    fn b1_spread_is_at_most_a_tenth_of_the_interval() {
        assert_eq!(Grid::new(5, 0, 250, 50).due(0), Ts(500));
        assert_eq!(Grid::new(3600, 0, 250, 50).due(0), Ts(12_500));
    }

    #[test]
    fn timers_give_keys_by_instant_then_number() {
        let mut timers = Timers::new(6);
        for (key, at) in [(3, 5), (1, 5), (0, 9), (5, 1), (2, 7)] {
            timers.set(key, Ts(at));
        }
        timers.set(5, Ts(6));
        timers.set(2, Ts(2));
        let mut order = vec![];
        while let Some((at, key)) = timers.first() {
            order.push((at.0, key));
            timers.set(key, NEVER);
        }
        assert_eq!(order, [(2, 2), (5, 1), (5, 3), (6, 5), (9, 0)]);
    }
}
