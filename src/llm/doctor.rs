//! What `doctor` says about the providers of models, as words. Pure: what was found is handed in.

use std::collections::BTreeMap;

use crate::{
    model::Money,
    settings::{CassetteMode, ProviderSettings, Settings},
};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Works, but not as one may think.
    Warning,
    /// Calls of this provider cannot succeed.
    Problem,
}

/// One line for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What, where, and what to do.
    pub text: String,
}

/// What was found outside about one provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its key could be read, or why not.
    pub key: Result<(), String>,
    /// Its list of models, or why there was no reply; absent when it was not asked.
    pub listed: Option<Result<Listed, String>>,
}

/// The reply to a question for the list of models.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// HTTP status.
    pub status: u16,
    /// Names in the list; empty when the reply held none.
    pub models: Vec<String>,
}

impl Listed {
    /// Reads `{"data": [{"id": NAME}]}`, the form of every supported dialect.
    pub fn read(status: u16, body: &[u8]) -> Listed {
        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let rows = value.get("data").and_then(|data| data.as_array()).into_iter().flatten();
        Listed { status, models: rows.filter_map(|row| Some(row.get("id")?.as_str()?.to_owned())).collect() }
    }
}

/// Judges every provider, in the order of their names.
pub fn check(settings: &Settings, seen: &BTreeMap<String, Seen>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |severity, text: String| findings.push(Finding { severity, text });
    if settings.chains.is_empty() {
        say(Severity::Fine, "no chain is configured: no model is asked".to_owned());
    }
    if settings.cassette.mode == CassetteMode::Replay {
        say(Severity::Fine, format!("models answer from the recording in {}", settings.cassette.dir));
    }
    for (name, provider) in &settings.providers {
        let mine = format!("{name}/");
        if !settings.chains.values().flatten().any(|entry| entry.starts_with(&mine)) {
            say(Severity::Warning, format!("provider {name} is in no chain: it is never asked"));
        }
        if let Some(text) = unpayable(settings, name, provider) {
            say(Severity::Warning, text);
        }
        match seen.get(name) {
            Some(Seen { key: Err(why), .. }) => say(Severity::Problem, why.clone()),
            Some(Seen { listed: Some(reply), .. }) => {
                let (severity, text) = reached(name, provider, reply);
                say(severity, text);
                if let Ok(listed) = reply
                    && let Some(text) = unlisted(name, provider, listed)
                {
                    say(Severity::Warning, text);
                }
            }
            _ => {
                let own = if provider.base_url.is_empty() { "" } else { ", as base_url says" };
                let kind = provider.kind.name();
                say(Severity::Fine, format!("provider {name}: {kind} at {}{own}", provider.endpoint()));
            }
        }
    }
    findings
}

/// A model whose longest answer alone is above what a decision may cost is never asked for one.
fn unpayable(settings: &Settings, name: &str, provider: &ProviderSettings) -> Option<String> {
    let limit = settings.budget.per_decision_usd;
    provider.models.iter().find_map(|(model, price)| {
        let answer = Money::from(price.max_output_tokens) * price.output_usd_per_1k / Money::ONE_THOUSAND;
        let text = format!(
            "{name}/{model}: its longest answer may cost {} USD, more than budget.per_decision_usd = {limit}; lower \
             max_output_tokens or raise the limit",
            answer.normalize()
        );
        (answer > limit).then_some(text)
    })
}

/// A configured model that the provider's own list does not have; its calls would be answered with 404.
fn unlisted(name: &str, provider: &ProviderSettings, listed: &Listed) -> Option<String> {
    if !(200..300).contains(&listed.status) || listed.models.is_empty() {
        return None;
    }
    // Some dialects list a model under a tag, `name:latest`.
    let known = |model: &str| listed.models.iter().any(|one| one == model || one.split(':').next() == Some(model));
    let missing: Vec<&str> = provider.models.keys().map(String::as_str).filter(|model| !known(model)).collect();
    let shown = listed.models.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    (!missing.is_empty()).then(|| {
        let more = listed.models.len().saturating_sub(8);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("provider {name} does not list {}; it lists {shown}{more}: correct the name", missing.join(", "))
    })
}

