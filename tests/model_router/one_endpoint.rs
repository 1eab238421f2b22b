//! One endpoint that asks to wait, bills more than was held, or takes no schema.

use std::{cell::RefCell, rc::Rc, time::Duration};

use triplegain::{
    llm::{
        actor::http::{Broken, Http, Raw},
        question::FailureKind,
    },
    settings::{AnswerForm, ProviderKind, ProviderSettings},
};

use super::{
    error_body,
    loopback::{Loopback, Play},
    model_bench::*,
};

/// 429 with a wait that fits: asked again, once, and not before the endpoint said.
#[actix::test]
async fn a_retry_after_that_fits_is_waited_for_and_then_answered() {
    let later = Play::Reply(429, vec![("retry-after", "1".to_owned())], "{}".to_owned());
    let each = KINDS.into_iter().map(|kind| {
        let script = vec![later.clone(), success(kind)];
        async move {
            let server = Loopback::start(script).await;
            let bench = Setup::new(vec![provider(kind, &server.url, 30)]).start().await;
            let answered = bench.ask(60_000).await.unwrap();
            let kinds: Vec<FailureKind> = answered.before.iter().map(|failure| failure.kind).collect();
            assert_eq!((answered.provider.as_str(), kinds), ("a", vec![FailureKind::RateLimited]), "{kind:?}");
            let times = server.times();
            assert_eq!(times.len(), 2, "{kind:?}");
            assert!(times[1] - times[0] >= Duration::from_secs(1), "{kind:?}: {:?}", times[1] - times[0]);
            assert!(answered.took_ms >= 1_000, "{kind:?}: {} ms of the program's clock", answered.took_ms);
            assert_eq!((answered.cost_usd, bench.spent()), (usd(COST), usd(COST)), "{kind:?}");
        }
    });
    futures_util::future::join_all(each).await;
}

/// The same in virtual time: the second call leaves one second after the first at least, and by the jitter later at most.
#[actix::test]
async fn a_retry_after_is_waited_for_in_the_programs_own_time() {
    tokio::time::pause();
    for kind in KINDS {
        let asked = Rc::<RefCell<Vec<tokio::time::Instant>>>::default();
        let seen = Rc::clone(&asked);
        let stand = move |_: &str, _: Option<&serde_json::Value>| {
            seen.borrow_mut().push(tokio::time::Instant::now());
            let first = seen.borrow().len() == 1;
            let raw = match first {
                true => Raw { status: 429, retry_after_ms: Some(1_000), body: b"{}".to_vec() },
                false => {
                    Raw { status: 200, retry_after_ms: None, body: said(kind, "{\"ok\":true}", false).into_bytes() }
                }
            };
            Box::pin(async move { Ok(raw) }) as futures_util::future::LocalBoxFuture<'static, Result<Raw, Broken>>
        };
        let mut setup = Setup::new(vec![provider(kind, "http://127.0.0.1:1", 30)]);
        setup.stand = Some(Http::standing(Rc::new(stand)));
        let bench = setup.start().await;
        assert_eq!(bench.ask(60_000).await.unwrap().provider, "a");
        let times = asked.borrow().clone();
        assert_eq!(times.len(), 2, "{kind:?}");
        let waited = times[1] - times[0];
        assert!(waited >= Duration::from_secs(1) && waited <= Duration::from_millis(1_501), "{kind:?}: {waited:?}");
    }
}

/// What a provider adds of its own is booked as it is, and the same is expected of its next call.
#[actix::test]
async fn a_bill_above_what_was_held_is_booked_and_the_next_call_holds_as_much_more() {
    let kind = ProviderKind::OpenAi;
    let dear = said(kind, "{\"ok\":true}", false).replace("_tokens\":10", "_tokens\":9000").replace("\":15", "\":9005");
    let cost = usd("0.00901");
    for (limit, next) in [(cost + worst(), FailureKind::Budget), (cost + cost, FailureKind::Timeout)] {
        let server = Loopback::start(vec![Play::ok(&dear), Play::Hang]).await;
        let setup = Setup::new(vec![ProviderSettings { daily_usd: Some(limit), ..provider(kind, &server.url, 1) }]);
        let bench = setup.start().await;
        let answered = bench.ask(60_000).await.unwrap();
        assert!(answered.cost_usd == cost && cost > worst(), "{} {}", answered.cost_usd, worst());
        assert_eq!((bench.spent(), bench.view.read().models.over["a"]), (cost, cost - worst()));
        assert_eq!(bench.ask(60_000).await.unwrap_err().kind, next, "a day's limit of {limit}");
        let spent = if next == FailureKind::Budget { cost } else { cost + cost };
        assert_eq!(bench.spent(), spent, "held like the dearest call so far, and lost with the call that hung");
    }
}

/// A gateway that knows no schema says so; with the setting it answers.
#[actix::test]
async fn an_endpoint_that_takes_no_schema_is_asked_without_one() {
    let refusal = error_body(ProviderKind::OpenAi, "response_format.type json_schema is not supported");
    let server = Loopback::start(vec![Play::status(400, &refusal), success(ProviderKind::OpenAi)]).await;
    let ask = async |form| {
        let mut of = provider(ProviderKind::OpenAi, &server.url, 30);
        of.models.get_mut("m").unwrap().answer_form = form;
        Setup::new(vec![of]).start().await.ask(60_000).await
    };
    let refused = ask(None).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::BadRequest);
    assert!(refused.attempts[0].message.contains("set answer_form"), "{}", refused.attempts[0].message);
    assert!(ask(Some(AnswerForm::Prompt)).await.is_ok());
    let bodies = server.seen();
    assert!(bodies[0].contains("json_schema") && !bodies[1].contains("response_format"), "{bodies:?}");
}
