//! The text frames of Kraken's public WebSocket v2, decoded strictly: what is not understood is named, never guessed.
//!
//! Numbers of the book keep the text they arrived in, because the checksum is taken over their digits, trailing zeros
//! included.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{Candle, Symbol, Ts};

/// One frame.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// Engine status, for example `online`, `maintenance`, `cancel_only`, `post_only`.
    Status(String),
    /// The connection lives; says nothing about data.
    Heartbeat,
    /// The answer to a ping.
    Pong,
    /// A subscription was taken.
    Subscribed {
        /// Which channel.
        channel: String,
        /// Which symbol.
        symbol: Symbol,
        /// What the venue remarks, for the log.
        warnings: Vec<String>,
    },
    /// A request was refused; heartbeats go on all the same.
    Refused {
        /// The symbol asked for, when the venue repeats it.
        symbol: Option<String>,
        /// The venue's words.
        error: String,
    },
    /// Candles, the newest of a symbol still forming.
    Ohlc(Vec<OhlcRow>),
    /// Best prices and the last trade.
    Ticker(TickerRow),
    /// The book or a change of it.
    Book(BookFrame),
    /// A channel this program did not ask for.
    Other(String),
}

/// One candle as it stands now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OhlcRow {
    /// Which symbol.
    pub symbol: Symbol,
    /// Interval, minutes.
    pub minutes: u32,
    /// Start and values so far.
    pub candle: Candle,
}

/// Best prices and the last trade.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TickerRow {
    /// Which symbol.
    pub symbol: Symbol,
    /// Best bid, quote units.
    pub bid: f64,
    /// Best ask, quote units.
    pub ask: f64,
    /// Last trade, quote units.
    pub last: f64,
    /// Traded in 24 hours, base units; absent when the venue does not tell.
    pub volume: Option<f64>,
    /// Venue time; absent from older frames.
    pub at: Option<Ts>,
}

/// Price levels in the digits of the venue.
#[derive(Debug, Clone, PartialEq)]
pub struct BookFrame {
    /// Which symbol.
    pub symbol: Symbol,
    /// The whole book instead of a change.
    pub snapshot: bool,
    /// (price, quantity); quantity 0 removes the level.
    pub bids: Vec<(String, String)>,
    /// (price, quantity); quantity 0 removes the level.
    pub asks: Vec<(String, String)>,
    /// CRC-32 of the ten best levels after this frame.
    pub checksum: u32,
    /// Venue time; absent from snapshots.
    pub at: Option<Ts>,
}

/// A frame that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the venue could not be understood: {why}; it began with `{head}`")]
pub struct WireError {
    /// What is wrong.
    pub why: String,
    /// First 80 characters of the frame.
    pub head: String,
}

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(default)]
    channel: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    success: Option<bool>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    symbol: Option<String>,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AckRow {
    channel: String,
    symbol: Symbol,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct StatusRow {
    system: String,
}

#[derive(Deserialize)]
struct RawOhlc {
    symbol: Symbol,
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    volume: f64,
    interval_begin: String,
    interval: u32,
}

#[derive(Deserialize)]
struct RawTicker {
    symbol: Symbol,
    bid: f64,
    ask: f64,
    last: f64,
    #[serde(default)]
    volume: Option<f64>,
    #[serde(default)]
    timestamp: Option<String>,
}

#[derive(Deserialize)]
struct RawBook<'a> {
    symbol: Symbol,
    #[serde(borrow)]
    bids: Vec<RawLevel<'a>>,
    #[serde(borrow)]
    asks: Vec<RawLevel<'a>>,
    checksum: u32,
    #[serde(default)]
    timestamp: Option<String>,
}

#[derive(Deserialize)]
struct RawLevel<'a> {
    #[serde(borrow)]
    price: &'a RawValue,
    #[serde(borrow)]
    qty: &'a RawValue,
}

/// Decodes one text frame.
///
/// # Errors
/// [`WireError`] for anything that is no frame of version 2 or lacks a field this program reads.
pub fn decode(text: &str) -> Result<Frame, WireError> {
    decode_here(text).map_err(|why| WireError { why, head: text.chars().take(80).collect() })
}

