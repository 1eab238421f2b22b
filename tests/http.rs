//! The HTTP surface of the real process: who is answered, what is refused with which status, and one effect per key.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod process_support;

use process_support::*;
use reqwest::{
    Method,
    blocking::{RequestBuilder, Response},
};
use serde_json::Value;

fn running() -> (tempfile::TempDir, Program) {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(&folder.path().join("store"), &["--speed", "1"]);
    (folder, program)
}

/// A POST that is right in every respect.
fn post(program: &Program, key: &str, body: &str) -> RequestBuilder {
    client()
        .post(program.url("/v1/commands"))
        .bearer_auth(program.token())
        .header("Content-Type", "application/json")
        .header("X-Triplegain", "1")
        .header("Idempotency-Key", key)
        .body(body.to_owned())
}

/// Sends it and checks the status; the body.
fn answer(request: RequestBuilder, status: u16) -> Value {
    let response: Response = request.send().unwrap();
    let found = response.status().as_u16();
    let text = response.text().unwrap();
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn commands(program: &Program) -> usize {
    of_kind(&records(&program.store), "CommandReceived").len()
}

#[test]
fn a172_every_wrong_request_has_its_status_and_no_effect() {
    let (_folder, program) = running();
    let pause = r#"{"command":"pause"}"#;
    let get = |path: &str| client().get(program.url(path));
    let replaced = |name: &'static str, value: &str| {
        let mut request = post(&program, "k", pause).build().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        RequestBuilder::from_parts(client(), request)
    };
    let without = |name: &str| {
        let mut request = post(&program, "k", pause).build().unwrap();
        request.headers_mut().remove(name);
        RequestBuilder::from_parts(client(), request)
    };

    answer(get("/v1/status"), 401);
    answer(get("/v1/status").bearer_auth("0".repeat(64)), 401);
    answer(get("/v1/status").header("Authorization", format!("Basic {}", program.token())), 401);
    answer(get(&format!("/v1/status?token={}", program.token())), 401);
    answer(get("/v1/status").bearer_auth(program.token()), 200);
    answer(get("/v1/nothing").bearer_auth(program.token()), 404);
    answer(get("/health").header("Host", "evil.example"), 421);
    answer(get("/health").header("Origin", "http://evil.example"), 403);

    answer(without("authorization"), 401);
    answer(replaced("authorization", "Bearer nonsense"), 401);
    answer(replaced("host", "evil.example"), 421);
    answer(replaced("origin", "http://evil.example"), 403);
    answer(replaced("origin", "null"), 403);
    answer(replaced("sec-fetch-site", "cross-site"), 403);
    answer(replaced("content-type", "text/plain"), 415);
    answer(without("content-type"), 415);
    answer(without("x-triplegain"), 403);
    answer(without("idempotency-key"), 400);
    answer(replaced("idempotency-key", &"k".repeat(101)), 400);
    answer(post(&program, "k", &format!(r#"{{"command":"pause","reason":"{}"}}"#, "x".repeat(17 * 1024))), 413);

    assert_eq!(commands(&program), 0, "nothing that was refused left a trace");
    assert_eq!(program.status()["state"], "RUNNING");
    answer(post(&program, "k", pause), 200);
    assert_eq!(program.status()["state"], "PAUSED");
}

#[test]
fn an_unknown_command_and_an_unknown_field_are_refused_by_name() {
    let (_folder, program) = running();
    let unknown = answer(post(&program, "k1", r#"{"command":"frobnicate"}"#), 400);
    let reason = unknown["error"]["reason"].as_str().unwrap();
    for name in ["pause", "resume", "halt", "reset", "run_task", "close_all", "enable_task", "cancel_scheduled"] {
        assert!(reason.contains(name), "{name} is missing: {reason}");
    }
    let field = answer(post(&program, "k2", r#"{"command":"pause","reason":"x","until":"noon"}"#), 400);
    assert!(field["error"]["reason"].as_str().unwrap().contains("until"), "{field}");
    let extra = answer(post(&program, "k3", r#"{"command":"resume","force":true}"#), 400);
    assert!(extra["error"]["reason"].as_str().unwrap().contains("force"), "{extra}");
    for broken in ["", "{", "[]", "null", r#"{"command":"reset"}"#, r#"{"command":7}"#] {
        answer(post(&program, "k4", broken), 400);
    }
    assert_eq!(commands(&program), 0);
}

#[test]
fn get_has_no_effect_and_post_goes_to_commands_only() {
    let (_folder, program) = running();
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let request = post(&program, "k", r#"{"command":"halt"}"#).build().unwrap();
        let mut other = client().request(method.clone(), program.url("/v1/commands?command=halt"));
        for (name, value) in request.headers() {
            other = other.header(name, value);
        }
        let status = other.body(r#"{"command":"halt"}"#).send().unwrap().status().as_u16();
        assert!([404, 405].contains(&status), "{method} was answered with {status}");
    }
    assert_eq!(commands(&program), 0);
    assert_eq!(program.status()["state"], "RUNNING");
}

#[test]
fn health_without_a_token_is_one_word() {
    let (_folder, program) = running();
    let word = |program: &Program| answer(client().get(program.url("/health")), 200);
    let health = until("a healthy feed", || Some(word(&program)).filter(|health| health["status"] == "ok"));
    assert_eq!(health, serde_json::json!({"status": "ok"}));
    program.done(&["pause"]);
    assert_eq!(word(&program), serde_json::json!({"status": "degraded"}));
}

#[test]
fn a170_one_key_one_effect_one_answer_and_another_body_is_a_conflict() {
    let (_folder, program) = running();
    let halt = r#"{"command":"halt","reason":"drill"}"#;
    let first = answer(post(&program, "same", halt), 200);
    let again = answer(post(&program, "same", halt), 200);
    assert_eq!(first, again);
    let other = answer(post(&program, "same", r#"{"command":"halt","reason":"another"}"#), 409);
    assert_eq!(other["error"]["code"], "key_reused");
    answer(post(&program, "same", r#"{"command":"pause"}"#), 409);
    let refused = answer(post(&program, "other", r#"{"command":"resume"}"#), 409);
    assert_eq!(refused, answer(post(&program, "other", r#"{"command":"resume"}"#), 409), "refusals are kept too");
    assert_eq!(refused["code"], "halted");
    let records = records(&program.store);
    assert_eq!(of_kind(&records, "CommandReceived").len(), 2);
    assert_eq!(of_kind(&records, "StateChanged").iter().filter(|change| change["data"]["to"] == "HALTED").count(), 1);
}

#[test]
fn a170_many_requests_with_one_key_at_the_same_time_have_one_effect() {
    let (_folder, program) = running();
    let body = r#"{"command":"run_task","task":"technical_analysis","symbol":"BTC/USDT"}"#;
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let send = |_| scope.spawn(|| post(&program, "burst", body).send().unwrap().json().unwrap());
        let threads: Vec<_> = (0..12).map(send).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(commands(&program), 1);
}

#[test]
fn a171_the_effect_and_the_answer_of_a_key_survive_a_kill() {
    let (folder, program) = running();
    let pause = r#"{"command":"pause","reason":"drill"}"#;
    let first = answer(post(&program, "kept", pause), 200);
    program.kill9();
    let program = Program::start(&folder.path().join("store"), &["--speed", "1"]);
    assert_eq!(program.status()["state"], "PAUSED");
    assert_eq!(answer(post(&program, "kept", pause), 200), first);
    answer(post(&program, "kept", r#"{"command":"resume"}"#), 409);
    assert_eq!(commands(&program), 1);
}

/// Nothing that others ask keeps a halt waiting: it is taken in the middle of a flood, and holds against it.
#[test]
fn a173_a_halt_is_taken_in_the_middle_of_a_flood_of_requests() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let (_folder, program) = running();
    let (answered, refused, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let flood = |lane: usize| {
        let client = client();
        for number in 0.. {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let body = if number % 2 == 0 { r#"{"command":"resume"}"# } else { r#"{"command":"pause"}"# };
            let request = post(&program, &format!("flood-{lane}-{number}"), body).build().unwrap();
            let status = client.execute(request).unwrap().status().as_u16();
            assert!(status == 200 || status == 409, "{status}");
            answered.fetch_add(1, Ordering::Relaxed);
            refused.fetch_add(usize::from(status == 409), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for lane in 0..4 {
            let flood = &flood;
            scope.spawn(move || flood(lane));
        }
        until("the flood", || (answered.load(Ordering::Relaxed) >= 30).then_some(()));
        let halted = answer(post(&program, "halt", r#"{"command":"halt","reason":"flood"}"#), 200);
        assert_eq!(halted["result"]["halt_id"], "H1", "{halted}");
        // `resume` of the flood is refused from now on, and the flood goes on.
        until("refusals", || (refused.load(Ordering::Relaxed) >= 4).then_some(()));
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(program.status()["state"], "HALTED");
}
