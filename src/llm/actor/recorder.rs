//! Calls over the real network while virtual time stands still: how a backtest records.
//!
//! A call runs to its end on a thread with a runtime and a clock of its own, and the actors' thread waits for it. Nothing
//! else happens meanwhile, so the paused clock, which jumps when nothing is left to do, cannot move. Calls are made one
//! after another, each within its own part of the deadline in real time.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{
    Recording,
    http::{Broken, Http, Raw},
    keys::Key,
};
use crate::{
    llm::question::{FailureKind, Rejected},
    model::{Money, Ts},
    providers::rate::{Bucket, RateLimits},
    settings::ProviderKind,
};

/// Real pause after a failure at least, if so much program time passed since, milliseconds.
const PAUSE_MS: i64 = 500;
/// Longest real pause that an endpoint may ask for, milliseconds.
const PAUSE_MAX_MS: i64 = 60_000;

/// Makes calls for a world that stands still.
pub struct Recorder {
    calls: UnboundedSender<Job>,
    began: Instant,
    most: Money,
    book: RefCell<Book>,
}

#[derive(Default)]
struct Book {
    done: Recording,
    paces: BTreeMap<String, Pace>,
}

/// One call.
pub struct Call<'a> {
    /// Who is asked.
    pub provider: &'a str,
    /// How fast it may be called, in real time as well.
    pub rate: RateLimits,
    /// Where.
    pub url: String,
    /// In which dialect.
    pub kind: ProviderKind,
    /// With which key.
    pub key: Option<&'a Key>,
    /// What is sent.
    pub body: Value,
    /// Logical time, which does not move during the call.
    pub now: Ts,
    /// What is left for it, milliseconds.
    pub left_ms: i64,
    /// What it costs at worst, USD.
    pub worst: Money,
}

/// A call on its way to the thread.
struct Job {
    url: String,
    kind: ProviderKind,
    key: Option<Key>,
    body: Value,
    wait: Duration,
    limit: Duration,
    done: mpsc::SyncSender<(Result<Raw, Broken>, Duration)>,
}

impl Recorder {
    /// Starts the thread; it ends with this value. At most `most` USD are paid.
    ///
    /// # Errors
    /// Thread, runtime or TLS could not be set up.
    pub fn start(most: Money) -> Result<Recorder, String> {
        let (calls, mut jobs) = unbounded_channel::<Job>();
        let (ready, started) = mpsc::sync_channel(1);
        let run = move || {
            let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let made = made.map_err(|error| format!("no runtime for calls: {error}"));
            match made.and_then(|runtime| Ok((runtime, Http::new()?))) {
                // Who waits for either is there; if not, nobody needs the thread.
                Err(why) => drop(ready.send(Err(why))),
                Ok((runtime, http)) => {
                    let _ = ready.send(Ok(()));
                    // The runtime runs between calls too, so that it sees connections close.
                    runtime.block_on(async {
                        while let Some(job) = jobs.recv().await {
                            let _ = job.done.send(make(&http, &job).await);
                        }
                    });
                }
            }
        };
        std::thread::Builder::new()
            .name("model calls".to_owned())
            .spawn(run)
            .map_err(|error| format!("no thread for calls: {error}"))?;
        started.recv().map_err(|_| "the thread of calls ended at once".to_owned())??;
        Ok(Recorder { calls, began: Instant::now(), most, book: RefCell::default() })
    }

