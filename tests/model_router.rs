//! The router of models against servers on loopback: every kind of provider with every kind of failure, money, breakers,
//! recordings. Recorded bodies of real providers are used where they are at hand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

#[path = "support/loopback.rs"]
mod loopback;
#[path = "support/model_bench.rs"]
mod model_bench;
#[path = "model_router/one_endpoint.rs"]
mod one_endpoint;

use std::{collections::BTreeMap, path::PathBuf};

use loopback::{Loopback, Play};
use model_bench::*;
use triplegain::{
    llm::{
        actor::{
            AskModel, ModelOutcome, ReadModels,
            keys::{self, Key},
            tape::Tape,
        },
        classify,
        question::FailureKind,
    },
    model::{Capability, Clock, Decimal, DegradationLevel, Event, Money},
    settings::{CassetteMode, CassetteSettings, ProviderKind, ProviderSettings},
    store::{Batch, Close, Commit, Flush},
};

/// What a row of the table expects of the first provider.
struct Row {
    name: String,
    play: Play,
    kind: FailureKind,
    attempts: usize,
    /// Of each attempt, USD.
    cost: Money,
    /// Time of one call.
    timeout_seconds: u32,
    /// The breaker afterwards.
    breaker: &'static str,
}

/// Where recorded data lies, if it is at hand.
fn shared() -> PathBuf {
    std::env::var_os("TRIPLEGAIN_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from)
}

/// Body of an error in the form of a dialect.
fn error_body(kind: ProviderKind, words: &str) -> String {
    match kind {
        ProviderKind::Anthropic => serde_json::json!({"type": "error", "error": {"message": words}}).to_string(),
        ProviderKind::Ollama => serde_json::json!({"error": words}).to_string(),
        _ => serde_json::json!({"error": {"message": words}}).to_string(),
    }
}

/// Every recorded error body of a dialect with its status, as its file's name says; none where no recording is at hand.
fn recorded_errors(kind: ProviderKind) -> Vec<(String, u16, String)> {
    let Ok(entries) = std::fs::read_dir(shared().join("data/llm")) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?.to_owned();
            let status = name.strip_prefix(kind.name())?.strip_prefix("__error_")?.split('_').next()?.parse().ok()?;
            Some((name, status, std::fs::read_to_string(&path).unwrap()))
        })
        .collect();
    found.sort();
    found
}

/// What a recorded error means, by its file's name.
fn meaning(name: &str, status: u16) -> FailureKind {
    match status {
        400 => FailureKind::BadRequest,
        402 => FailureKind::Payment,
        404 => FailureKind::NotFound,
        429 if name.contains("insufficient_quota") => FailureKind::Payment,
        429 => FailureKind::RateLimited,
        500 => FailureKind::ServerError,
        529 => FailureKind::Overloaded,
        other => panic!("{name}: nobody has said what {other} means"),
    }
}

fn rows(kind: ProviderKind) -> Vec<Row> {
    use FailureKind::*;
    let row = |name: &str, play, kind, attempts, cost| Row {
        name: name.to_owned(),
        play,
        kind,
        attempts,
        cost,
        timeout_seconds: 10,
        breaker: "closed",
    };
    let status = |status, words: &str| Play::status(status, &error_body(kind, words));
    let zero = Money::ZERO;
    let later = Play::Reply(429, vec![("retry-after", "60".to_owned())], "{}".to_owned());
    let recorded = recorded_errors(kind).into_iter().map(|(name, status, body)| {
        let kind = meaning(&name, status);
        let attempts = if matches!(kind, RateLimited | ServerError | Overloaded) { 3 } else { 1 };
        row(&name, Play::status(status, &body), kind, attempts, zero)
    });
    let rows = vec![
        row("400", status(400, "bad"), BadRequest, 1, zero),
        Row {
            breaker: "locked: the provider refuses the key",
            ..row("401", status(401, &format!("wrong key {SECRET}")), Authentication, 1, zero)
        },
        row("402", status(402, "no balance"), Payment, 1, zero),
        row("404", status(404, "no such model"), NotFound, 1, zero),
        row("429", status(429, "slow down"), RateLimited, 3, zero),
        row("429 used-up quota", status(429, "You exceeded your current quota, please check"), Payment, 1, zero),
        row("429 with retry-after", later, RateLimited, 1, zero),
        row("500", status(500, "oops"), ServerError, 3, zero),
        row("529", status(529, "Overloaded"), Overloaded, 3, zero),
        row("504", status(504, "upstream timed out"), Timeout, 1, worst()),
        row("blank", Play::ok("\n\n  \n"), Empty, 3, worst()),
        row("truncated", Play::ok(&said(kind, "{\"ok\":", true)), Truncated, 1, usd(COST)),
        row("prose", Play::ok(&said(kind, "do not buy here", false)), Unparsable, 1, usd(COST)),
        row("out of range", Play::ok(&said(kind, "{\"ok\":2}", false)), OutOfRange, 1, usd(COST)),
        Row { timeout_seconds: 1, ..row("drip", Play::Drip, Timeout, 1, worst()) },
        Row { timeout_seconds: 1, ..row("hang", Play::Hang, Timeout, 1, worst()) },
        row("cut body", Play::CutBody, Connection, 3, worst()),
        row("too large", Play::Huge(256 * 1024 + 1), TooLarge, 1, worst()),
    ];
    rows.into_iter().chain(recorded).collect()
}

