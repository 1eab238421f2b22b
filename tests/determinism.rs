//! The same inputs give the same journal, byte by byte, and the future never changes the past.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

/// Candles of May 2021, or nothing where the shared data are absent.
fn candles() -> Option<PathBuf> {
    let shared = std::env::var_os("TRIPLEGAIN_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("data/candles/binance_2021_may");
    if !folder.is_dir() {
        println!("skipped: shared data absent");
        return None;
    }
    Some(folder)
}

/// Over `out/data`: the folder is part of the settings, so its name must not tell two runs apart.
fn backtest(out: &Path) -> (String, serde_json::Value) {
    let status = Command::new(env!("CARGO_BIN_EXE_triplegain"))
        .current_dir(out)
        .args(["backtest", "--from", "2021-05-18", "--to", "2021-05-20", "--report", "report", "--data", "data"])
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let report = fs::read_to_string(out.join("report/report.json")).unwrap();
    (fs::read_to_string(out.join("report/journal.jsonl")).unwrap(), serde_json::from_str(&report).unwrap())
}

/// Copies the candle files into `out/data`; every candle from `from` (Unix seconds) on is 7 % dearer.
fn copy(data: &Path, from: i64, out: &Path) {
    let into = out.join("data");
    fs::create_dir(&into).unwrap();
    for entry in fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.contains(".csv") {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let mut text = String::new();
        if name.ends_with(".gz") {
            GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        } else {
            text = String::from_utf8(bytes).unwrap();
        }
        let dearer = |line: &str| {
            let cells: Vec<&str> = line.split(',').collect();
            let late = cells[0].parse::<i64>().is_ok_and(|at| at >= from);
            let cell = |(index, cell): (usize, &&str)| match cell.parse::<f64>() {
                Ok(price) if late && (1..=4).contains(&index) => format!("{:.8}", price * 1.07),
                _ => (*cell).to_owned(),
            };
            cells.iter().enumerate().map(cell).collect::<Vec<_>>().join(",") + "\n"
        };
        let text: String = text.lines().map(dearer).collect();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        let name = if name.ends_with(".gz") { name } else { format!("{name}.gz") };
        fs::write(into.join(name), encoder.finish().unwrap()).unwrap();
    }
}

#[test]
fn a195_a196_same_inputs_same_journal_and_the_future_changes_nothing_before_it() {
    let Some(data) = candles() else { return };
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    for folder in &folders[..2] {
        copy(&data, i64::MAX, folder.path());
    }
    let (first, report) = backtest(folders[0].path());
    let (second, again) = backtest(folders[1].path());
    assert_eq!(report["journal_sha256"], again["journal_sha256"]);
    assert!(first == second, "A195: two backtests of the same files differ");

    // 2021-05-19T12:00:00Z, in the middle of the crash.
    let from = 1_621_425_600;
    copy(&data, from, folders[2].path());
    let (other, _) = backtest(folders[2].path());
    assert!(first != other, "the changed candles changed nothing at all");
    let instant = |line: &str| {
        let record: serde_json::Value =
            serde_json::from_str(&line[line.find('{').unwrap()..line.rfind('}').unwrap() + 1]).unwrap();
        record["ts"].as_str().unwrap().to_owned()
    };
    let before = |journal: &str| {
        let lines = journal.lines().take_while(|line| instant(line).as_str() < "2021-05-19T12:00:00.000Z");
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (first, other) = (before(&first), before(&other));
    assert!(first.len() > 100, "{} records before the change", first.len());
    assert!(first == other, "A196: a record from before the change differs");
}
