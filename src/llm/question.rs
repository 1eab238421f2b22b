//! A question to a chain of models and what comes back, as values. Nothing in an answer is ever executed, used as a key,
//! a symbol or a command (domain §3).

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{DecisionId, ModelCall, Money, RunKey, Ts};

/// One logical call, whatever number of models it takes.
#[derive(Clone)]
pub struct Question {
    /// Name in `[chains]`; empty for the probe of one provider.
    pub chain: String,
    /// Who asks, over which symbol.
    pub key: RunKey,
    /// Which part of the day's budget pays.
    pub payer: Payer,
    /// What is said.
    pub prompt: Prompt,
    /// What may come back.
    pub format: AnswerFormat,
    /// Logical instant after which nobody waits; a total, not a time between bytes.
    pub deadline: Ts,
    /// Parses, validates and grounds the text; a reply that fails it is a failure of the model, and the next one is asked.
    pub check: Check,
}

impl Question {
    /// What the events of its money are about: who asks, or a probe.
    pub fn purpose(&self) -> String {
        if self.chain.is_empty() { "probe".to_owned() } else { self.key.to_string() }
    }

    /// This call as a record keeps it; `took_ms` is logical time from the question to its end.
    pub fn call(&self, answer: &Result<Answered, Unanswered>, took_ms: i64) -> ModelCall {
        let (cost_usd, by) = match answer {
            Ok(answered) => (answered.cost_usd, Some((&answered.provider, &answered.model))),
            Err(unanswered) => {
                let last = unanswered.attempts.last().map(|last| (&last.provider, &last.model));
                (unanswered.cost_usd, last)
            }
        };
        let failure = |one: &AttemptFailure| format!("{}/{}: {}", one.provider, one.model, one.kind.name());
        ModelCall {
            model: by.map(|(provider, model)| format!("{provider}/{model}")),
            template: self.prompt.template.clone(),
            prompt_sha256: self.prompt.sha256(),
            cost_usd,
            latency_ms: took_ms,
            failures: attempts(answer).iter().map(failure).collect(),
            unasked: answer.as_ref().is_err_and(|unanswered| {
                !unanswered.kind.is_call() && unanswered.attempts.iter().all(|one| !one.kind.is_call())
            }),
        }
    }
}

/// Everyone asked in vain, in order.
pub fn attempts(answer: &Result<Answered, Unanswered>) -> &[AttemptFailure] {
    match answer {
        Ok(answered) => &answered.before,
        Err(unanswered) => &unanswered.attempts,
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (chain, key, template) = (&self.chain, self.key, &self.prompt.template);
        f.debug_struct("Question").field("chain", chain).field("key", &key).field("template", template).finish()
    }
}

/// Which part of the budget pays: decisions keep a part of the day that opinions may not use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payer {
    /// A trading decision or the conflicts it met; its own limit holds over all its calls.
    Decision(DecisionId),
    /// An opinion or a plan.
    Opinion,
}

/// A rendered prompt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prompt {
    /// Name and version of the template, for example `trading_decision@1`.
    pub template: String,
    /// Role, rules and the answer's schema.
    pub system: String,
    /// The data, all of it quoted as data.
    pub user: String,
}

impl Prompt {
    /// SHA-256 of the rendered text, hex; stored with every output made from it.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        for part in [&self.template, &self.system, &self.user] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        hex::encode(hasher.finalize())
    }

    /// Bytes of the whole prompt: no tokenizer of today's models makes more tokens of a text than it has bytes.
    pub fn bytes(&self) -> u32 {
        u32::try_from(self.system.len() + self.user.len()).unwrap_or(u32::MAX)
    }

    /// Characters of the whole prompt / 3.5, rounded up (domain §4.1). It says how much to put into a prompt; money is
    /// held for [`Prompt::bytes`], because numbers in JSON are denser.
    pub fn estimated_tokens(&self) -> u32 {
        let characters = self.system.chars().count() + self.user.chars().count();
        u32::try_from((characters * 2).div_ceil(7)).unwrap_or(u32::MAX)
    }
}

/// What may come back.
#[derive(Clone, PartialEq, Debug)]
pub struct AnswerFormat {
    /// Short name, letters, digits and underscores.
    pub name: String,
    /// JSON schema, given to providers that take one.
    pub schema: serde_json::Value,
}

/// Judges the text of a reply.
pub type Check = Arc<dyn Fn(&str) -> Result<(), Rejected> + Send + Sync>;

/// A reply that arrived and cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What is wrong with it, for people; at most a few hundred characters.
    pub detail: String,
}