async fn check_row(kind: ProviderKind, row: Row) {
    let at = format!("{} {}", kind.name(), row.name);
    let first = Loopback::start(vec![row.play]).await;
    let second = Loopback::start(vec![success(ProviderKind::OpenAi)]).await;
    let providers =
        vec![provider(kind, &first.url, row.timeout_seconds), provider(ProviderKind::OpenAi, &second.url, 30)];
    let bench = Setup::new(providers).start().await;
    let answered = bench.ask(60_000).await.unwrap_or_else(|failed| panic!("{at}: {failed:?}"));
    assert_eq!((answered.provider.as_str(), answered.text.as_str()), ("b", "{\"ok\":true}"), "{at}");
    let kinds: Vec<FailureKind> = answered.before.iter().map(|failure| failure.kind).collect();
    assert_eq!(kinds, vec![row.kind; row.attempts], "{at}: {:?}", answered.before);
    assert_eq!((first.seen().len(), second.seen().len()), (row.attempts, 1), "{at}");
    let expected = row.cost * Decimal::from(row.attempts as u64) + usd(COST);
    assert_eq!(answered.cost_usd, expected, "{at}: cost");
    assert_eq!((bench.spent(), bench.view.read().models.open.len()), (expected, 0), "{at}: the ledger");
    assert_eq!(bench.breaker("a").await, row.breaker, "{at}");
    assert!(bench.told.borrow().iter().all(|outcome| outcome.result.is_ok()), "{at}: the chain works");
    let words = format!("{:?}", answered.before);
    assert!(!words.contains(SECRET), "{at}: {words}");
}

#[actix::test]
async fn every_provider_with_every_failure_leaves_the_next_model_its_turn() {
    // One kind after another: all at once are more connections than a busy machine opens within a second.
    for kind in KINDS {
        futures_util::future::join_all(rows(kind).into_iter().map(|row| check_row(kind, row))).await;
    }
}

#[test]
fn recorded_errors_mean_what_they_are() {
    let all: Vec<_> = KINDS.into_iter().flat_map(recorded_errors).collect();
    if all.is_empty() {
        return println!("left out: no recorded errors in {}", shared().join("data/llm").display());
    }
    for (name, status, body) in &all {
        let refusal = classify::refusal(*status, body.as_bytes());
        assert_eq!(refusal.kind, meaning(name, *status), "{name}");
        assert!(refusal.message.len() > format!("HTTP {status}: ").len(), "{name}: {}", refusal.message);
    }
    assert!(all.len() >= 16, "{}", all.len());
}

#[actix::test]
async fn every_provider_answers_in_its_dialect_and_gets_its_key_in_its_header() {
    for kind in KINDS {
        let server = Loopback::start(vec![success(kind)]).await;
        let bench = Setup::new(vec![provider(kind, &format!("{}/v1/", server.url), 30)]).start().await;
        let answered = bench.ask(60_000).await.unwrap();
        assert_eq!((answered.input_tokens, answered.output_tokens, answered.cost_usd), (10, 5, usd(COST)), "{kind:?}");
        assert!(answered.before.is_empty());
        let request = server.seen().remove(0).to_lowercase();
        let (path, header) = match kind {
            ProviderKind::Anthropic => ("post /v1/messages ", format!("x-api-key: {SECRET}")),
            _ => ("post /v1/chat/completions ", format!("authorization: bearer {SECRET}")),
        };
        assert!(request.starts_with(path) && request.contains(&header), "{request}");
        assert_eq!(bench.told.borrow().len(), 1);
    }
}

