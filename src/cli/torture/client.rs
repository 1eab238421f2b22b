//! The client under torture: posts operator commands with idempotency keys while the program lives, looks at its status,
//! and remembers every answer. After a restart it asks a sample of its keys again: the answers must be the same.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use reqwest::blocking::Client;

use crate::{
    api::auth,
    coordinator::status::Status,
    model::{Command, CommandAnswer, Ts, time::HOUR_MS},
    store::oracle::Ack,
};

/// Between two tries to reach a program that does not answer yet.
const RETRY: Duration = Duration::from_millis(3);
/// Keys are remembered for 24 hours of program time; older ones are not asked again.
const ASK_AGAIN_MS: i64 = 20 * HOUR_MS;
/// Keys asked again after a restart, at most.
const SAMPLE: usize = 4;

/// A command that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) key: String,
    pub(super) command: Command,
    /// Program time of the newest status before it.
    pub(super) at: Ts,
    /// Absent: the connection broke before an answer.
    pub(super) answer: Option<CommandAnswer>,
}

/// What one life of the program told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) acks: Vec<Ack>,
    pub(super) sent: Vec<Sent>,
    /// Anything at all was answered.
    pub(super) answered: bool,
    pub(super) commands: u64,
    pub(super) repeated: u64,
    /// An answer that must not be.
    pub(super) wrong: Option<String>,
}

/// One client for one life of the program.
pub(super) struct Caller<'a> {
    pub(super) http: &'a Client,
    pub(super) port: u16,
    pub(super) token_file: PathBuf,
    /// Part of every key: lane, store and cycle.
    pub(super) name: String,
    pub(super) rng: ChaCha8Rng,
    /// Sent to earlier lives of the same store.
    pub(super) earlier: &'a [Sent],
}

/// What a post came back with.
enum Reply {
    Answer(CommandAnswer),
    /// The program refuses to say: nothing is acknowledged.
    Unavailable,
    /// The key is said to be used with another body.
    KeyReused,
}

impl Caller<'_> {
    /// Talks until `stop` is set or the program is gone.
    pub(super) fn talk(mut self, stop: &AtomicBool) -> Told {
        let mut told = Told::default();
        let Some((token, first)) = self.reach(stop) else { return told };
        told.answered = true;
        note(&first, &mut told.acks);
        let mut status = first;
        if self.ask_again(&token, &status, &mut told).is_none() {
            return told;
        }
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) && told.wrong.is_none() {
            if self.rng.random_ratio(1, 4) {
                let Some(fresh) = self.status(&token) else { break };
                note(&fresh, &mut told.acks);
                status = fresh;
                continue;
            }
            let command = draw(&mut self.rng, &status);
            number += 1;
            let mut sent = Sent { key: format!("{}-{number}", self.name), command, at: status.now, answer: None };
            let reply = self.post(&token, &sent);
            if let Some(reply) = &reply {
                take(reply, &mut sent, &mut told);
            }
            told.sent.push(sent);
            if reply.is_none() {
                break;
            }
        }
        told
    }

    /// Waits for the first status. The token file is made at the first start.
    fn reach(&self, stop: &AtomicBool) -> Option<(String, Status)> {
        while !stop.load(Ordering::Relaxed) {
            if let Ok(token) = auth::read(&self.token_file)
                && let Some(status) = self.status(&token)
            {
                return Some((token, status));
            }
            std::thread::park_timeout(RETRY);
        }
        None
    }

    /// Keys of earlier lives: the answered ones must be answered the same, the others now or never again.
    fn ask_again(&mut self, token: &str, status: &Status, told: &mut Told) -> Option<()> {
        let young = |sent: &&Sent| status.now.since_ms(sent.at) < ASK_AGAIN_MS;
        let young: Vec<Sent> = self.earlier.iter().filter(young).cloned().collect();
        let sample: Vec<Sent> = young.choose_multiple(&mut self.rng, SAMPLE).cloned().collect();
        for mut sent in sample {
            let before = sent.answer.take();
            let reply = self.post(token, &sent)?;
            take(&reply, &mut sent, told);
            match (&before, &sent.answer) {
                (Some(before), Some(now)) if before != now => {
                    let key = &sent.key;
                    told.wrong = Some(format!("key {key} was answered with {before:?}, and after a restart {now:?}"));
                }
                (Some(_), Some(_)) => told.repeated += 1,
                _ => {}
            }
            told.sent.push(sent);
        }
        Some(())
    }

    fn status(&self, token: &str) -> Option<Status> {
        let url = format!("http://127.0.0.1:{}/v1/status", self.port);
        let answer = self.http.get(url).bearer_auth(token).send().ok()?;
        if answer.status().is_success() { answer.json().ok() } else { None }
    }

    fn post(&self, token: &str, sent: &Sent) -> Option<Reply> {
        let url = format!("http://127.0.0.1:{}/v1/commands", self.port);
        let request = self.http.post(url).bearer_auth(token).header("X-Triplegain", "1");
        let answer = request.header("Idempotency-Key", &sent.key).json(&sent.command).send().ok()?;
        let body: serde_json::Value = answer.json().ok()?;
        if body["error"]["code"] == "key_reused" {
            return Some(Reply::KeyReused);
        }
        Some(serde_json::from_value(body).map_or(Reply::Unavailable, Reply::Answer))
    }
}

