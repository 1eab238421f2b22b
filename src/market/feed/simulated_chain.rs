//! The arithmetic of the simulated market: price(t) = f(seed, genesis, t). An hourly chain carries regime, volatility and
//! jumps; inside an hour a seeded bridge fills minutes, inside a minute another fills seconds. It uses only operations
//! whose results are the same on every machine (no logarithm, no library exponential).

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::model::Symbol;

/// Minutes of an hour and seconds of a minute.
pub(super) const MINUTES: usize = 60;
/// See [`MINUTES`].
pub(super) const SECONDS: usize = 60;
/// Share of an hour's shock that is common to all symbols.
const COMMON: f64 = 0.75;
/// Square root of 1 − COMMON².
const OWN: f64 = 0.661_437_827_766_147_7;
/// Weight of the last squared shock and of the last variance in the next variance.
const SHOCK_WEIGHT: f64 = 0.08;
const MEMORY: f64 = 0.90;
/// Pull of the logarithm of the price towards its start, per hour.
const PULL: f64 = 1.0 / 2400.0;
/// Largest hourly logarithmic return.
const RETURN_MAX: f64 = 0.18;

/// What kind of hours these are: drift in units of the hourly deviation, factor of the deviation, chance to end per hour,
/// chance of a jump per hour.
#[derive(Clone, Copy)]
struct Phase {
    drift: f64,
    volatility: f64,
    end: f64,
    jump: f64,
}

const PHASES: [Phase; 5] = [
    // trend up, trend down, sideways, wild, quiet
    Phase { drift: 0.30, volatility: 0.85, end: 1.0 / 60.0, jump: 0.004 },
    Phase { drift: -0.30, volatility: 0.95, end: 1.0 / 54.0, jump: 0.006 },
    Phase { drift: 0.0, volatility: 0.75, end: 1.0 / 48.0, jump: 0.002 },
    Phase { drift: -0.02, volatility: 1.9, end: 1.0 / 18.0, jump: 0.020 },
    Phase { drift: 0.0, volatility: 0.35, end: 1.0 / 24.0, jump: 0.004 },
];
/// Chances of the next phase, given that it changes, in the order of [`PHASES`].
const NEXT: [[f64; 5]; 5] = [
    [0.0, 0.25, 0.45, 0.15, 0.15],
    [0.25, 0.0, 0.40, 0.20, 0.15],
    [0.35, 0.30, 0.0, 0.10, 0.25],
    [0.30, 0.30, 0.40, 0.0, 0.0],
    [0.40, 0.35, 0.15, 0.10, 0.0],
];

/// A standard normal value from the sum of four uniforms of 16 bits: bounded at ±3.46, exact on every machine.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let bits = rng.next_u64();
    let sum = (bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) + ((bits >> 32) & 0xFFFF) + (bits >> 48);
    // mean 2·65535; deviation of the sum = √(4·(65536² − 1)/12)
    (sum as f64 - 131_070.0) * (1.0 / 37_837.226_9)
}

fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// e^x for |x| ≤ 0.25 by its series; the error is below 1e-12 of the value.
fn exp(x: f64) -> f64 {
    1.0 + x
        * (1.0
            + x / 2.0
                * (1.0
                    + x / 3.0
                        * (1.0 + x / 4.0 * (1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0)))))))
}

/// The generator of one symbol, hour and purpose; independent of every other one.
fn generator(key: &[u8; 32], hour: i64, purpose: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::from_seed(*key);
    rng.set_stream((hour as u64).wrapping_mul(4).wrapping_add(purpose));
    rng
}

fn key(seed: u64, name: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    // A symbol's text has at most 25 bytes; the last one, when there are 25, tells nothing the others do not.
    for (slot, byte) in key[8..].iter_mut().zip(name.bytes()) {
        *slot = byte;
    }
    key
}

/// The state of one symbol's chain at the start of an hour.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    key: [u8; 32],
    common: [u8; 32],
    /// Deviation of an ordinary hour.
    base_deviation: f64,
    pub(super) hour: i64,
    /// Price relative to genesis.
    pub(super) price: f64,
    log_price: f64,
    phase: usize,
    variance: f64,
}

/// One hour of one symbol, resolved to minutes.
#[derive(Clone, Debug)]
pub(super) struct Hour {
    key: [u8; 32],
    hour: i64,
    deviation: f64,
    jump: f64,
    jump_minute: usize,
    jump_second: usize,
    /// Price at the hour's start.
    start: f64,
    /// Logarithmic distance to `start` at the start of each minute, and at the hour's end.
    logs: [f64; MINUTES + 1],
    /// Relative trading activity of each minute.
    pub(super) activity: [f64; MINUTES],
}

impl Chain {
    pub(super) fn new(seed: u64, symbol: Symbol, base_deviation: f64, genesis_hour: i64) -> Chain {
        Chain {
            key: key(seed, &symbol.to_string()),
            common: key(seed, "the whole market"),
            base_deviation,
            hour: genesis_hour,
            price: 1.0,
            log_price: 0.0,
            phase: 2,
            variance: 1.0,
        }
    }