#[actix::test]
async fn an_answer_that_counts_no_tokens_costs_what_was_reserved() {
    let kind = ProviderKind::OpenAi;
    // With a total that names the missing part, the total counts.
    for (counted, liar) in [("5,\"total_tokens\":15", "0"), ("10", "0"), ("5", "1000000000000000")] {
        let body =
            said(kind, "{\"ok\":true}", false).replace(&format!("_tokens\":{counted}"), &format!("_tokens\":{liar}"));
        let server = Loopback::start(vec![Play::ok(&body)]).await;
        let bench = Setup::new(vec![provider(kind, &server.url, 30)]).start().await;
        let answered = bench.ask(60_000).await.unwrap();
        assert_eq!((answered.cost_usd, bench.spent()), (worst(), worst()), "{counted} as {liar}: {body}");
    }
}

#[actix::test]
async fn a_hung_primary_leaves_the_fallback_its_part() {
    let (first, second) = (Loopback::start(vec![Play::Hang]).await, Loopback::start(vec![success(KINDS[0])]).await);
    let providers = vec![provider(KINDS[0], &first.url, 600), provider(KINDS[0], &second.url, 600)];
    let bench = Setup::new(providers).start().await;
    let asked_at = bench.clock.now();
    let answered = bench.ask(5_000).await.unwrap();
    assert_eq!((answered.provider.as_str(), answered.before[0].kind), ("b", FailureKind::Timeout));
    assert!(bench.clock.now().since_ms(asked_at) >= 3_000, "the first had 60 % of the time");
}

#[actix::test]
async fn nobody_answers_is_one_failure_of_the_capability_with_every_error_kept() {
    let (first, second) =
        (Loopback::start(vec![Play::status(400, "{}")]).await, Loopback::start(vec![Play::status(402, "{}")]).await);
    let providers = vec![provider(KINDS[0], &first.url, 30), provider(KINDS[1], &second.url, 30)];
    let bench = Setup::new(providers).start().await;
    let failed = bench.ask(60_000).await.unwrap_err();
    let kinds: Vec<FailureKind> = failed.attempts.iter().map(|attempt| attempt.kind).collect();
    assert_eq!(kinds, [FailureKind::BadRequest, FailureKind::Payment]);
    bench.router.send(ReadModels).await.unwrap();
    assert_eq!(bench.told.borrow().as_slice(), [ModelOutcome { result: Err("b:payment".into()), strained: false }]);
}

#[actix::test]
async fn the_reservation_is_durable_before_the_first_byte_and_stays_spent_when_nobody_settles_it() {
    let server = Loopback::start(vec![Play::Hang]).await;
    let bench = Setup::new(vec![provider(KINDS[0], &server.url, 600)]).start().await;
    let asked = bench.router.send(AskModel(question(&bench.clock, 600_000)));
    let asked = actix_rt::spawn(asked);
    server.arrived().await;
    assert_eq!((bench.spent(), bench.view.read().models.reserved()), (worst(), worst()));
    asked.abort();
    let again = bench.view.read().models.on(START.day());
    assert_eq!(again.total(), worst(), "what is read back after a crash has it spent");
    assert!(again.on(START.day() + 1).total().is_zero(), "a new day begins empty");
}

/// Eight calls fail together: between them they may be repeated three times, not sixteen.
#[actix::test]
async fn b4_calls_that_fail_together_are_not_all_repeated() {
    let server = Loopback::start(vec![Play::status(503, "{}")]).await;
    let mut setup = Setup::new(vec![provider(KINDS[0], &server.url, 30)]);
    setup.settings.providers.get_mut("a").unwrap().max_parallel = 8;
    // The breaker would refuse them before.
    (setup.settings.breaker.consecutive, setup.settings.breaker.min_calls) = (100, 100);
    let bench = setup.start().await;
    let failed = futures_util::future::join_all((0..8).map(|_| bench.ask(60_000))).await;
    assert!(failed.iter().all(Result::is_err));
    assert_eq!(server.seen().len(), 8 + 3);
}

