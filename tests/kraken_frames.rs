//! Frames recorded from Kraken's public feed: every one is understood, every checksum of the book reproduces, candles
//! close as the recordings show. Skipped where the recordings are absent.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use triplegain::{
    market::feed::kraken::{
        book::OrderBook,
        candles::CandleCloser,
        wire::{BookFrame, Frame, decode},
    },
    model::{Symbol, Timeframe, Ts},
};

/// The recorded frames of a file, or nothing where the shared data are absent.
fn recorded(name: &str) -> Option<Vec<String>> {
    let shared = std::env::var_os("TRIPLEGAIN_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(shared.join("data/kraken_ws_v2").join(name)) else {
        println!("skipped: shared data absent");
        return None;
    };
    Some(text.lines().map(str::to_owned).collect())
}

#[test]
fn every_recorded_book_frame_reproduces_its_checksum() {
    let Some(frames) = recorded("live_book_btcusd_2026-07-19.jsonl") else { return };
    assert_eq!(frames.len(), 1_376);
    let mut book = OrderBook::default();
    let (mut taken, mut heartbeats, mut status, mut acks) = (0, 0, 0, 0);
    for (line, text) in frames.iter().enumerate() {
        match decode(text).unwrap_or_else(|error| panic!("line {}: {error}", line + 1)) {
            Frame::Book(frame) => {
                book.take(&frame).unwrap_or_else(|error| panic!("line {}: {error}", line + 1));
                let view = book.view(1.0).unwrap_or_else(|| panic!("line {}: a side is empty", line + 1));
                assert!(view.spread_bps > 0.0 && view.imbalance.abs() <= 1.0, "line {}: {view:?}", line + 1);
                taken += 1;
            }
            Frame::Heartbeat => heartbeats += 1,
            Frame::Status(system) => {
                assert_eq!(system, "online", "line {}", line + 1);
                status += 1;
            }
            Frame::Subscribed { channel, .. } => {
                assert_eq!(channel, "book", "line {}", line + 1);
                acks += 1;
            }
            other => panic!("line {}: {other:?}", line + 1),
        }
    }
    println!(
        "{taken} book frames with their checksum, {heartbeats} heartbeats, {status} status, {acks} acknowledgement"
    );
    // Every one of the 1 376: a snapshot and 1 253 changes carry a checksum, the others have no book to prove.
    assert_eq!((taken, heartbeats, status, acks), (1_254, 120, 1, 1));
}

#[test]
fn a_lost_book_frame_is_noticed_or_made_up_for_by_the_next() {
    let Some(frames) = recorded("live_book_btcusd_2026-07-19.jsonl") else { return };
    let frame = |text: &String| match decode(text) {
        Ok(Frame::Book(frame)) => Some(frame),
        _ => None,
    };
    let books: Vec<BookFrame> = frames.iter().filter_map(frame).collect();
    let losses: Vec<usize> = (1..books.len() - 50).step_by(20).collect();
    let mut noticed = 0;
    for lost in losses.iter().copied() {
        let (mut book, mut truth) = (OrderBook::default(), OrderBook::default());
        for frame in &books[..lost] {
            book.take(frame).unwrap();
            truth.take(frame).unwrap();
        }
        truth.take(&books[lost]).unwrap();
        truth.take(&books[lost + 1]).unwrap();
        match book.take(&books[lost + 1]) {
            Err(_) => noticed += 1,
            // The next frame said again what was lost.
            Ok(()) => assert_eq!(book.view(1.0), truth.view(1.0), "frame {lost}"),
        }
    }
    println!("{noticed} of {} lost frames noticed with the next one, the others made up for by it", losses.len());
    assert!(noticed > 0);
}

#[test]
fn every_recorded_frame_of_the_other_files_is_understood() {
    for name in [
        "live_book_ethbtc_2026-08-26.jsonl",
        "live_errors_2026-09-25.jsonl",
        "live_mixed_btcusd_2026-09-25.jsonl",
        "live_ohlc_btcusd_2026-10-06.jsonl",
        "live_ohlc_btcusdt_2026-09-10.jsonl",
    ] {
        let Some(frames) = recorded(name) else { return };
        let mut refused = 0;
        for (line, text) in frames.iter().enumerate() {
            let frame = decode(text).unwrap_or_else(|error| panic!("{name}:{}: {error}", line + 1));
            assert!(!matches!(&frame, Frame::Other(channel) if channel != "trade"), "{name}:{}: {frame:?}", line + 1);
            refused += usize::from(matches!(frame, Frame::Refused { .. }));
        }
        assert_eq!(refused > 0, name.contains("errors") || name.contains("btcusdt") || name.contains("ohlc_btcusd_"));
    }
}

#[test]
fn recorded_candles_close_when_the_next_one_begins() {
    for name in ["live_ohlc_btcusd_2026-10-06.jsonl", "live_ohlc_btcusdt_2026-09-10.jsonl"] {
        let Some(frames) = recorded(name) else { return };
        let mut closer = CandleCloser::new(Timeframe::M1, 5_000);
        let mut closed: BTreeMap<Symbol, Vec<Ts>> = BTreeMap::new();
        let mut forming = Ts(i64::MIN);
        for text in &frames {
            let Ok(Frame::Ohlc(rows)) = decode(text) else { continue };
            for (symbol, candle) in closer.take(&rows, Ts(i64::MAX)).candles {
                assert!(candle.defect().is_none(), "{name}: {candle:?}");
                closed.entry(symbol).or_default().push(candle.open_time);
            }
            forming = rows.iter().map(|row| row.candle.open_time).max().unwrap_or(forming).max(forming);
        }
        for (symbol, starts) in closed {
            println!("{name}: {symbol} closed {} candles, the last at {}", starts.len(), starts[starts.len() - 1]);
            assert!(starts.is_sorted_by(|a, b| a < b), "{name}: {starts:?}");
            assert!(starts.last().is_some_and(|last| *last < forming), "{name}: the forming candle was closed");
        }
    }
}