fn decode_here(text: &str) -> Result<Frame, String> {
    let outer: Outer = serde_json::from_str(text).map_err(words)?;
    if let Some(method) = outer.method.as_deref() {
        return reply(method, &outer);
    }
    let channel = outer.channel.as_deref().ok_or("it has neither a method nor a channel")?;
    if channel == "heartbeat" {
        return Ok(Frame::Heartbeat);
    }
    if !matches!(channel, "status" | "ohlc" | "ticker" | "book") {
        return Ok(Frame::Other(channel.to_owned()));
    }
    let data = outer.data.ok_or_else(|| format!("{channel} without data"))?.get();
    Ok(match channel {
        "status" => Frame::Status(first::<StatusRow>(data)?.system),
        "ticker" => Frame::Ticker(ticker(first(data)?)?),
        "book" => Frame::Book(book(first(data)?, outer.kind.as_deref() == Some("snapshot"))?),
        _ => {
            let rows: Vec<RawOhlc> = serde_json::from_str(data).map_err(words)?;
            Frame::Ohlc(rows.into_iter().map(ohlc).collect::<Result<_, _>>()?)
        }
    })
}

fn reply(method: &str, outer: &Outer) -> Result<Frame, String> {
    if method == "pong" {
        return Ok(Frame::Pong);
    }
    if outer.success != Some(true) {
        let error = outer.error.clone().unwrap_or_else(|| format!("{method} was refused without a reason"));
        return Ok(Frame::Refused { symbol: outer.symbol.clone(), error });
    }
    if method != "subscribe" {
        return Ok(Frame::Other(method.to_owned()));
    }
    let row: AckRow = serde_json::from_str(outer.result.ok_or("subscribe without a result")?.get()).map_err(words)?;
    Ok(Frame::Subscribed { channel: row.channel, symbol: row.symbol, warnings: row.warnings })
}

fn words(error: serde_json::Error) -> String {
    error.to_string()
}

fn first<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    let rows: Vec<T> = serde_json::from_str(data).map_err(words)?;
    rows.into_iter().next().ok_or_else(|| "its data are empty".to_owned())
}

fn ohlc(row: RawOhlc) -> Result<OhlcRow, String> {
    let open_time = Ts::parse(&row.interval_begin).ok_or_else(|| format!("`{}` is no instant", row.interval_begin))?;
    let RawOhlc { symbol, open, high, low, close, volume, interval, .. } = row;
    Ok(OhlcRow { symbol, minutes: interval, candle: Candle { open_time, open, high, low, close, volume } })
}

fn ticker(row: RawTicker) -> Result<TickerRow, String> {
    let at = instant(row.timestamp)?;
    Ok(TickerRow { symbol: row.symbol, bid: row.bid, ask: row.ask, last: row.last, volume: row.volume, at })
}

fn instant(text: Option<String>) -> Result<Option<Ts>, String> {
    text.map(|text| Ts::parse(&text).ok_or_else(|| format!("`{text}` is no instant"))).transpose()
}

fn book(row: RawBook, snapshot: bool) -> Result<BookFrame, String> {
    let levels = |side: Vec<RawLevel>| -> Result<Vec<(String, String)>, String> {
        side.iter().map(|level| Ok((digits(level.price)?, digits(level.qty)?))).collect()
    };
    let (bids, asks) = (levels(row.bids)?, levels(row.asks)?);
    Ok(BookFrame { symbol: row.symbol, snapshot, bids, asks, checksum: row.checksum, at: instant(row.timestamp)? })
}

/// Plain decimal digits, in quotes or not; anything else is no price of this venue.
fn digits(raw: &RawValue) -> Result<String, String> {
    let text = raw.get().trim_matches('"');
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain && text.bytes().any(|byte| byte.is_ascii_digit()) && text.matches('.').count() <= 1 {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no price or quantity"))
    }
}

#[derive(Serialize)]
struct Request<'a> {
    method: &'a str,
    params: Params<'a>,
    req_id: u64,
}

#[derive(Serialize)]
struct Params<'a> {
    channel: &'a str,
    symbol: &'a [String],
    snapshot: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<u32>,
}

/// The subscriptions of `symbols`: candles of `minutes`, ticker and book of depth 10.
pub fn subscriptions(symbols: &[Symbol], minutes: u32) -> Vec<String> {
    let names: Vec<String> = symbols.iter().map(ToString::to_string).collect();
    let request = |channel, interval, depth, req_id| {
        let params = Params { channel, symbol: &names, snapshot: true, interval, depth };
        // A struct of strings and numbers always becomes JSON.
        serde_json::to_string(&Request { method: "subscribe", params, req_id }).unwrap_or_default()
    };
    vec![
        request("ohlc", Some(minutes), None, 1),
        request("ticker", None, None, 2),
        request("book", None, Some(super::book::DEPTH as u32), 3),
    ]
}

