//! Answers recorded from Kraken's public REST interface are read as they are. Skipped where the recordings are absent.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::path::{Path, PathBuf};

use serde_json::Value;
use triplegain::{
    market::feed::kraken::rest::{RestError, candles},
    model::{Timeframe, Ts},
};

/// A recorded body, or nothing where the shared data are absent.
fn recorded(name: &str) -> Option<Vec<u8>> {
    let shared = std::env::var_os("TRIPLEGAIN_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let body = std::fs::read(shared.join("data/kraken_rest").join(name));
    if body.is_err() {
        println!("skipped: shared data absent");
    }
    body.ok()
}

/// The rows of the recording and its `last`, read apart from the program.
fn rows(body: &[u8]) -> (Vec<Value>, Option<i64>) {
    let body: Value = serde_json::from_slice(body).unwrap();
    let result = body["result"].as_object().unwrap();
    let rows = result.iter().find(|(name, _)| *name != "last").unwrap().1.as_array().unwrap().clone();
    (rows, result.get("last").and_then(Value::as_i64))
}

#[test]
fn recorded_candles_are_read_without_the_forming_one() {
    for (name, frame) in
        [("live_ohlc_btcusd_60_2026-09-25.json", Timeframe::H1), ("live_ohlc_btcusd_1_2026-10-06.json", Timeframe::M1)]
    {
        let Some(body) = recorded(name) else { return };
        let (rows, last) = rows(&body);
        let read = candles(&body, frame).unwrap();
        println!("{name}: {} rows, {} closed candles", rows.len(), read.len());
        assert_eq!(read.len(), rows.len() - 1, "{name}");
        for (candle, row) in read.iter().zip(&rows) {
            let number = |i: usize| row[i].as_str().unwrap().parse::<f64>().unwrap();
            let values = [candle.open, candle.high, candle.low, candle.close, candle.volume];
            assert_eq!(values, [number(1), number(2), number(3), number(4), number(6)], "{name}: {row}");
            assert_eq!(candle.open_time, Ts::from_secs(row[0].as_i64().unwrap()), "{name}: {row}");
        }
        // The venue's own word for the newest closed row; the shorter recording was trimmed and has none.
        assert_eq!(last.is_some(), frame == Timeframe::H1);
        if let Some(last) = last {
            assert_eq!(read.last().unwrap().open_time, Ts::from_secs(last), "{name}");
        }
    }
}

#[test]
fn recorded_errors_are_told_apart() {
    let Some(body) = recorded("error_too_many_requests.json") else { return };
    let error = candles(&body, Timeframe::M1).unwrap_err();
    assert_eq!(error, RestError::TooMany);
    assert!(error.may_pass());
    let Some(body) = recorded("error_unknown_pair.json") else { return };
    let error = candles(&body, Timeframe::M1).unwrap_err();
    assert_eq!(error, RestError::Refused("EQuery:Unknown asset pair".to_owned()));
    assert!(!error.may_pass());
}

#[test]
fn recorded_trades_are_no_candles() {
    // The program reads no trades; an answer of that kind must not pass for candles.
    let Some(body) = recorded("live_trades_btcusd_2026-09-25.json") else { return };
    assert!(matches!(candles(&body, Timeframe::M1), Err(RestError::Odd(_))));
}