fn reached(name: &str, provider: &ProviderSettings, reply: &Result<Listed, String>) -> (Severity, String) {
    let at = format!("provider {name} at {}", provider.endpoint());
    match reply.as_ref().map(|listed| listed.status) {
        // Any web server answers something; only a list of models says that this is one.
        Ok(200..=299) if reply.as_ref().is_ok_and(|listed| listed.models.is_empty()) => {
            (Severity::Warning, format!("{at} answers but lists no models: check base_url, or install a model there"))
        }
        Ok(200..=299) => (Severity::Fine, format!("{at} answers and takes the key")),
        Ok(402) => (Severity::Problem, format!("{at} wants to be paid (402): add credit")),
        Ok(401 | 403) => (Severity::Problem, format!("{at} refuses the key: renew it")),
        Ok(404) => (Severity::Warning, format!("{at} answers but lists no models: check base_url")),
        Ok(status) => (Severity::Warning, format!("{at} answers with HTTP {status}")),
        Err(why) if is_tls(why) => {
            let advice = "check https in base_url, the host's name and the certificates of this machine";
            (Severity::Problem, format!("{at} cannot be reached over TLS: {why}: {advice}"))
        }
        Err(why) => (Severity::Problem, format!("{at} cannot be reached: {why}")),
    }
}

/// Whether the words of a broken connection speak of its encryption.
fn is_tls(why: &str) -> bool {
    let why = why.to_lowercase();
    ["certificate", "tls", "ssl", "handshake", "invalidcontenttype", "corrupt message"]
        .iter()
        .any(|word| why.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load_with};

    fn settings(text: &str) -> Settings {
        let sources = Sources { file: Some("x.toml".into()), ..Sources::default() };
        load_with(&sources, &|_| Ok(text.to_owned())).unwrap().settings
    }

    const TEXT: &str = "runtime.speed = 1\n[providers.p]\nkind = \"openai\"\nkey_env = \"K\"\n[providers.p.models.m]\n\
                        input_usd_per_1k = 0\noutput_usd_per_1k = 1\nmax_output_tokens = 501\n";

    #[test]
    fn every_finding_names_the_provider_and_how_bad_it_is() {
        let seen = |key: Result<(), String>, listed| BTreeMap::from([("p".to_owned(), Seen { key, listed })]);
        let listed = |status, name: &str| Listed::read(status, format!(r#"{{"data":[{{"id":"{name}"}}]}}"#).as_bytes());
        let worst = |text: &str, seen: &BTreeMap<String, Seen>| {
            check(&settings(text), seen).into_iter().max_by_key(|finding| finding.severity).unwrap()
        };
        let chained = format!("{TEXT}[chains]\nc = [\"p/m\"]\n").replace("501", "500");
        assert_eq!(worst("", &BTreeMap::new()).severity, Severity::Fine);
        assert_eq!(worst(&chained, &seen(Ok(()), Some(Ok(listed(200, "m:latest"))))).severity, Severity::Fine);
        let other = worst(&chained, &seen(Ok(()), Some(Ok(listed(200, "n")))));
        assert!(other.severity == Severity::Warning && other.text.contains("does not list m; it lists n"), "{other:?}");
        for reply in [Listed::read(404, b"{}"), Listed::read(200, b"<html>welcome</html>")] {
            let wrong = worst(&chained, &seen(Ok(()), Some(Ok(reply))));
            assert!(wrong.severity == Severity::Warning && wrong.text.contains("check base_url"), "{wrong:?}");
        }
        assert!(worst(TEXT, &seen(Ok(()), None)).text.contains("per_decision_usd"));
        for (seen, words) in [
            (seen(Err("provider p: no key".into()), None), "no key"),
            (seen(Ok(()), Some(Ok(listed(401, "")))), "renew"),
            (seen(Ok(()), Some(Ok(listed(402, "")))), "credit"),
            (seen(Ok(()), Some(Err("refused".into()))), "cannot be reached"),
            (seen(Ok(()), Some(Err("no answer within 10 s".into()))), "no answer within 10 s"),
            (seen(Ok(()), Some(Err("invalid peer certificate: Expired".into()))), "over TLS"),
        ] {
            let finding = worst(&chained, &seen);
            assert!(finding.severity == Severity::Problem && finding.text.contains(words), "{finding:?}");
        }
    }
}
