//! Small streaming building blocks of the indicator engine: fixed memory, no allocation, no knowledge of candles.

/// Exponential mean with α = 2/(N+1), seeded with the arithmetic mean of its first N values.
#[derive(Clone, Debug)]
pub(super) struct Ema {
    length: u32,
    alpha: f64,
    seen: u32,
    value: f64,
}

impl Ema {
    pub(super) const fn new(length: u32) -> Ema {
        Ema { length, alpha: 2.0 / (length as f64 + 1.0), seen: 0, value: 0.0 }
    }

    pub(super) fn push(&mut self, x: f64) -> Option<f64> {
        if self.seen >= self.length {
            self.value += self.alpha * (x - self.value);
            return Some(self.value);
        }
        self.value += x;
        self.seen += 1;
        if self.seen < self.length {
            return None;
        }
        self.value /= f64::from(self.length);
        Some(self.value)
    }
}

/// Wilder's smoothed mean: seeded with the arithmetic mean of the first N values, then (previous·(N−1) + x)/N.
#[derive(Clone, Debug)]
pub(super) struct Wilder {
    length: u32,
    seen: u32,
    value: f64,
}

impl Wilder {
    pub(super) const fn new(length: u32) -> Wilder {
        Wilder { length, seen: 0, value: 0.0 }
    }

    pub(super) fn push(&mut self, x: f64) -> Option<f64> {
        let n = f64::from(self.length);
        if self.seen >= self.length {
            self.value = (self.value * (n - 1.0) + x) / n;
            return Some(self.value);
        }
        self.value += x;
        self.seen += 1;
        if self.seen < self.length {
            return None;
        }
        self.value /= n;
        Some(self.value)
    }
}

/// Wilder's smoothed sum: seeded with the sum of the first N values, then previous − previous/N + x.
#[derive(Clone, Debug)]
pub(super) struct WilderSum {
    length: u32,
    seen: u32,
    value: f64,
}

impl WilderSum {
    pub(super) const fn new(length: u32) -> WilderSum {
        WilderSum { length, seen: 0, value: 0.0 }
    }

    pub(super) fn push(&mut self, x: f64) -> Option<f64> {
        if self.seen >= self.length {
            self.value += x - self.value / f64::from(self.length);
            return Some(self.value);
        }
        self.value += x;
        self.seen += 1;
        (self.seen == self.length).then_some(self.value)
    }
}

/// The last N values with their running sum. The sum is recomputed from the values each time the ring wraps, so rounding
/// cannot build up over millions of candles.
#[derive(Clone, Debug)]
pub(super) struct Window<const N: usize> {
    values: [f64; N],
    next: usize,
    full: bool,
    sum: f64,
}

impl<const N: usize> Window<N> {
    pub(super) const fn new() -> Self {
        Window { values: [0.0; N], next: 0, full: false, sum: 0.0 }
    }

    /// Adds `x` and returns the value it pushes out, once the window is full.
    pub(super) fn push(&mut self, x: f64) -> Option<f64> {
        // `next` is always below N: it is set to 0 as soon as it reaches N.
        let old = std::mem::replace(&mut self.values[self.next], x);
        self.sum += x - old;
        self.next += 1;
        let was_full = self.full;
        if self.next == N {
            self.next = 0;
            self.full = true;
            self.sum = self.values.iter().sum();
        }
        was_full.then_some(old)
    }

    /// Sum of the N values; absent before the window is full.
    pub(super) fn sum(&self) -> Option<f64> {
        self.full.then_some(self.sum)
    }

    /// Mean of the N values; absent before the window is full.
    pub(super) fn mean(&self) -> Option<f64> {
        self.full.then(|| self.sum / N as f64)
    }

    /// Population deviation around `mean` in two passes; a sum of squares would lose the digits that matter.
    pub(super) fn deviation(&self, mean: f64) -> f64 {
        let mut lanes = [0.0; 4];
        for chunk in self.values.chunks(4) {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += (x - mean) * (x - mean);
            }
        }
        (lanes.iter().sum::<f64>() / N as f64).sqrt()
    }
}

/// Highest of the last N values by a monotonic queue in a ring of `CAP` ≥ N slots, a power of two. Lowest = push −x.
#[derive(Clone, Debug)]
pub(super) struct Highest<const N: usize, const CAP: usize> {
    slots: [(u64, f64); CAP],
    head: usize,
    len: usize,
    seen: u64,
}

impl<const N: usize, const CAP: usize> Highest<N, CAP> {
    pub(super) const fn new() -> Self {
        const { assert!(CAP.is_power_of_two() && CAP >= N && N > 0) };
        Highest { slots: [(0, 0.0); CAP], head: 0, len: 0, seen: 0 }
    }

    pub(super) fn push(&mut self, x: f64) -> Option<f64> {
        // Every index is masked to CAP − 1, so none is out of bounds.
        let mask = CAP - 1;
        if self.len > 0 && self.seen - self.slots[self.head & mask].0 >= N as u64 {
            self.head = (self.head + 1) & mask;
            self.len -= 1;
        }
        while self.len > 0 && self.slots[(self.head + self.len - 1) & mask].1 <= x {
            self.len -= 1;
        }
        self.slots[(self.head + self.len) & mask] = (self.seen, x);
        self.len += 1;
        self.seen += 1;
        (self.seen >= N as u64).then_some(self.slots[self.head & mask].1)
    }
}