/// An answer that passed its check.
#[derive(Clone, PartialEq, Debug)]
pub struct Answered {
    /// The model's text.
    pub text: String,
    /// What it thought apart from its answer, when the provider gives it.
    pub reasoning: Option<String>,
    /// Who answered.
    pub provider: String,
    /// Which model.
    pub model: String,
    /// Tokens of the prompt, as the provider counts them.
    pub input_tokens: u32,
    /// Tokens of the answer, as the provider counts them.
    pub output_tokens: u32,
    /// What this logical call cost, failed attempts included, USD.
    pub cost_usd: Money,
    /// From the question to the answer, milliseconds of logical time.
    pub took_ms: i64,
    /// Failures of models asked before this one.
    pub before: Vec<AttemptFailure>,
    /// SHA-256 of the prompt, hex.
    pub prompt_sha256: String,
}

/// No model of the chain gave a usable answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Unanswered {
    /// Every attempt, in order; none when no model was asked.
    pub attempts: Vec<AttemptFailure>,
    /// What the failed attempts cost, USD.
    pub cost_usd: Money,
    /// The last reason, or the one for asking nobody.
    pub kind: FailureKind,
}

/// One model that did not answer usably.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttemptFailure {
    /// Who was asked.
    pub provider: String,
    /// Which model.
    pub model: String,
    /// What happened.
    pub kind: FailureKind,
    /// The provider's words, shortened, without secrets.
    pub message: String,
}

/// Why a call is no answer. Every one is counted and shown; none is ever taken for HOLD.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Nothing complete within the deadline.
    Timeout,
    /// The endpoint cannot be reached, or the connection broke.
    Connection,
    /// 429.
    RateLimited,
    /// 529 or 503.
    Overloaded,
    /// Other 5xx.
    ServerError,
    /// 401 or 403.
    Authentication,
    /// 402, or a quota that is used up.
    Payment,
    /// 404: no such model or path.
    NotFound,
    /// 400 or another refusal of the request.
    BadRequest,
    /// A reply without content.
    Empty,
    /// The reply was cut at its token limit.
    Truncated,
    /// More than 256 KiB.
    TooLarge,
    /// No JSON object of the answer's form.
    Unparsable,
    /// A value outside its range or an unknown word.
    OutOfRange,
    /// A number about the market that the snapshot does not show.
    Ungrounded,
    /// Levels that do not fit the action.
    Incoherent,
    /// The provider's breaker is open; no failure of its own.
    BreakerOpen,
    /// The provider's rate is used up for longer than the deadline.
    Throttled,
    /// The budget of the day, the decision or the provider is used up.
    Budget,
    /// The model has no configured price.
    NoPrice,
    /// Replay without a recording of this request.
    NotRecorded,
    /// The degradation level forbids model calls.
    Degraded,
    /// The chain is not configured or the router is gone.
    Unavailable,
}

impl FailureKind {
    /// A call was made, whatever came of it.
    pub const fn is_call(self) -> bool {
        !matches!(
            self,
            FailureKind::BreakerOpen
                | FailureKind::Throttled
                | FailureKind::Budget
                | FailureKind::NoPrice
                | FailureKind::NotRecorded
                | FailureKind::Degraded
                | FailureKind::Unavailable
        )
    }

    /// The word of the journal and of `status`.
    pub const fn name(self) -> &'static str {
        match self {
            FailureKind::Timeout => "timeout",
            FailureKind::Connection => "connection",
            FailureKind::RateLimited => "rate_limited",
            FailureKind::Overloaded => "overloaded",
            FailureKind::ServerError => "server_error",
            FailureKind::Authentication => "authentication",
            FailureKind::Payment => "payment",
            FailureKind::NotFound => "not_found",
            FailureKind::BadRequest => "bad_request",
            FailureKind::Empty => "empty",
            FailureKind::Truncated => "truncated",
            FailureKind::TooLarge => "too_large",
            FailureKind::Unparsable => "unparsable",
            FailureKind::OutOfRange => "out_of_range",
            FailureKind::Ungrounded => "ungrounded",
            FailureKind::Incoherent => "incoherent",
            FailureKind::BreakerOpen => "breaker_open",
            FailureKind::Throttled => "throttled",
            FailureKind::Budget => "budget",
            FailureKind::NoPrice => "no_price",
            FailureKind::NotRecorded => "not_recorded",
            FailureKind::Degraded => "degraded",
            FailureKind::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_prompt_tells_its_parts_apart() {
        let prompt =
            |system: &str, user: &str| Prompt { template: "t@1".into(), system: system.into(), user: user.into() };
        assert_ne!(prompt("ab", "c").sha256(), prompt("a", "bc").sha256());
        assert_eq!(prompt("a", "b").sha256().len(), 64);
        assert_eq!(prompt("abcd", "efg").estimated_tokens(), 2);
        assert_eq!(prompt("abcd", "efgh").estimated_tokens(), 3);
        assert_eq!((prompt("é", "日").estimated_tokens(), prompt("é", "日").bytes()), (1, 5));
    }
}
