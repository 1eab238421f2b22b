//! Probes of the providers while the capability is degraded. Recovery must not wait for the next hourly question, and a
//! primary whose fallback answers must not stay out for ever. How each is probed is decided in `plan`.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use serde_json::json;

use super::{
    call::Turn,
    router::attempt_once,
    shared::{Endpoint, Shared},
};
use crate::{
    llm::{
        classify,
        plan::{self, Doubt, Probe},
        question::{AnswerFormat, FailureKind, Payer, Prompt, Question, Rejected},
    },
    model::{Clock, DegradationLevel, RunKey, Symbol, TaskName},
    providers::breaker::Outcome,
};

/// Longest wait for a list of models, milliseconds.
const LIST_MS: i64 = 10_000;

/// Probes every provider of a chain, as far as its breaker lets a call through, and tells what came of it.
pub(super) async fn all(shared: &Rc<Shared>) {
    let entries = shared.settings.chains.values().flatten();
    let first: BTreeMap<&str, &String> = entries.rev().filter_map(|e| Some((e.split_once('/')?.0, e))).collect();
    let (mut failed, mut works) = (false, false);
    for (name, entry) in first {
        let Some(endpoint) = shared.endpoints.get(name) else { continue };
        let quiet = shared.levels().0 >= DegradationLevel::Limited;
        let doubt = endpoint.doubt_at(shared.clock.now(), &shared.settings.degradation);
        let found = match plan::probe(doubt, quiet) {
            Probe::Answer if !is_recorded(shared) => works_again(shared, endpoint, entry).await,
            Probe::Answer => list(shared, endpoint).await,
            Probe::List(counts) => list(shared, endpoint).await.filter(|listed| counts || !listed),
        };
        (failed, works) = (failed || found == Some(false), works || found == Some(true));
    }
    // Nobody was asked: an open breaker is no new failure.
    if works || failed {
        shared.tell(if works { Ok(()) } else { Err("probe".to_owned()) });
    }
}

/// A recording is always there and holds no probes; the run that makes it must meet what its replay meets.
fn is_recorded(shared: &Shared) -> bool {
    shared.tape.replays() || shared.http.as_ref().is_some_and(|http| http.recorder().is_some())
}

/// Asks for the list of models; none when the breaker lets no call through.
async fn list(shared: &Rc<Shared>, endpoint: &Rc<Endpoint>) -> Option<bool> {
    let admission = shared.admit(endpoint).ok()?;
    let listed = lists_models(shared, endpoint).await;
    let timeout_ms = i64::from(endpoint.settings.timeout_seconds) * 1000;
    let outcome = if listed { classify::answered(0, timeout_ms) } else { Some(Outcome::Failed) };
    shared.record(admission, outcome);
    Some(listed)
}

/// The list first, because it is free and says enough when it does not come; then an answer.
async fn works_again(shared: &Rc<Shared>, endpoint: &Rc<Endpoint>, entry: &str) -> Option<bool> {
    let admission = shared.admit(endpoint).ok()?;
    if !lists_models(shared, endpoint).await {
        shared.record(admission, Some(Outcome::Failed));
        return Some(false);
    }
    // The breaker hears of the answer alone.
    drop(admission);
    answers(shared, entry).await
}

async fn lists_models(shared: &Rc<Shared>, endpoint: &Endpoint) -> bool {
    if is_recorded(shared) {
        return true;
    }
    let (Some(http), Ok(key)) = (&shared.http, &endpoint.key) else { return false };
    let (url, kind) = (format!("{}/models", endpoint.settings.endpoint()), endpoint.settings.kind);
    let until = shared.clock.now().plus_ms(LIST_MS);
    tokio::select! {
        biased;
        reply = http.get(&url, kind, key.as_ref()) => reply.is_ok_and(|raw| {
            // A gateway without such a list has answered all the same.
            (200..300).contains(&raw.status) || matches!(raw.status, 404 | 405)
        }),
        () = shared.clock.sleep_until(until) => false,
    }
}

/// Asks a model for the shortest answer; none when no call was made. That it can give one does not prove that it can
/// answer a real question.
async fn answers(shared: &Rc<Shared>, entry: &str) -> Option<bool> {
    let (endpoint, model, settings) = shared.target(entry)?;
    let before = endpoint.doubt.get();
    let until = shared.clock.now().plus_ms(i64::from(endpoint.settings.timeout_seconds) * 1000);
    let question = question(shared.settings.symbols.first().copied().unwrap_or(Symbol::PORTFOLIO), until);
    let turn = Turn { endpoint: Rc::clone(&endpoint), model, settings, until };
    let tried = attempt_once(shared, &question, &turn, false).await;
    match tried.result {
        Ok(_) => {
            if before.0 == Doubt::Content {
                endpoint.doubt.set(before);
            }
            Some(true)
        }
        Err(failed) => failed.why.kind.is_call().then_some(false),
    }
}

/// The question of a probe: it pays like an opinion, and its answer is used for nothing.
fn question(symbol: Symbol, deadline: crate::model::Ts) -> Question {
    let schema = json!({
        "type": "object",
        "properties": { "ok": { "type": "boolean" } },
        "required": ["ok"],
        "additionalProperties": false,
    });
    let check = |text: &str| match text.contains("\"ok\"") {
        true => Ok(()),
        false => Err(Rejected { kind: FailureKind::Unparsable, detail: "the probe was not answered".to_owned() }),
    };
    Question {
        chain: String::new(),
        key: RunKey { task: TaskName::TechnicalAnalysis, symbol },
        payer: Payer::Opinion,
        prompt: Prompt {
            template: "probe@1".to_owned(),
            system: "Answer with the JSON object in `answer` and nothing else.".to_owned(),
            user: r#"{"answer":{"ok":true}}"#.to_owned(),
        },
        format: AnswerFormat { name: "probe".to_owned(), schema },
        deadline,
        check: Arc::new(check),
    }
}