/// Asks for a new snapshot of one book: leaves the channel and comes back.
pub fn again_book(symbol: Symbol) -> [String; 2] {
    let names = [symbol.to_string()];
    let depth = Some(super::book::DEPTH as u32);
    ["unsubscribe", "subscribe"].map(|method| {
        let snapshot = method == "subscribe";
        let params = Params { channel: "book", symbol: &names, snapshot, interval: None, depth };
        serde_json::to_string(&Request { method, params, req_id: 4 }).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol() -> Symbol {
        "BTC/USD".parse().unwrap()
    }

    #[test]
    fn the_kinds_of_frames_are_told_apart() {
        let decoded = |text: &str| decode(text).unwrap();
        assert_eq!(decoded(r#"{"channel":"heartbeat"}"#), Frame::Heartbeat);
        assert_eq!(decoded(r#"{"method":"pong","time_in":"x"}"#), Frame::Pong);
        let status = r#"{"channel":"status","type":"update","data":[{"system":"maintenance","api_version":"v2"}]}"#;
        assert_eq!(decoded(status), Frame::Status("maintenance".into()));
        let taken = r#"{"method":"subscribe","result":{"channel":"ohlc","symbol":"BTC/USD","warnings":["old"]},"success":true}"#;
        let warnings = vec!["old".to_owned()];
        assert_eq!(decoded(taken), Frame::Subscribed { channel: "ohlc".into(), symbol: symbol(), warnings });
        let refused = r#"{"error":"Currency pair not supported XBT/USD","method":"subscribe","success":false,"symbol":"XBT/USD"}"#;
        let error = "Currency pair not supported XBT/USD".to_owned();
        assert_eq!(decoded(refused), Frame::Refused { symbol: Some("XBT/USD".into()), error });
        assert_eq!(decoded(r#"{"channel":"trade","data":[]}"#), Frame::Other("trade".into()));
    }

    #[test]
    fn a_candle_has_its_start_and_the_book_keeps_its_digits() {
        let row = r#"{"channel":"ohlc","type":"update","data":[{"symbol":"BTC/USD","open":2.0,"high":3.0,"low":1.0,"close":2.5,"trades":5,"volume":0.5,"vwap":2.0,"interval_begin":"2026-10-06T18:06:00.000000000Z","interval":1}]}"#;
        let open_time = Ts::parse("2026-10-06T18:06:00Z").unwrap();
        let candle = Candle { open_time, open: 2.0, high: 3.0, low: 1.0, close: 2.5, volume: 0.5 };
        assert_eq!(decode(row), Ok(Frame::Ohlc(vec![OhlcRow { symbol: symbol(), minutes: 1, candle }])));
        let change = r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":1.10,"qty":0.00000000}],"asks":[],"checksum":7,"timestamp":"2026-10-06T18:06:01.5Z"}]}"#;
        let Ok(Frame::Book(book)) = decode(change) else { panic!("a book") };
        assert_eq!(book.at, Ts::parse("2026-10-06T18:06:01.5Z"));
        assert_eq!(book.bids, [("1.10".to_owned(), "0.00000000".to_owned())]);
        assert!(!book.snapshot);
    }

    #[test]
    fn what_cannot_be_understood_says_why() {
        for (text, why) in [
            ("{", "EOF"),
            ("{}", "neither a method nor a channel"),
            (r#"{"channel":"book","type":"update","data":[]}"#, "empty"),
            (r#"{"channel":"ohlc","type":"update"}"#, "ohlc without data"),
            (r#"{"channel":"ticker","data":[{"symbol":"BTC/USD","bid":1,"ask":1}]}"#, "missing field `last`"),
            (
                r#"{"channel":"book","data":[{"symbol":"BTC/USD","bids":[{"price":-1.0,"qty":1.0}],"asks":[],"checksum":1}]}"#,
                "`-1.0`",
            ),
        ] {
            let error = decode(text).unwrap_err();
            assert!(error.why.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn subscriptions_name_every_symbol_once() {
        let all = subscriptions(&[symbol(), "XRP/BTC".parse().unwrap()], 1);
        let asked: serde_json::Value = serde_json::from_str(&all[0]).unwrap();
        assert_eq!(asked["params"]["symbol"], serde_json::json!(["BTC/USD", "XRP/BTC"]));
        assert_eq!(asked["params"]["interval"], 1);
        assert_eq!(all.len(), 3);
    }
}
