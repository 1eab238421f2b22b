//! A venue on the loopback interface that speaks Kraken's public WebSocket v2 and REST as far as the program uses them,
//! and misbehaves when told to. Its prices are a function of time, so every answer fits every other.
#![allow(dead_code)] // every test file uses a part
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::interval,
};
use tokio_tungstenite::{accept_async, tungstenite::Message};
use triplegain::model::Ts;

/// What the venue does, and what it was asked.
#[derive(Default)]
pub struct Control {
    /// Symbols it does not serve.
    pub refused: BTreeSet<String>,
    /// Heartbeats go on, data do not.
    pub frozen: bool,
    /// The same for single symbols.
    pub frozen_symbols: BTreeSet<String>,
    /// Symbols whose candles stand still while ticker and book go on.
    pub frozen_candles: BTreeSet<String>,
    /// Symbols nobody trades: there is a book, and that changes.
    pub untraded: BTreeSet<String>,
    /// Connections that are still to be dropped as soon as they have subscribed.
    pub drops: u32,
    /// Books that are still to be sent with a wrong checksum.
    pub wrong_books: u32,
    /// Questions that are still to be refused as too many.
    pub too_many: u32,
    /// Seconds its clock is ahead.
    pub ahead_s: i64,
    /// The engine's state, told when it changes.
    pub system: String,
    /// Connections taken.
    pub connections: u32,
    /// Paths asked for over REST.
    pub asked: Vec<String>,
    /// Raised by one, it drops every connection that stands.
    pub kicks: u64,
    /// Connections are dropped before they are taken.
    pub away: bool,
    /// Closed candles in a snapshot; 4 when absent.
    pub snapshot_candles: Option<i64>,
    /// Frames sent.
    pub frames: u64,
    /// When the first frame of a minute was handed to the network: it closes the minute before. Milliseconds.
    pub begun: BTreeMap<(String, i64), i64>,
    /// Connections lost, by whatever cause of the venue.
    pub dropped: u64,
    /// Frames that are sent to every connection as they are, at their time after the first subscription, milliseconds;
    /// nothing else is sent then but acknowledgements.
    pub script: Vec<(u64, String)>,
    /// Frames of the script that were sent.
    pub scripted: usize,
}

/// The running venue; it ends with the process of the test.
#[derive(Clone)]
pub struct Venue {
    control: Arc<Mutex<Control>>,
    ws_port: u16,
    rest_port: u16,
}

/// The wall, milliseconds.
pub fn now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn base(symbol: &str) -> f64 {
    match symbol {
        "BTC/USDT" => 40_000.0,
        "XRP/USDT" => 0.6,
        "XRP/BTC" => 0.000_02,
        _ => 100.0,
    }
}

/// The price at an instant: slow waves, never far from the base.
pub fn price(symbol: &str, at_ms: i64) -> f64 {
    let minutes = at_ms as f64 / 60_000.0;
    base(symbol) * (1.0 + 0.02 * (minutes / 700.0).sin() + 0.003 * (minutes / 17.0).sin())
}

/// Open, high, low, close and volume of a minute.
pub fn candle(symbol: &str, minute: i64) -> [f64; 5] {
    let (open, close) = (price(symbol, minute * 60_000), price(symbol, minute * 60_000 + 59_999));
    [open, open.max(close) * 1.000_1, open.min(close) * 0.999_9, close, 12.5]
}

/// A candle of `length` minutes, built from its minutes.
fn longer(symbol: &str, number: i64, length: i64) -> [f64; 5] {
    let mut minutes = (number * length..(number + 1) * length).map(|minute| candle(symbol, minute));
    let first = minutes.next().unwrap();
    minutes.fold(first, |[open, high, low, _, volume], [_, h, l, close, v]| {
        [open, high.max(h), low.min(l), close, volume + v]
    })
}