#[actix::test]
async fn a131_two_calls_never_share_the_same_money_and_a_used_up_budget_is_no_failure() {
    let server = Loopback::start(vec![Play::Hang]).await;
    let mut setup =
        Setup::new(vec![ProviderSettings { daily_usd: Some(worst()), ..provider(KINDS[0], &server.url, 1) }]);
    setup.settings.providers.get_mut("a").unwrap().max_parallel = 8;
    let bench = setup.start().await;
    let asked = (0..4).map(|_| bench.ask(60_000));
    let kinds: Vec<FailureKind> =
        futures_util::future::join_all(asked).await.into_iter().map(|result| result.unwrap_err().kind).collect();
    let count = |kind| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!((count(FailureKind::Timeout), count(FailureKind::Budget)), (1, 3), "{kinds:?}");
    assert_eq!(server.seen().len(), 1);
    assert_eq!(bench.view.read().models.told.iter().collect::<Vec<_>>(), ["provider:a"]);
    assert_eq!(bench.told.borrow().len(), 1, "a used-up budget is no failure of the provider");
}

#[actix::test]
async fn a_restart_goes_on_with_the_breaker_and_another_key_releases_it() {
    let server = Loopback::start(vec![Play::status(401, "{}"), success(KINDS[0])]).await;
    let bench = Setup::new(vec![provider(KINDS[0], &server.url, 30)]).start().await;
    assert_eq!(bench.ask(60_000).await.unwrap_err().kind, FailureKind::Authentication);
    assert_eq!(bench.ask(60_000).await.unwrap_err().kind, FailureKind::BreakerOpen);
    assert_eq!(bench.told.borrow().len(), 1, "a call an open breaker refused is no new failure");
    bench.store.send(Flush).await.unwrap();
    let kept = triplegain::llm::actor::shared::Kept {
        breaker: serde_json::from_value(
            serde_json::json!({"state": {"state": "locked"}, "recent": [], "failed_in_a_row": 0,
            "held_until": null, "open_ms": 0, "opened_at": null, "probes_ok": 0, "probes_failed": 0, "term": 1}),
        )
        .unwrap(),
        bucket: triplegain::providers::rate::Bucket::full(START),
        under: format!("{} {}", "c".repeat(64), Key::new(SECRET).unwrap().fingerprint()),
    };
    let stored = vec![("a".to_owned(), serde_json::to_vec(&kept).unwrap())];
    let restart = |key: &str| {
        let mut setup = Setup::new(vec![provider(KINDS[0], &server.url, 30)]);
        setup.stored = stored.clone();
        setup.keys.insert("a".to_owned(), Ok(Some(Key::new(key).unwrap())));
        setup.start()
    };
    assert_eq!(restart(SECRET).await.ask(60_000).await.unwrap_err().kind, FailureKind::BreakerOpen);
    assert!(restart("another").await.ask(60_000).await.is_ok());
}

#[actix::test]
async fn at_emergency_nobody_is_asked() {
    let server = Loopback::start(vec![success(KINDS[0])]).await;
    let bench = Setup::new(vec![provider(KINDS[0], &server.url, 30)]).start().await;
    let (from, to) = (DegradationLevel::Normal, DegradationLevel::Emergency);
    let event = Event::DegradationChanged { capability: Capability::Venue, from, to };
    bench.store.send(Commit(Batch::new("t", "t", "t", START, vec![event]))).await.unwrap().unwrap();
    assert_eq!(bench.ask(60_000).await.unwrap_err().kind, FailureKind::Degraded);
    assert!(server.seen().is_empty() && bench.told.borrow().is_empty());
}

#[actix::test]
async fn a_check_that_panics_ends_its_call_and_not_the_router() {
    let server = Loopback::start(vec![Play::ok(&said(KINDS[0], "panic", false)), success(KINDS[0])]).await;
    let bench = Setup::new(vec![provider(KINDS[0], &server.url, 30)]).start().await;
    assert!(bench.router.send(AskModel(question(&bench.clock, 60_000))).await.is_err());
    assert!(bench.ask(60_000).await.is_ok());
    assert_eq!(bench.spent(), worst() + usd(COST), "what was lost with the call stays spent");
}