fn take(reply: &Reply, sent: &mut Sent, told: &mut Told) {
    match reply {
        Reply::Answer(answer) => {
            sent.answer = Some(answer.clone());
            told.commands += 1;
            told.acks.push(Ack::Command { key: sent.key.clone(), answer: answer.clone() });
        }
        Reply::KeyReused => {
            told.wrong = Some(format!("key {} is said to be used with another body; it was not", sent.key));
        }
        Reply::Unavailable => {}
    }
}

/// Everything a status shows is durable: plans, legs, orders, and the newest record.
fn note(status: &Status, acks: &mut Vec<Ack>) {
    if status.journal.seq > 0 {
        acks.push(Ack::Record { seq: status.journal.seq, hash: status.journal.hash.clone() });
    }
    let keyed = |text: &str, state: Option<&str>, filled| {
        Some(Ack::Trade { key: text.parse().ok()?, state: state.map(str::to_owned), filled })
    };
    acks.extend(status.orders.iter().filter_map(|o| keyed(&o.trade_key, Some(&o.state), o.filled)));
    acks.extend(status.scheduled.iter().filter_map(|leg| keyed(&leg.trade_key, None, rust_decimal::Decimal::ZERO)));
    let plan = status.scheduled.first().and_then(|leg| leg.plan.parse().ok());
    acks.extend(plan.map(|id| Ack::Plan { id }));
}

/// The next command: a paused or halted program is mostly led back, so that there is something to kill.
fn draw(rng: &mut ChaCha8Rng, status: &Status) -> Command {
    let reason = || "torture".to_owned();
    if let Some(halt_id) = &status.halt_id
        && rng.random_ratio(2, 3)
    {
        return Command::Reset { halt_id: halt_id.clone() };
    }
    if status.state != "RUNNING" && rng.random_ratio(2, 3) {
        return Command::Resume {};
    }
    let task = status.tasks.choose(rng).map(|task| (task.task.name().to_owned(), task.symbol.to_string()));
    let leg = status.scheduled.choose(rng);
    match (rng.random_range(0..100), task, leg) {
        (0..=7, _, _) => Command::Pause { reason: reason() },
        (8..=27, _, _) => Command::Resume {},
        (28..=29, _, _) => Command::Halt { reason: reason() },
        (30..=39, _, _) => Command::CloseAll { reason: reason() },
        (40..=47, _, Some(leg)) => Command::CancelScheduled { id: leg.trade_key.clone() },
        (48..=49, _, Some(leg)) => Command::CancelScheduled { id: leg.plan.clone() },
        (50..=54, Some((task, _)), _) => Command::EnableTask { task },
        (55..=57, Some(_), _) => Command::DisableTask { task: "technical_analysis".to_owned() },
        (_, Some((task, symbol)), _) => Command::RunTask { task, symbol },
        _ => Command::Resume {},
    }
}
