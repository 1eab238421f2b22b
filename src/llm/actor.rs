//! The router of models as an actor, and the messages around it.

mod call;
pub mod http;
pub mod keys;
mod probe;
pub mod recorder;
pub mod router;
pub mod shared;
pub mod tape;

use std::collections::BTreeMap;

use actix::{Message, Recipient};
use serde::{Deserialize, Serialize};

use super::question::{Answered, FailureKind, Question, Unanswered};
use crate::{
    model::{Clock, Money, Ts},
    runtime::clock::LogicalClock,
};

/// Asks the models of a chain, one after another, until one gives an answer that passes the question's own check.
#[derive(Message, Clone)]
#[rtype(result = "Result<Answered, Unanswered>")]
pub struct AskModel(pub Question);

/// How long after its deadline a question is given up, milliseconds: the router ends it in time and says what happened,
/// unless it hangs itself.
pub const PATIENCE_MS: i64 = 250;

/// Whoever answers questions to models; nobody, when no chain is configured.
#[derive(Clone, Default)]
pub struct Models(Option<(Recipient<AskModel>, LogicalClock)>);

impl Models {
    /// Asks through `router`, whose deadlines are of this clock.
    pub const fn through(router: Recipient<AskModel>, clock: LogicalClock) -> Models {
        Models(Some((router, clock)))
    }

    /// Asks a chain. Without a router, or with one that ended before it answered, nobody was available; nobody waits
    /// longer than [`PATIENCE_MS`] after the question's deadline, whatever the router does.
    ///
    /// # Errors
    /// No model of the chain gave a usable answer in time.
    pub async fn ask(&self, question: Question) -> Result<Answered, Unanswered> {
        let nobody = |kind| Err(Unanswered { attempts: Vec::new(), cost_usd: Money::ZERO, kind });
        let Some((router, clock)) = &self.0 else { return nobody(FailureKind::Unavailable) };
        let until = question.deadline.plus_ms(PATIENCE_MS);
        tokio::select! {
            biased;
            reply = router.send(AskModel(question)) => reply.unwrap_or_else(|_| nobody(FailureKind::Unavailable)),
            () = clock.sleep_until(until) => nobody(FailureKind::Timeout),
        }
    }

    /// The logical time, after an answer was waited for; `known` where nobody can be asked, because then no time passed.
    pub fn now_or(&self, known: Ts) -> Ts {
        self.0.as_ref().map_or(known, |(_, clock)| clock.now())
    }
}

/// What came of one logical call, for the degradation level of the capability `llm`.
#[derive(Message, Clone, PartialEq, Eq, Debug)]
#[rtype(result = "()")]
pub struct ModelOutcome {
    /// A usable answer, or the incident: provider and cause of the last failure.
    pub result: Result<(), String>,
    /// A provider's breaker is open.
    pub strained: bool,
}

/// Asks how the providers are.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Vec<ProviderStatus>")]
pub struct ReadModels;

/// Asks what a recording in virtual time did; nothing when none is made.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Option<Recording>")]
pub struct ReadRecording;

/// What a recording in virtual time did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Recording {
    /// Calls that were made and kept.
    pub asked: u64,
    /// Calls taken from what was recorded before.
    pub known: u64,
    /// USD of the calls that were made.
    pub cost_usd: Money,
    /// Calls that were not made or not kept because it stopped.
    pub left_out: u64,
    /// Why it stopped and what to do; absent while it goes on.
    pub stopped: Option<String>,
}

impl Recording {
    /// Why it stopped and what to do, for people; none when it did not.
    pub fn words(&self) -> Option<String> {
        let why = self.stopped.as_ref()?;
        Some(format!("the recording stopped and {} calls were left out: {why}", self.left_out))
    }
}

/// Asks which questions a replay could not answer.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Misses")]
pub struct ReadMisses;

/// Questions no model of whose chain was recorded.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Misses {
    /// All of them.
    pub count: u64,
    /// The first ones, at most [`MISSES_KEPT`].
    pub first: Vec<Miss>,
}

impl Misses {
    /// Everything was recorded.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What is missing and what to do, for people; none when nothing is.
    pub fn words(&self) -> Option<String> {
        let Miss { key, template, model, file } = self.first.first()?;
        Some(format!(
            "{} questions to models are not in the recording, so this is not what the models would have done; the first: \
             {template} of {key} to {model}, file {file}; record them, or replay the recording of these candles and \
             settings",
            self.count
        ))
    }
}

/// How many unrecorded questions are kept for the report.
pub const MISSES_KEPT: usize = 1_000;

/// One question that was not recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Miss {
    /// Who asked, over which symbol.
    pub key: String,
    /// Template of the prompt, `name@version`.
    pub template: String,
    /// The first model of its chain, `provider/model`.
    pub model: String,
    /// The file that would hold its reply.
    pub file: String,
}

/// One provider, for `status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProviderStatus {
    /// Its name in the settings.
    pub provider: String,
    /// Its dialect.
    pub kind: String,
    /// `closed`, `open until …`, `half-open` or `locked`.
    pub breaker: String,
    /// Attempts since the start of the process.
    pub calls: u64,
    /// Failed ones by kind, since the start of the process.
    pub failures: BTreeMap<String, u64>,
    /// USD of this UTC day, what is held included.
    pub spent_today_usd: Money,
    /// USD held by calls under way or lost in a crash.
    pub reserved_usd: Money,
    /// Why it has no key; absent when it has one or needs none.
    pub key_problem: Option<String>,
}