impl Venue {
    /// Starts it on free ports.
    pub fn start() -> Venue {
        let control = Arc::new(Mutex::new(Control { system: "online".to_owned(), ..Control::default() }));
        let shared = Arc::clone(&control);
        let (ports, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let ws = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let rest = TcpListener::bind("127.0.0.1:0").await.unwrap();
                ports.send((ws.local_addr().unwrap().port(), rest.local_addr().unwrap().port())).unwrap();
                let questions = Arc::clone(&shared);
                tokio::spawn(async move {
                    loop {
                        let (stream, _) = rest.accept().await.unwrap();
                        tokio::spawn(answer(stream, Arc::clone(&questions)));
                    }
                });
                loop {
                    let (stream, _) = ws.accept().await.unwrap();
                    if shared.lock().unwrap().away {
                        continue;
                    }
                    tokio::spawn(serve(stream, Arc::clone(&shared)));
                }
            });
        });
        let (ws_port, rest_port) = ready.recv().unwrap();
        Venue { control, ws_port, rest_port }
    }

    /// Changes or reads what it does.
    pub fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap()
    }

    pub fn ws_url(&self) -> String {
        format!("ws://127.0.0.1:{}/v2", self.ws_port)
    }

    pub fn rest_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rest_port)
    }

    /// The same with XRP/BTC as a third one.
    pub fn settings_of_three(&self) -> String {
        self.settings().replace("\"XRP/USDT\"]", "\"XRP/USDT\", \"XRP/BTC\"]")
    }

    /// Settings that use it, with two symbols.
    pub fn settings(&self) -> String {
        format!(
            "symbols = [\"BTC/USDT\", \"XRP/USDT\"]\n[market]\nsource = \"kraken\"\nsilence_seconds = 3\n\
             [market.kraken]\nws_url = \"{}\"\nrest_url = \"{}\"\n",
            self.ws_url(),
            self.rest_url()
        )
    }
}

fn row(symbol: &str, minute: i64) -> Value {
    let [open, high, low, close, volume] = candle(symbol, minute);
    json!({"symbol": symbol, "open": open, "high": high, "low": low, "close": close, "volume": volume, "vwap": open,
        "trades": 3, "interval_begin": Ts(minute * 60_000).to_string(), "interval": 1})
}

fn book(symbol: &str, at: i64, wrong: bool) -> String {
    let price = price(symbol, at);
    // Steps of a small price are large.
    let half = if price < 0.001 { 0.001 } else { 0.000_1 };
    let (bid, ask) = (format!("{:.8}", price * (1.0 - half)), format!("{:.8}", price * (1.0 + half)));
    let plain = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
    let digits = plain(&ask) + "150000000" + &plain(&bid) + "250000000";
    let checksum = crc32fast::hash(digits.as_bytes()) ^ u32::from(wrong);
    format!(
        r#"{{"channel":"book","type":"snapshot","data":[{{"symbol":"{symbol}","bids":[{{"price":{bid},"qty":2.50000000}}],"asks":[{{"price":{ask},"qty":1.50000000}}],"checksum":{checksum}}}]}}"#
    )
}

/// The symbol and minute of every row of candles.
fn begins(text: &str) -> Vec<(String, i64)> {
    if !text.contains("\"ohlc\"") || !text.contains("interval_begin") {
        return Vec::new();
    }
    let frame: Value = serde_json::from_str(text).unwrap();
    let row = |row: &Value| {
        let at: Ts = serde_json::from_value(row["interval_begin"].clone()).unwrap();
        (row["symbol"].as_str().unwrap().to_owned(), at.0 / 60_000)
    };
    frame["data"].as_array().unwrap().iter().map(row).collect()
}

