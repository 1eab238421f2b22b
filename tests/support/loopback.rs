//! A server on loopback that plays a provider of models: answers by a script, remembers what it was sent.
#![allow(dead_code, clippy::unwrap_used)] // not every test file uses everything; a failed unwrap is a failed test

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::Instant,
};

/// What one request gets.
#[derive(Clone, Debug)]
pub enum Play {
    /// A whole reply: status, extra headers, body.
    Reply(u16, Vec<(&'static str, String)>, String),
    /// A list of models for those who ask for it, this for all others.
    Listed(Box<Play>),
    /// Nothing, ever.
    Hang,
    /// A head and one byte of the body at a time, for longer than anyone waits.
    Drip,
    /// A head that promises more than comes.
    CutBody,
    /// A body of so many bytes.
    Huge(usize),
}

impl Play {
    pub fn ok(body: &str) -> Play {
        Play::Reply(200, Vec::new(), body.to_owned())
    }

    pub fn status(status: u16, body: &str) -> Play {
        Play::Reply(status, Vec::new(), body.to_owned())
    }
}

/// The server; it ends with the test's runtime.
#[derive(Clone)]
pub struct Loopback {
    pub url: String,
    seen: Rc<RefCell<Vec<(Instant, String)>>>,
    arrived: Rc<Notify>,
}

impl Loopback {
    /// Plays the script in order; its last entry is repeated.
    pub async fn start(script: Vec<Play>) -> Loopback {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, arrived) = (Rc::<RefCell<Vec<(Instant, String)>>>::default(), Rc::new(Notify::new()));
        let mut script = VecDeque::from(script);
        let (log, told) = (Rc::clone(&seen), Rc::clone(&arrived));
        actix_rt::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let play = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
                actix_rt::spawn(serve(stream, play.unwrap(), Rc::clone(&log), Rc::clone(&told)));
            }
        });
        Loopback { url, seen, arrived }
    }

    /// Heads and bodies of the requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.borrow().iter().map(|(_, request)| request.clone()).collect()
    }

    /// When each of them had arrived.
    pub fn times(&self) -> Vec<Instant> {
        self.seen.borrow().iter().map(|(at, _)| *at).collect()
    }

    /// Waits until a request arrived whole.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

async fn serve(mut stream: TcpStream, play: Play, log: Rc<RefCell<Vec<(Instant, String)>>>, told: Rc<Notify>) {
    let Some(request) = read_request(&mut stream).await else { return };
    let lists = request.starts_with("GET ");
    log.borrow_mut().push((Instant::now(), request));
    told.notify_one();
    // A client that went away is part of the play.
    let play = match play {
        Play::Listed(_) if lists => Play::ok("{\"data\":[]}"),
        Play::Listed(other) => *other,
        play => play,
    };
    let _ = answer(&mut stream, play).await;
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().filter_map(|line| line.split_once(':'));
        let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: usize = length.map(|(_, value)| value.trim().parse().unwrap()).next().unwrap_or(0);
        if body.len() >= length {
            return Some(text.into_owned());
        }
    }
}

async fn answer(stream: &mut TcpStream, play: Play) -> std::io::Result<()> {
    let head = |status: u16, length: usize, headers: &[(&str, String)]| {
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n"
        )
    };
    match play {
        Play::Reply(status, headers, body) => {
            stream.write_all(head(status, body.len(), &headers).as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
        }
        Play::Listed(_) => unreachable!("one of the others by now"),
        Play::Hang => {
            // Ends when the client gives up.
            let _more = stream.read(&mut [0; 1]).await?;
        }
        Play::Drip => {
            stream.write_all(head(200, 1_000_000, &[]).as_bytes()).await?;
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            loop {
                pace.tick().await;
                stream.write_all(b" ").await?;
            }
        }
        Play::CutBody => {
            stream.write_all(head(200, 1_000, &[]).as_bytes()).await?;
            stream.write_all(b"{\"choices\":").await?;
        }
        Play::Huge(bytes) => {
            stream.write_all(head(200, bytes, &[]).as_bytes()).await?;
            stream.write_all(&vec![b' '; bytes]).await?;
        }
    }
    stream.shutdown().await
}