    /// Steps to the next hour and returns the finished return with its jump and the hour's deviation.
    fn step(&mut self) -> (f64, f64, f64) {
        let mut own = generator(&self.key, self.hour, 0);
        let mut common = generator(&self.common, self.hour, 0);
        let phase = PHASES[self.phase];
        let shock = COMMON * normal(&mut common) + OWN * normal(&mut own);
        let deviation = self.base_deviation * phase.volatility * self.variance.sqrt();
        let jump = if uniform(&mut own) < phase.jump { normal(&mut own) * 3.0 * self.base_deviation } else { 0.0 };
        let drift = phase.drift * self.base_deviation * phase.volatility - PULL * self.log_price;
        let total = (drift + deviation * shock + jump).clamp(-RETURN_MAX, RETURN_MAX);
        let next = 1.0 - SHOCK_WEIGHT - MEMORY + (SHOCK_WEIGHT * shock * shock + MEMORY) * self.variance;
        self.variance = next.clamp(0.3, 6.0);
        if uniform(&mut own) < phase.end {
            let mut left = uniform(&mut own);
            // The chances of a row sum to 1; rounding leaves the phase as it is.
            if let Some(to) = NEXT[self.phase].iter().position(|chance| {
                left -= chance;
                left < 0.0
            }) {
                self.phase = to;
            }
        }
        self.hour += 1;
        self.log_price += total;
        self.price *= exp(total);
        (total, jump, deviation)
    }

    /// Steps to the next hour and resolves the one left behind to minutes.
    pub(super) fn step_hour(&mut self) -> Hour {
        let (hour, start) = (self.hour, self.price);
        let (total, jump, deviation) = self.step();
        let mut rng = generator(&self.key, hour, 1);
        let at = rng.next_u64();
        let (jump_minute, jump_second) = (at as usize % MINUTES, (at >> 32) as usize % SECONDS);
        let mut logs = [0.0; MINUTES + 1];
        let unit = deviation * INVERSE_SQRT_60;
        let mut walk = 0.0;
        for log in logs.iter_mut().skip(1) {
            walk += unit * normal(&mut rng);
            *log = walk;
        }
        // The walk is tied to the return of the chain; the jump comes on top from its minute on.
        let correction = (total - jump - walk) / MINUTES as f64;
        for (minute, log) in logs.iter_mut().enumerate() {
            *log += correction * minute as f64 + if minute > jump_minute { jump } else { 0.0 };
        }
        // Exactly the chain's return, so that this hour ends where the next one begins.
        logs[MINUTES] = total;
        let mut activity = [0.0; MINUTES];
        for (minute, value) in activity.iter_mut().enumerate() {
            // Both neighbours exist: `logs` has one value more than there are minutes.
            let moved = (logs[minute + 1] - logs[minute]).abs();
            *value = (0.35 + 1.1 * uniform(&mut rng)) * (1.0 + 400.0 * moved);
        }
        Hour { key: self.key, hour, deviation, jump, jump_minute, jump_second, start, logs, activity }
    }

    /// Steps to `hour` without resolving what lies between.
    pub(super) fn skip_to(&mut self, hour: i64) {
        while self.hour < hour {
            self.step();
        }
    }
}

/// 1/√60
const INVERSE_SQRT_60: f64 = 0.129_099_444_873_580_56;

impl Hour {
    /// Writes the prices at every `step`-th second of `minute` and at its end into `out` and returns how many. The price
    /// at an instant does not depend on `step`; with whole minutes the seconds are not even computed.
    pub(super) fn prices(&self, minute: usize, step: usize, out: &mut [f64; SECONDS + 1]) -> usize {
        // `minute` is below 60 by the callers' arithmetic; a larger one would repeat the last.
        let minute = minute.min(MINUTES - 1);
        let (from, to) = (self.logs[minute], self.logs[minute + 1]);
        out[0] = self.start * exp(from);
        let end = self.start * exp(to);
        if step >= SECONDS {
            out[1] = end;
            return 2;
        }
        let mut rng = generator(&self.key, self.hour, 2);
        // One normal value takes two words of the stream.
        rng.set_word_pos((minute * SECONDS * 2) as u128);
        let mut walk = [0.0; SECONDS + 1];
        let unit = self.deviation * (1.0 / 60.0);
        for i in 1..=SECONDS {
            walk[i] = walk[i - 1] + unit * normal(&mut rng);
        }
        let jump = if minute == self.jump_minute { self.jump } else { 0.0 };
        let correction = (to - from - jump - walk[SECONDS]) / SECONDS as f64;
        let mut count = 1;
        for second in (step.max(1)..SECONDS).step_by(step.max(1)) {
            let jumped = if second > self.jump_second { jump } else { 0.0 };
            out[count] = self.start * exp(from + walk[second] + correction * second as f64 + jumped);
            count += 1;
        }
        out[count] = end;
        count + 1
    }

    /// Hourly deviation of this hour, as a share of the price.
    pub(super) fn deviation(&self) -> f64 {
        self.deviation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_the_exponential_in_its_range() {
        for i in -250..=250 {
            let x = f64::from(i) / 1000.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-10, "{x}");
        }
    }

    #[test]
    fn normals_have_mean_0_and_deviation_1() {
        let mut rng = generator(&key(7, "test"), 1, 0);
        let values: Vec<f64> = (0..200_000).map(|_| normal(&mut rng)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.01, "seed 7: mean {mean}, variance {variance}");
    }
}
