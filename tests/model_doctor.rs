//! `doctor` of the real binary about providers of models, against servers on loopback: one cheap request each, and words
//! about what is wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

#[path = "support/loopback.rs"]
mod loopback;
mod process_support;

use loopback::{Loopback, Play};
use process_support::*;
use tokio::io::AsyncWriteExt;

const LIST: &str = r#"{"object":"list","data":[{"id":"good-model"},{"id":"other-model"}]}"#;

fn provider(name: &str, kind: &str, url: &str, model: &str, key: &str) -> String {
    let key = if key.is_empty() { String::new() } else { format!("key_env = \"{key}\"\n") };
    format!(
        "[providers.{name}]\nkind = \"{kind}\"\nbase_url = \"{url}\"\n{key}[providers.{name}.models.{model}]\n\
         input_usd_per_1k = 0.001\noutput_usd_per_1k = 0.001\nmax_output_tokens = 200\n"
    )
}

#[actix_rt::test]
async fn doctor_names_each_provider_and_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let good = Loopback::start(vec![Play::ok(LIST)]).await;
    let refusing = Loopback::start(vec![Play::status(401, "{}")]).await;
    let unpaid = Loopback::start(vec![Play::status(402, "{}")]).await;
    let elsewhere = Loopback::start(vec![Play::status(404, "not here")]).await;
    let website = Loopback::start(vec![Play::ok("<html>welcome</html>")]).await;
    // Answers a greeting it does not understand in plain words, as a web server without TLS does.
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_url = format!("https://{}", plain.local_addr().unwrap());
    actix_rt::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            // A client that went away is part of the play.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let text = [
        "chains.one = [\"good/good-model\"]\nchains.all = [\"refusing/m\", \"unpaid/m\", \"gone/m\", \"typo/god-model\", \"keyless/m\"]\nchains.wrong = [\"elsewhere/m\", \"website/m\", \"plain/m\"]\nruntime.speed = 1\n".to_owned(),
        provider("good", "openai", &good.url, "good-model", "A_KEY"),
        provider("refusing", "anthropic", &refusing.url, "m", "A_KEY"),
        provider("unpaid", "deepseek", &unpaid.url, "m", "A_KEY"),
        provider("gone", "ollama", &nobody, "m", ""),
        provider("typo", "xai", &good.url, "god-model", "A_KEY"),
        provider("elsewhere", "openai", &elsewhere.url, "m", "A_KEY"),
        provider("website", "openai", &website.url, "m", "A_KEY"),
        provider("plain", "openai", &plain_url, "m", "A_KEY"),
        provider("keyless", "xai", &good.url, "m", "NO_SUCH_KEY"),
    ]
    .concat();
    let config = folder.path().join("models.toml");
    std::fs::write(&config, text).unwrap();
    let store = folder.path().join("store");
    let args = ["--config", config.to_str().unwrap(), "--store", store.to_str().unwrap(), "doctor"].map(str::to_owned);
    let proxy = Loopback::start(vec![Play::ok("{}")]).await;
    let through = proxy.url.clone();
    let run =
        move || triplegain().args(args).env("A_KEY", "secret-of-the-test").env("HTTP_PROXY", through).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("secret-of-the-test") && !stderr(&output).contains("secret-of-the-test"));
    let line = |name: &str, words: &str| {
        let found = said.lines().any(|line| line.contains(&format!("provider {name}")) && line.contains(words));
        assert!(found, "no line about {name} with `{words}` in:\n{said}");
    };
    line("good", "answers and takes the key");
    line("refusing", "refuses the key");
    line("unpaid", "add credit");
    line("gone", "cannot be reached");
    line("typo", "does not list god-model; it lists good-model, other-model");
    line("keyless", "NO_SUCH_KEY");
    line("elsewhere", "check base_url");
    line("website", "lists no models");
    line("plain", "over TLS");
    assert_eq!(proxy.seen(), Vec::<String>::new(), "a key goes to the configured host only");
    assert_eq!(refusing.seen().len(), 1, "one request");
    assert!(refusing.seen()[0].starts_with("GET /models"), "{}", refusing.seen()[0]);
}