#[actix::test]
async fn a_recording_is_played_without_network_and_twice_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |mode| CassetteSettings { mode, dir: folder.path().display().to_string(), max_usd: usd("5") };
    let tape = |mode| Tape::open(&settings(mode), false).unwrap();
    let server = Loopback::start(vec![success(KINDS[0])]).await;
    let mut setup = Setup::new(vec![provider(KINDS[0], &server.url, 30)]);
    setup.tape = tape(CassetteMode::Record);
    let live = setup.start().await.ask(60_000).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert!(!text.contains(SECRET) && !text.contains("127.0.0.1"), "{text}");
    let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    let latency_ms = kept["attempts"][0]["took_ms"].as_i64().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&files[0]).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    tokio::time::pause();
    let mut hashes = Vec::new();
    for _ in 0..2 {
        let mut setup = Setup::new(vec![provider(KINDS[0], "http://127.0.0.1:1", 30)]);
        (setup.tape, setup.network) = (tape(CassetteMode::Replay), false);
        let bench = setup.start().await;
        let played = bench.ask(60_000).await.unwrap();
        assert_eq!((&played.text, played.cost_usd), (&live.text, live.cost_usd));
        // Timers end at the next whole millisecond, and the clock was stopped between two of them.
        assert!((latency_ms..=latency_ms + 1).contains(&played.took_ms), "{} instead of {latency_ms}", played.took_ms);
        let mut other = question(&bench.clock, 60_000);
        other.prompt.user = "other data".to_owned();
        let missing = bench.router.send(AskModel(other)).await.unwrap().unwrap_err();
        assert_eq!(missing.kind, FailureKind::NotRecorded);
        assert!(missing.attempts[0].message.contains(".json does not exist"), "{}", missing.attempts[0].message);
        hashes.push(bench.store.send(Close).await.unwrap().unwrap());
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(server.seen().len(), 1);
}

#[actix::test]
async fn without_network_and_recording_nobody_is_asked() {
    let server = Loopback::start(vec![success(KINDS[0])]).await;
    let mut setup = Setup::new(vec![provider(KINDS[0], &server.url, 30)]);
    setup.network = false;
    let bench = setup.start().await;
    assert_eq!(bench.ask(60_000).await.unwrap_err().kind, FailureKind::Unavailable);
    assert!(server.seen().is_empty() && bench.spent().is_zero());
}

#[test]
fn a_key_file_others_can_read_is_refused_and_a_key_is_never_printed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let mut settings = provider(KINDS[0], "", 30);
    (settings.key_env, settings.key_file) = (String::new(), path.display().to_string());
    let read = || keys::read("a", &settings, &|_| None);
    for (mode, fits) in [(0o644, false), (0o640, false), (0o700, false), (0o600, true), (0o400, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let found = read();
        assert_eq!(found.is_ok(), fits, "{mode:o}");
        assert!(!format!("{found:?}").contains(SECRET));
    }
    settings = provider(KINDS[0], "", 30);
    let missing = keys::read("a", &settings, &|_| None).unwrap_err();
    assert!(missing.contains("KEY is not set"), "{missing}");
    let odd = keys::read("a", &settings, &|_| Some(format!("{SECRET} x"))).unwrap_err();
    assert!(!odd.contains(SECRET), "{odd}");
}

/// Replies of real providers, read by the dialect they came in.
#[test]
fn recorded_replies_are_read_as_what_they_are() {
    use triplegain::llm::wire;
    let folder = shared().join("data/llm");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return println!("left out: no recorded replies in {}", folder.display());
    };
    let mut counts = BTreeMap::<&str, u32>::new();
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(kind) = KINDS.into_iter().find(|kind| name.starts_with(kind.name())) else { continue };
        let body = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&body);
        // Ollama's own path is not spoken; its recordings are another dialect.
        let spoken = kind != ProviderKind::Ollama || text.contains("\"choices\"");
        let (what, fits) = match wire::read(kind, &body) {
            _ if name.contains("stream") || name.contains("error") || !spoken => continue,
            Ok(reply) if name.contains("reasoning") || name.contains("thinking") => {
                ("thinking", reply.reasoning.is_some() && reply.usage.is_some())
            }
            Ok(reply) => ("answer", name.contains("success") && reply.usage.is_some()),
            Err(failed) if name.contains("truncated") => ("cut", failed.why.kind == FailureKind::Truncated),
            Err(failed) => ("none", failed.why.kind == FailureKind::Empty && !name.contains("success_1")),
        };
        assert!(fits, "{name} was read as {what}");
        *counts.entry(what).or_default() += 1;
    }
    assert!(["answer", "thinking", "cut", "none"].iter().all(|what| counts.contains_key(what)), "{counts:?}");
}