    /// Makes a call; answers its end and how long it took, milliseconds. Blocks this thread. Nothing when the recording
    /// has stopped, which [`Recorder::done`] explains.
    pub fn call(&self, call: Call<'_>) -> Option<(Result<Raw, Broken>, i64)> {
        let mut book = self.book.borrow_mut();
        let spent = book.done.cost_usd;
        if book.done.stopped.is_none() && !call.worst.is_zero() && spent + call.worst > self.most {
            book.done.stopped = Some(format!(
                "cassette.max_usd = {}: {spent} USD are spent and the next call may cost {}; raise it and run again, what \
                 is recorded is not asked again",
                self.most, call.worst
            ));
        }
        if book.done.stopped.is_some() {
            book.done.left_out += 1;
            return None;
        }
        let pace = book.paces.entry(call.provider.to_owned()).or_insert_with(|| Pace::new(self.real()));
        let wait = Duration::from_millis(pace.wait_ms(call.rate, self.real(), call.now).unsigned_abs());
        let (done, ended) = mpsc::sync_channel(1);
        let job = Job {
            url: call.url,
            kind: call.kind,
            key: call.key.cloned(),
            body: call.body,
            wait,
            limit: Duration::from_millis(call.left_ms.max(0).unsigned_abs()),
            done,
        };
        let sent = self.calls.send(job).is_ok();
        let Some((reply, took)) = ended.recv().ok().filter(|_| sent) else {
            book.done.stopped = Some("the thread of calls ended, look into the log; run again".to_owned());
            book.done.left_out += 1;
            return None;
        };
        book.done.asked += 1;
        let took_ms = i64::try_from(took.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
        let asked_ms = match &reply {
            Ok(raw) if (200..300).contains(&raw.status) => None,
            Ok(raw) => Some(raw.retry_after_ms.unwrap_or(0)),
            Err(_) => Some(0),
        };
        let trouble = asked_ms.map(|asked_ms| Trouble {
            real: self.real(),
            logical: call.now.plus_ms(took_ms),
            pause_ms: asked_ms.clamp(PAUSE_MS, PAUSE_MAX_MS),
        });
        if let Some(pace) = book.paces.get_mut(call.provider) {
            pace.trouble = trouble;
        }
        Some((reply, took_ms))
    }

    /// A call was taken from what is recorded already.
    pub fn known(&self) {
        self.book.borrow_mut().done.known += 1;
    }

    /// What a call cost.
    pub fn paid(&self, cost: Money) {
        self.book.borrow_mut().done.cost_usd += cost;
    }

    /// Nobody is asked any more; the first reason stays.
    pub fn stop(&self, why: String) {
        let mut book = self.book.borrow_mut();
        book.done.left_out += 1;
        book.done.stopped.get_or_insert(why);
    }

    /// What was done so far.
    pub fn done(&self) -> Recording {
        self.book.borrow().done.clone()
    }

    /// Real time as an instant of its own.
    fn real(&self) -> Ts {
        Ts(i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

async fn make(http: &Http, job: &Job) -> (Result<Raw, Broken>, Duration) {
    tokio::time::sleep(job.wait).await;
    let from = Instant::now();
    let call = http.post(&job.url, job.kind, job.key.as_ref(), &job.body);
    match tokio::time::timeout(job.limit, call).await {
        Ok(reply) => (reply, from.elapsed()),
        Err(_) => {
            let why = Rejected { kind: FailureKind::Timeout, detail: String::new() };
            (Err(Broken { why, unsent: false }), from.elapsed().max(job.limit))
        }
    }
}

/// How fast one endpoint is called in real time: virtual hours pass in a moment, the endpoint's minutes do not.
struct Pace {
    bucket: Bucket,
    trouble: Option<Trouble>,
}

/// The newest call failed.
struct Trouble {
    real: Ts,
    logical: Ts,
    pause_ms: i64,
}

impl Pace {
    const fn new(real: Ts) -> Pace {
        Pace { bucket: Bucket::full(real), trouble: None }
    }

    /// How long the next call must wait in real time, milliseconds: for the rate, and after a failure as long as the
    /// program waited in its own time, up to the pause.
    fn wait_ms(&mut self, rate: RateLimits, real: Ts, logical: Ts) -> i64 {
        let owed = self.trouble.as_ref().map_or(0, |trouble| {
            logical.since_ms(trouble.logical).clamp(0, trouble.pause_ms) - real.since_ms(trouble.real)
        });
        let mut at = real.plus_ms(owed.max(0));
        while let Err(later) = self.bucket.take(rate, at) {
            at = later;
        }
        at.since_ms(real)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_called_no_faster_in_real_time_than_its_rate_and_its_failures_allow() {
        let rate = RateLimits { calls_per_minute: 60, burst: 2 };
        let mut pace = Pace::new(Ts(0));
        let hour = |n: i64| Ts(n * 3_600_000);
        assert_eq!([1, 2, 3, 4].map(|n| pace.wait_ms(rate, Ts(0), hour(n))), [0, 0, 1000, 2000]);
        let mut pace = Pace::new(Ts(0));
        pace.trouble = Some(Trouble { real: Ts(100), logical: hour(1), pause_ms: 700 });
        assert_eq!(pace.wait_ms(rate, Ts(110), hour(1).plus_ms(300)), 290, "as long as the program waited");
        assert_eq!(pace.wait_ms(rate, Ts(110), hour(2)), 690, "the pause at most");
        assert_eq!(pace.wait_ms(rate, Ts(9_000), hour(2)), 0, "it is over");
    }

    #[test]
    fn no_more_is_paid_than_allowed_and_the_reason_stays() {
        let recorder = Recorder::start(Money::ONE).unwrap();
        let call = |worst| Call {
            provider: "p",
            rate: RateLimits { calls_per_minute: 60, burst: 2 },
            url: "http://127.0.0.1:1/x".to_owned(),
            kind: ProviderKind::Ollama,
            key: None,
            body: Value::Null,
            now: Ts(0),
            left_ms: 30_000,
            worst,
        };
        let (reply, _) = recorder.call(call(Money::ONE)).unwrap();
        assert!(reply.unwrap_err().unsent, "nobody listens there");
        recorder.paid("0.4".parse().unwrap());
        assert!(recorder.call(call("0.7".parse().unwrap())).is_none());
        assert!(recorder.call(call(Money::ZERO)).is_none(), "a recording that has stopped stays so");
        let done = recorder.done();
        assert_eq!((done.asked, done.left_out), (1, 2));
        let words = done.stopped.unwrap();
        assert!(words.contains("cassette.max_usd = 1: 0.4 USD") && words.contains("0.7"), "{words}");
    }
}
