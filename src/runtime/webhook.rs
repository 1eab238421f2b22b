//! Lines for people, posted to an address outside of this machine: one at a time, each with a deadline and a few tries.
//! Whoever has a line leaves it here and goes on; a slow or dead address costs lines, which are counted, and nothing else.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use reqwest::{Client, StatusCode, Url, redirect};
use serde::Serialize;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::task;
use crate::model::Ts;

/// Lines that wait at most; the oldest goes first.
const QUEUE_MAX: usize = 256;
/// One line is posted so often before it is dropped.
const TRIES: u32 = 3;
/// After a panic of the sender, before it begins again.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// One line, as it is posted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// What happened: the kind of record, or the name of the note.
    pub what: String,
    /// `info`, `warning` or `error`.
    pub level: &'static str,
    /// Program time.
    pub at: Ts,
    /// Its number in the journal.
    pub seq: u64,
    /// The line of the log.
    pub text: String,
}

/// What became of the lines since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Taken by the address.
    pub sent: u64,
    /// Given up, or pushed out of the queue by newer ones.
    pub dropped: u64,
    /// On their way.
    pub waiting: u64,
    /// Why the newest line could not be posted; absent when it was.
    pub failing: Option<String>,
}

/// How long a line may take.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// For one try.
    patience: Duration,
    /// The first wait between two tries; doubled after.
    wait: Duration,
}

const PACE: Pace = Pace { patience: Duration::from_secs(10), wait: Duration::from_secs(1) };

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Line>,
    under_way: bool,
    counts: Counts,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    url: Url,
    pace: Pace,
    state: RefCell<State>,
    arrived: Notify,
    ended: Notify,
}

/// The address and what waits for it; all on one thread.
#[derive(Clone, Debug)]
pub struct Webhook(Rc<Inner>);

/// Why a line was not taken.
struct Failed {
    why: String,
    /// The same may be taken later.
    may_pass: bool,
}

impl Webhook {
    /// Starts the sender on this thread.
    ///
    /// # Errors
    /// TLS could not be set up.
    pub fn start(url: Url) -> Result<Webhook, String> {
        Webhook::start_with(url, PACE)
    }

    fn start_with(url: Url, pace: Pace) -> Result<Webhook, String> {
        let builder =
            Client::builder().timeout(pace.patience).redirect(redirect::Policy::none()).user_agent("triplegain");
        let client = builder.build().map_err(|error| format!("the HTTP client cannot be made: {error}"))?;
        let (arrived, ended) = (Notify::new(), Notify::new());
        let hook = Webhook(Rc::new(Inner { client, url, pace, state: RefCell::default(), arrived, ended }));
        let sender = hook.clone();
        // It ends with the thread it runs on.
        drop(task::owned(async move {
            loop {
                let ended = task::owned(sender.clone().send_all()).await;
                tracing::error!("the sender of notifications ended ({ended:?}); it is begun again");
                sleep(AFTER_PANIC).await;
            }
        }));
        Ok(hook)
    }

    /// Leaves a line to be posted; never waits.
    pub fn offer(&self, line: Line) {
        let mut state = self.0.state.borrow_mut();
        state.queue.push_back(line);
        if state.queue.len() > QUEUE_MAX {
            state.queue.pop_front();
            state.counts.dropped += 1;
        }
        self.0.arrived.notify_one();
    }

    /// What became of the lines.
    pub fn counts(&self) -> Counts {
        let state = self.0.state.borrow();
        let waiting = state.queue.len() as u64 + u64::from(state.under_way);
        Counts { waiting, ..state.counts.clone() }
    }

    /// Waits until nothing is on its way, for so long at most.
    pub async fn flush(&self, within: Duration) {
        let empty = async {
            while self.counts().waiting > 0 {
                self.0.ended.notified().await;
            }
        };
        // What is left is lost with the process.
        let _ = timeout(within, empty).await;
    }

    async fn send_all(self) {
        self.0.state.borrow_mut().under_way = false;
        loop {
            let next = {
                let mut state = self.0.state.borrow_mut();
                let next = state.queue.pop_front();
                state.under_way = next.is_some();
                next
            };
            match next {
                Some(line) => {
                    let outcome = self.send(&line).await;
                    self.note(outcome);
                }
                None => self.0.arrived.notified().await,
            }
        }
    }

    fn note(&self, outcome: Result<(), String>) {
        let mut state = self.0.state.borrow_mut();
        state.under_way = false;
        match &outcome {
            Ok(()) => state.counts.sent += 1,
            Err(_) => state.counts.dropped += 1,
        }
        let before = std::mem::replace(&mut state.counts.failing, outcome.err());
        match (&before, &state.counts.failing) {
            (None, Some(why)) => {
                tracing::warn!(
                    "notify.webhook_url_file: its address takes no notification ({why}); later ones are tried"
                );
            }
            (Some(_), None) => tracing::info!("notify.webhook_url_file: its address takes notifications again"),
            _ => {}
        }
        self.0.ended.notify_one();
    }

