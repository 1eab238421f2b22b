//! What the benches of the whole program share: a year of made candles, the same on every machine.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One-minute candles of a year.
pub const YEAR: u64 = 525_600;
/// 2021-01-01T00:00:00Z.
const START: i64 = 1_609_459_200;

/// Writes `count` one-minute candles of BTC/USDT as `XBTUSDT_1.csv` (Kraken OHLCVT): a seeded walk around a slow
/// tide, with weeks of calm and weeks of storm, so that voters find trends to trade and stops to be hit.
pub fn write_candles(folder: &Path, seed: u64, count: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut out = BufWriter::new(File::create(folder.join("XBTUSDT_1.csv")).unwrap());
    let (mut price, mut volatility, mut drift) = (45_000.0_f64, 0.000_6_f64, 0.0_f64);
    for minute in 0..count {
        if minute % 1_440 == 0 {
            drift = random.random_range(-0.000_01..0.000_012);
            volatility = 0.9 * volatility + 0.1 * random.random_range(0.000_3..0.001_2);
        }
        // The pull towards the start keeps a year inside a factor of a few.
        let pull = (45_000.0 / price).ln() * 0.000_002;
        // Twelve uniform draws less six are close enough to a normal one, and the same everywhere.
        let shock = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
        let open = price;
        price *= 1.0 + (drift + pull + shock * volatility).clamp(-0.05, 0.05);
        let reach = volatility * random.random::<f64>() * 0.5;
        let (high, low) = (open.max(price) * (1.0 + reach), open.min(price) * (1.0 - reach));
        let volume = 5.0 + 40.0 * random.random::<f64>();
        let at = START + minute as i64 * 60;
        writeln!(out, "{at},{open:.2},{high:.2},{low:.2},{price:.2},{volume:.6},10").unwrap();
    }
    out.flush().unwrap();
}
