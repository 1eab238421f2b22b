//! One attempt: from the recording, or over the network and into the recording.
//!
//! What is recorded is judged in the form in which it is kept, and waited for as long as it took: a recording run and its
//! replays see the same.

use std::rc::Rc;

use super::{
    http::{Broken, Http, Raw},
    recorder,
    shared::{Endpoint, Shared},
};
use crate::{
    llm::{
        cassette::{self, Attempt, Outcome, Recorded},
        question::{Question, Rejected},
        wire,
    },
    model::{Clock, Money, Ts},
    settings::ModelSettings,
};

/// One model of a chain and its part of the time.
pub(super) struct Turn<'a> {
    pub endpoint: Rc<Endpoint>,
    pub model: &'a str,
    pub settings: ModelSettings,
    pub until: Ts,
}

/// What came of an attempt.
pub(super) struct Made {
    pub reply: Result<Raw, Broken>,
    /// It was made now by a recording in virtual time, and what it cost is this recording's.
    pub recorded: bool,
}

/// Makes an attempt that costs `worst` USD at worst.
pub(super) async fn call(shared: &Rc<Shared>, question: &Question, turn: &Turn<'_>, worst: Money) -> Made {
    let kind = turn.endpoint.settings.kind;
    let sha = cassette::request_sha256(kind, turn.model, &turn.settings, &question.prompt, &question.format);
    let recorder = shared.http.as_ref().and_then(Http::recorder);
    if let Some(known) = shared.tape.next(&sha) {
        recorder.inspect(|recorder| recorder.known());
        return Made { reply: play(shared, known, turn.until).await, recorded: false };
    }
    let missing = || Made { reply: Err(Broken { why: shared.tape.miss(&sha), unsent: true }), recorded: false };
    let Some(http) = shared.http.as_ref() else { return missing() };
    let request = Recorded {
        version: cassette::VERSION,
        request_sha256: sha.clone(),
        kind: kind.name().to_owned(),
        model: turn.model.to_owned(),
        template: question.prompt.template.clone(),
        attempts: Vec::new(),
    };
    let Some(recorder) = recorder else {
        let called_at = shared.clock.now();
        let reply = wire(shared, question, turn, http).await;
        if !shared.tape.records() {
            return Made { reply, recorded: false };
        }
        let attempt = attempt(turn, reply, shared.clock.now().since_ms(called_at));
        let written = if http.is_wire() {
            shared.tape.keep_beside(request, attempt.clone()).await
        } else {
            shared.tape.keep(request, attempt.clone())
        };
        // A call that is not recorded is still an answer; the replay will name what is missing.
        if let Err(error) = written {
            tracing::error!(%error, "a model call could not be recorded");
        }
        return Made { reply: raw(attempt.outcome), recorded: false };
    };
    let now = shared.clock.now();
    let made = recorder.call(recorder::Call {
        provider: &turn.endpoint.name,
        rate: turn.endpoint.rate(),
        url: url(turn),
        kind,
        key: turn.endpoint.key.as_ref().ok().and_then(Option::as_ref),
        body: wire::body(kind, turn.model, &turn.settings, &question.prompt, &question.format),
        now,
        left_ms: turn.until.since_ms(now),
        worst,
    });
    let Some((reply, took_ms)) = made else { return missing() };
    let attempt = attempt(turn, reply, took_ms);
    if let Err(error) = shared.tape.keep(request, attempt.clone()) {
        // Not kept is not known: this run ends as its replay would.
        recorder.stop(format!("a call could not be kept: {error}"));
        return missing();
    }
    Made { reply: play(shared, attempt, turn.until).await, recorded: true }
}

fn url(turn: &Turn<'_>) -> String {
    format!("{}{}", turn.endpoint.settings.endpoint(), wire::path(turn.endpoint.settings.kind))
}

/// Over the network, within its part of logical time.
async fn wire(shared: &Rc<Shared>, question: &Question, turn: &Turn<'_>, http: &Http) -> Result<Raw, Broken> {
    let kind = turn.endpoint.settings.kind;
    let body = wire::body(kind, turn.model, &turn.settings, &question.prompt, &question.format);
    let key = turn.endpoint.key.as_ref().ok().and_then(Option::as_ref);
    let url = url(turn);
    tokio::select! {
        biased;
        reply = http.post(&url, kind, key, &body) => reply,
        () = shared.clock.sleep_until(turn.until) => raw(Outcome::timeout()),
    }
}

/// Lets the time pass that an attempt took, as far as its part goes.
async fn play(shared: &Rc<Shared>, attempt: Attempt, until: Ts) -> Result<Raw, Broken> {
    let now = shared.clock.now();
    let attempt = attempt.within(until.since_ms(now));
    shared.clock.sleep_until(now.plus_ms(attempt.took_ms)).await;
    raw(attempt.outcome)
}

/// What is kept: without the key, should the endpoint have repeated it.
fn attempt(turn: &Turn<'_>, reply: Result<Raw, Broken>, took_ms: i64) -> Attempt {
    let clean = |text: &str| match &turn.endpoint.key {
        Ok(Some(key)) => key.redact(text),
        _ => text.to_owned(),
    };
    let outcome = match reply {
        Ok(Raw { status, retry_after_ms, body }) => {
            Outcome::Reply { status, retry_after_ms, body: clean(&String::from_utf8_lossy(&body)) }
        }
        Err(Broken { why, unsent }) => Outcome::Failed { kind: why.kind, detail: clean(&why.detail), unsent },
    };
    Attempt { took_ms, outcome }
}

fn raw(outcome: Outcome) -> Result<Raw, Broken> {
    match outcome {
        Outcome::Reply { status, retry_after_ms, body } => Ok(Raw { status, retry_after_ms, body: body.into_bytes() }),
        Outcome::Failed { kind, detail, unsent } => Err(Broken { why: Rejected { kind, detail }, unsent }),
    }
}
