//! A backtest of a year of one-minute candles as a whole process, as a user starts it: reading, warm-up and report
//! included. Run with `cargo bench --bench backtest`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{process::Command, time::Instant};

mod support;

const RUNS: u32 = 3;
const TARGET_RATE: f64 = 300_000.0;
const TARGET_MB: f64 = 100.0;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    // One more: the run begins when the first candle closes, so that one is history.
    support::write_candles(folder.path(), 7, support::YEAR + 1);
    let mut best = 0.0_f64;
    for run in 1..=RUNS {
        let began = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_triplegain"))
            .args(["backtest", "--symbols", "BTC/USDT", "--json", "--data"])
            .arg(folder.path())
            .output()
            .unwrap();
        let elapsed = began.elapsed().as_secs_f64();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let number = |key: &str| report[key].as_f64().unwrap_or_default();
        assert_eq!(number("candles"), support::YEAR as f64);
        // Whole process: by the wall around it, not by what it says of itself.
        let rate = number("candles") / elapsed;
        best = best.max(rate);
        let mb = number("peak_rss_bytes") / 1e6;
        println!("run {run}: {rate:>9.0} candles/s of the whole process ({elapsed:.2} s), peak {mb:.1} MB");
        if run == 1 {
            for key in ["runs", "skips", "signals", "decisions", "orders", "fills", "closed_trades", "journal_records"]
            {
                println!("  {key}: {}", report[key]);
            }
            println!("  journal_sha256: {}", report["journal_sha256"]);
        }
        assert!(mb < TARGET_MB, "peak {mb:.1} MB, target {TARGET_MB} MB");
    }
    println!("best {best:.0} candles/s, target {TARGET_RATE:.0}: {:.2} of it", best / TARGET_RATE);
}