    async fn send(&self, line: &Line) -> Result<(), String> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.post(line).await {
                Ok(()) => return Ok(()),
                Err(failed) if !failed.may_pass || tries >= TRIES => return Err(failed.why),
                Err(_) => sleep(self.0.pace.wait * (1 << (tries - 1))).await,
            }
        }
    }

    async fn post(&self, line: &Line) -> Result<(), Failed> {
        // Without the address, which may carry a token.
        let unreached = |error: reqwest::Error| Failed { why: error.without_url().to_string(), may_pass: true };
        let answer = self.0.client.post(self.0.url.clone()).json(line).send().await.map_err(unreached)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let may_pass =
            status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(Failed { why: format!("HTTP {status}"), may_pass })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const QUICK: Pace = Pace { patience: Duration::from_secs(60), wait: Duration::from_millis(1) };

    fn line(seq: u64) -> Line {
        Line { what: "feed_frozen".to_owned(), level: "warning", at: Ts(0), seq, text: format!("line {seq}") }
    }

    /// Answers with these statuses in turn, the last one again and again, or never with none; gives what it was sent.
    async fn server(statuses: Vec<u16>) -> (Url, Rc<RefCell<Vec<Value>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/hook/token", listener.local_addr().unwrap())).unwrap();
        let seen = Rc::<RefCell<Vec<Value>>>::default();
        let log = seen.clone();
        actix_rt::spawn(async move {
            let (mut held, mut turn) = (Vec::new(), 0);
            while let Ok((mut stream, _)) = listener.accept().await {
                let posted = body(&mut stream).await;
                log.borrow_mut().push(posted);
                let Some(status) = statuses.get(turn).or(statuses.last()) else {
                    held.push(stream);
                    continue;
                };
                turn += 1;
                let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        (url, seen)
    }

    async fn body(stream: &mut TcpStream) -> Value {
        let (mut all, mut part) = (Vec::new(), [0; 4_096]);
        loop {
            let count = stream.read(&mut part).await.unwrap();
            all.extend_from_slice(&part[..count]);
            let text = String::from_utf8_lossy(&all).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("POST /hook/token HTTP/1.1"), "{head}");
                if let Ok(value) = serde_json::from_str(body) {
                    return value;
                }
            }
        }
    }

    async fn sent(hook: &Webhook) -> Counts {
        hook.flush(Duration::from_secs(60)).await;
        hook.counts()
    }

    #[actix_rt::test]
    async fn a_line_is_posted_once_as_json_and_tried_again_when_that_may_help() {
        let (url, seen) = server(vec![200, 500, 429, 200]).await;
        let hook = Webhook::start_with(url, QUICK).unwrap();
        hook.offer(line(7));
        hook.offer(line(8));
        assert_eq!(sent(&hook).await, Counts { sent: 2, ..Counts::default() });
        let posted: Vec<u64> = seen.borrow().iter().map(|line| line["seq"].as_u64().unwrap()).collect();
        assert_eq!(posted, [7, 8, 8, 8]);
        let first =
            serde_json::json!({"what": "feed_frozen", "level": "warning", "at": Ts(0), "seq": 7, "text": "line 7"});
        assert_eq!(seen.borrow()[0], first);
    }

    #[actix_rt::test]
    async fn a_line_is_dropped_after_three_tries_or_a_refusal_and_the_next_one_is_tried() {
        let (url, seen) = server(vec![500, 502, 503, 404, 200]).await;
        let hook = Webhook::start_with(url, QUICK).unwrap();
        hook.offer(line(1));
        let counts = sent(&hook).await;
        assert_eq!((counts.sent, counts.dropped, seen.borrow().len()), (0, 1, 3));
        assert!(counts.failing.is_some_and(|why| why.contains("503")));
        hook.offer(line(2));
        assert_eq!((sent(&hook).await.dropped, seen.borrow().len()), (2, 4), "404 is final");
        hook.offer(line(3));
        assert_eq!(sent(&hook).await, Counts { sent: 1, dropped: 2, ..Counts::default() });
    }

    #[actix_rt::test]
    async fn a177_a_sink_that_hangs_holds_nobody_up_and_what_does_not_fit_is_counted() {
        let (url, seen) = server(vec![]).await;
        let hook = Webhook::start_with(url, QUICK).unwrap();
        hook.offer(line(0));
        while seen.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        (1..=300).for_each(|seq| hook.offer(line(seq)));
        let counts = hook.counts();
        assert_eq!((counts.waiting, counts.dropped, counts.sent), (QUEUE_MAX as u64 + 1, 300 - QUEUE_MAX as u64, 0));
        let newest = hook.0.state.borrow().queue.back().map(|line| line.seq);
        assert_eq!(newest, Some(300), "the oldest went first");
        hook.flush(Duration::ZERO).await;
    }

    #[actix_rt::test]
    async fn a177_each_try_at_a_hung_sink_ends_and_the_third_is_the_last() {
        let (url, seen) = server(vec![]).await;
        let quick = Pace { patience: Duration::from_millis(50), ..QUICK };
        let hook = Webhook::start_with(url, quick).unwrap();
        hook.offer(line(1));
        let counts = sent(&hook).await;
        assert_eq!((counts.sent, counts.dropped, seen.borrow().len()), (0, 1, 3));
        let why = counts.failing.unwrap();
        assert!(!why.contains("token"), "the address is never told: {why}");
    }
}