/// A primary whose breaker opened comes back by probes, although its fallback answers every question.
#[actix::test]
async fn a_degraded_router_probes_the_providers_and_closes_their_breakers() {
    let play = |count, play: Play| vec![play; count];
    let first =
        Loopback::start([play(2, Play::status(500, "{}")), play(1, Play::ok("{}")), vec![success(KINDS[0])]].concat())
            .await;
    let second = Loopback::start(vec![success(KINDS[0])]).await;
    let mut setup = Setup::new(vec![provider(KINDS[0], &first.url, 30), provider(KINDS[0], &second.url, 30)]);
    let s = &mut setup.settings;
    (s.breaker.consecutive, s.breaker.open_seconds, s.breaker.open_max_seconds) = (2, 0, 0);
    (s.breaker.probes, s.breaker.probes_needed, s.degradation.probe_seconds) = (1, 1, 1);
    let bench = setup.start().await;
    assert_eq!(bench.ask(60_000).await.unwrap().provider, "b");
    assert!(bench.breaker("a").await.starts_with("open"));
    assert!(bench.told.borrow().last().unwrap().strained, "the chain works without it");
    let (from, to) = (DegradationLevel::Normal, DegradationLevel::Reduced);
    let event = Event::DegradationChanged { capability: Capability::Llm, from, to };
    bench.store.send(Commit(Batch::new("t", "t", "t", START, vec![event]))).await.unwrap().unwrap();
    assert_eq!(bench.ask(60_000).await.unwrap().before.len(), 0, "degraded, the fallback is asked first");
    loop {
        first.arrived().await;
        // It failed to answer, so its list is not enough: it is asked to answer.
        if first.seen().len() == 5 {
            assert!(first.seen()[3].starts_with("GET /models ") && first.seen()[4].starts_with("POST "));
            break;
        }
    }
    let calm = ModelOutcome { result: Ok(()), strained: false };
    while bench.told.borrow().last() != Some(&calm) {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.breaker("a").await, "closed");
}

/// Its list of models comes, its models' answers do not: the list is not taken for recovery, the first answer is.
#[actix::test]
async fn a_free_list_of_models_does_not_outweigh_answers_that_fail() {
    let sick = Play::Listed(Box::new(Play::status(500, "{}")));
    let well = Play::Listed(Box::new(success(KINDS[0])));
    // Three attempts of the question, then two probes of a list and an answer each.
    let server = Loopback::start([vec![sick; 7], vec![well]].concat()).await;
    let mut setup = Setup::new(vec![provider(KINDS[0], &server.url, 30)]);
    (setup.settings.breaker.consecutive, setup.settings.breaker.min_calls) = (1_000, 1_000);
    setup.settings.degradation.probe_seconds = 1;
    let bench = setup.start().await;
    assert!(bench.ask(60_000).await.is_err());
    let (from, to) = (DegradationLevel::Normal, DegradationLevel::Reduced);
    let event = Event::DegradationChanged { capability: Capability::Llm, from, to };
    bench.store.send(Commit(Batch::new("t", "t", "t", START, vec![event]))).await.unwrap().unwrap();
    while server.seen().len() < 11 {
        server.arrived().await;
    }
    // One more probe is answered; only then the list is enough.
    let words: String = server.seen().iter().map(|request| request.chars().next().unwrap()).collect();
    assert_eq!(words, "PPPGPGPGPGG");
    let told: Vec<bool> = bench.told.borrow().iter().map(|told| told.result.is_ok()).collect();
    assert_eq!(told[..4], [false, false, false, true]);
    let paid = bench.view.read().models.clone();
    assert!(paid.calls >= 6 && paid.total() > Money::ZERO, "a probe that asks is paid for: {paid:?}");
}