/// One WebSocket connection.
async fn serve(stream: TcpStream, control: Arc<Mutex<Control>>) {
    let Ok(mut socket) = accept_async(stream).await else { return };
    let mut subscribed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut told = String::new();
    let mut beat = interval(Duration::from_millis(200));
    let (mut at, mut scripted_since) = (0, None);
    let kicks = {
        let mut control = control.lock().unwrap();
        control.connections += 1;
        control.kicks
    };
    loop {
        let mut out: Vec<String> = Vec::new();
        let mut dropped = false;
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                let Message::Text(text) = message else { continue };
                let asked: Value = serde_json::from_str(text.as_str()).unwrap();
                let channel = asked["params"]["channel"].as_str().unwrap().to_owned();
                let mut control = control.lock().unwrap();
                for symbol in asked["params"]["symbol"].as_array().unwrap() {
                    let symbol = symbol.as_str().unwrap();
                    if asked["method"] == "unsubscribe" {
                        out.push(json!({"method": "unsubscribe", "success": true}).to_string());
                    } else if control.refused.contains(symbol) {
                        let error = format!("Currency pair not supported {symbol}");
                        out.push(json!({"error": error, "method": "subscribe", "success": false, "symbol": symbol}).to_string());
                    } else {
                        let result = json!({"channel": channel, "symbol": symbol, "snapshot": true});
                        out.push(json!({"method": "subscribe", "result": result, "success": true}).to_string());
                        subscribed.entry(symbol.to_owned()).or_default().insert(channel.clone());
                        let frozen = control.frozen || control.frozen_symbols.contains(symbol);
                        let silent = frozen || !control.script.is_empty();
                        let has_candles = !control.untraded.contains(symbol) && !control.frozen_candles.contains(symbol);
                        if channel == "ohlc" && !silent && has_candles {
                            let minute = now() / 60_000;
                            let closed = control.snapshot_candles.unwrap_or(4);
                            let rows: Vec<Value> = (minute - closed..=minute).map(|minute| row(symbol, minute)).collect();
                            out.push(json!({"channel": "ohlc", "type": "snapshot", "data": rows}).to_string());
                        }
                        if channel == "book" && !silent {
                            let wrong = control.wrong_books > 0;
                            control.wrong_books = control.wrong_books.saturating_sub(1);
                            out.push(book(symbol, now(), wrong));
                        }
                    }
                }
                if channel == "book" && control.drops > 0 {
                    control.drops -= 1;
                    dropped = true;
                }
            }
            _ = beat.tick() => {
                let mut control = control.lock().unwrap();
                if control.kicks != kicks {
                    control.dropped += 1;
                    return;
                }
                let plays = !control.script.is_empty();
                if plays && !subscribed.is_empty() {
                    let since = i64::try_from(scripted_since.get_or_insert_with(std::time::Instant::now).elapsed().as_millis());
                    let since = u64::try_from(since.unwrap()).unwrap();
                    while let Some((_, text)) = control.script.get(at).filter(|(due, _)| *due <= since) {
                        out.push(text.clone());
                        at += 1;
                    }
                    control.scripted = control.scripted.max(at);
                }
                if !plays {
                    out.push(json!({"channel": "heartbeat"}).to_string());
                }
                if !plays && told != control.system {
                    told.clone_from(&control.system);
                    out.push(json!({"channel": "status", "type": "update", "data": [{"system": told}]}).to_string());
                }
                if !control.frozen && !plays {
                    for (symbol, channels) in &subscribed {
                        let at = now();
                        if control.frozen_symbols.contains(symbol) {
                            continue;
                        }
                        if control.untraded.contains(symbol) {
                            out.extend(channels.contains("book").then(|| book(symbol, at, false)));
                            continue;
                        }
                        if channels.contains("ticker") {
                            let last = price(symbol, at);
                            let data = json!([{"symbol": symbol, "bid": last * 0.9999, "ask": last * 1.0001, "last": last,
                                "timestamp": Ts(at).to_string()}]);
                            out.push(json!({"channel": "ticker", "type": "update", "data": data}).to_string());
                        }
                        if channels.contains("ohlc") && !control.frozen_candles.contains(symbol) {
                            let data = json!([row(symbol, at / 60_000)]);
                            out.push(json!({"channel": "ohlc", "type": "update", "data": data}).to_string());
                        }
                    }
                }
            }
        }
        for text in out {
            let minutes = begins(&text);
            if socket.send(Message::text(text)).await.is_err() {
                return;
            }
            let mut control = control.lock().unwrap();
            control.frames += 1;
            for minute in minutes {
                control.begun.entry(minute).or_insert_with(now);
            }
        }
        if dropped {
            control.lock().unwrap().dropped += 1;
            return;
        }
    }
}

/// One REST question.
async fn answer(mut stream: TcpStream, control: Arc<Mutex<Control>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let body = {
        let mut control = control.lock().unwrap();
        control.asked.push(path.clone());
        if control.too_many > 0 {
            control.too_many -= 1;
            json!({"error": ["EGeneral:Too many requests"]})
        } else if path.starts_with("/0/public/Time") {
            json!({"error": [], "result": {"unixtime": now() / 1_000 + control.ahead_s, "rfc1123": ""}})
        } else {
            ohlc(&path)
        }
    };
    let body = body.to_string();
    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    drop(stream.write_all(text.as_bytes()).await);
}

fn ohlc(path: &str) -> Value {
    let field = |name: &str| path.split(['?', '&']).find_map(|part| part.strip_prefix(name)).unwrap_or("0");
    let symbol = match field("pair=") {
        "XBTUSDT" => "BTC/USDT",
        "XRPUSDT" => "XRP/USDT",
        "XRPXBT" => "XRP/BTC",
        _ => return json!({"error": ["EQuery:Unknown asset pair"], "result": null}),
    };
    let length: i64 = field("interval=").parse().unwrap();
    let last = now() / 60_000 / length;
    let since: i64 = field("since=").parse().unwrap();
    let first = (since / 60 / length + 1).max(last - 719);
    let rows: Vec<Value> = (first..=last)
        .map(|number| {
            let [o, h, l, c, v] = longer(symbol, number, length).map(|value| value.to_string());
            json!([number * length * 60, o, h, l, c, o, v, 3])
        })
        .collect();
    json!({"error": [], "result": {"PAIR": rows, "last": (last - 1) * length * 60}})
}
