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
}

/// The running venue; it ends with the process of the test.
#[derive(Clone)]
pub struct Venue {
    control: Arc<Mutex<Control>>,
    ws_port: u16,
    rest_port: u16,
}

fn now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn base(symbol: &str) -> f64 {
    match symbol {
        "BTC/USDT" => 40_000.0,
        "XRP/USDT" => 0.6,
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
    let (bid, ask) = (format!("{:.5}", price * 0.999_9), format!("{:.5}", price * 1.000_1));
    let plain = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
    let digits = plain(&ask) + "150000000" + &plain(&bid) + "250000000";
    let checksum = crc32fast::hash(digits.as_bytes()) ^ u32::from(wrong);
    format!(
        r#"{{"channel":"book","type":"snapshot","data":[{{"symbol":"{symbol}","bids":[{{"price":{bid},"qty":2.50000000}}],"asks":[{{"price":{ask},"qty":1.50000000}}],"checksum":{checksum}}}]}}"#
    )
}

/// One WebSocket connection.
async fn serve(stream: TcpStream, control: Arc<Mutex<Control>>) {
    let Ok(mut socket) = accept_async(stream).await else { return };
    let mut subscribed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut told = String::new();
    let mut beat = interval(Duration::from_millis(200));
    control.lock().unwrap().connections += 1;
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
                        if channel == "ohlc" && !control.frozen {
                            let minute = now() / 60_000;
                            let rows: Vec<Value> = (minute - 4..=minute).map(|minute| row(symbol, minute)).collect();
                            out.push(json!({"channel": "ohlc", "type": "snapshot", "data": rows}).to_string());
                        }
                        if channel == "book" && !control.frozen {
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
                let control = control.lock().unwrap();
                out.push(json!({"channel": "heartbeat"}).to_string());
                if told != control.system {
                    told.clone_from(&control.system);
                    out.push(json!({"channel": "status", "type": "update", "data": [{"system": told}]}).to_string());
                }
                if !control.frozen {
                    for (symbol, channels) in &subscribed {
                        let at = now();
                        if channels.contains("ticker") {
                            let last = price(symbol, at);
                            let data = json!([{"symbol": symbol, "bid": last * 0.9999, "ask": last * 1.0001, "last": last,
                                "timestamp": Ts(at).to_string()}]);
                            out.push(json!({"channel": "ticker", "type": "update", "data": data}).to_string());
                        }
                        if channels.contains("ohlc") {
                            let data = json!([row(symbol, at / 60_000)]);
                            out.push(json!({"channel": "ohlc", "type": "update", "data": data}).to_string());
                        }
                    }
                }
            }
        }
        for text in out {
            if socket.send(Message::text(text)).await.is_err() {
                return;
            }
        }
        if dropped {
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
        _ => return json!({"error": ["EQuery:Unknown asset pair"], "result": null}),
    };
    let last = now() / 60_000;
    let since: i64 = field("since=").parse().unwrap();
    let first = (since / 60 + 1).max(last - 719);
    let rows: Vec<Value> = (first..=last)
        .map(|minute| {
            let [o, h, l, c, v] = candle(symbol, minute).map(|value| value.to_string());
            json!([minute * 60, o, h, l, c, o, v, 3])
        })
        .collect();
    json!({"error": [], "result": {"PAIR": rows, "last": (last - 1) * 60}})
}
