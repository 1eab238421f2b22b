//! Rules of providers, chains, breaker, budget and recordings.

use super::Judge;
use crate::settings::{CassetteMode, ProviderSettings, keys};

pub(super) fn judge(judge: &mut Judge<'_>) {
    let s = judge.settings;
    for (name, provider) in &s.providers {
        source_of_key(judge, name, provider);
        address(judge, name, provider);
        if provider.models.is_empty() {
            let message = "has no model: add `[providers.NAME.models.MODEL]` with its price and max_output_tokens";
            judge.fail(&[&format!("providers.{name}")], message.replace("NAME", name));
        }
    }
    chains(judge);
    for (key, chain) in s.agents.chains().chain([("conflicts.chain", s.conflicts.chain.as_str())]) {
        if !chain.is_empty() {
            known_chain(judge, key, chain);
        }
    }
    speed(judge);
    let (b, money) = (&s.breaker, &s.budget);
    judge.ordered(false, ("breaker.min_calls", b.min_calls), ("breaker.window", b.window));
    judge.ordered(false, ("breaker.probes_needed", b.probes_needed), ("breaker.probes", b.probes));
    judge.ordered(false, ("breaker.open_seconds", b.open_seconds), ("breaker.open_max_seconds", b.open_max_seconds));
    judge.ordered(false, ("budget.warn_usd", money.warn_usd), ("budget.daily_usd", money.daily_usd));
    judge.ordered(false, ("budget.per_decision_usd", money.per_decision_usd), ("budget.daily_usd", money.daily_usd));
    if s.cassette.mode != CassetteMode::Off && s.cassette.dir.trim().is_empty() {
        judge.fail(&["cassette.dir", "cassette.mode"], "record and replay need a folder: set cassette.dir");
    }
}

fn source_of_key(judge: &mut Judge<'_>, name: &str, provider: &ProviderSettings) {
    let (env, file) = (format!("providers.{name}.key_env"), format!("providers.{name}.key_file"));
    match (provider.key_env.is_empty(), provider.key_file.is_empty()) {
        (true, true) if provider.kind.needs_key() => {
            let message = format!("{} needs a key: set `{env}` or `{file}`", provider.kind.name());
            judge.fail(&[&format!("providers.{name}")], message);
        }
        (false, false) => judge.fail(&[&env, &file], format!("set either `{env}` or `{file}`, not both")),
        _ => {}
    }
}

/// A key never leaves over an open line, and never stands in an address.
fn address(judge: &mut Judge<'_>, name: &str, provider: &ProviderSettings) {
    let key = format!("providers.{name}.base_url");
    let url = provider.endpoint();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let loopback = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    let keyless = provider.key_env.is_empty() && provider.key_file.is_empty();
    let message = match scheme {
        _ if authority.contains('@') => "must hold no user or password: use key_env or key_file",
        _ if url.contains(['?', '#', ' ']) => "must be an address without query, fragment or space",
        "https" | "http" if host.is_empty() => "has no host",
        "http" if !loopback && !keyless => "must be https: the key would travel unencrypted",
        "https" | "http" => return,
        _ => "must begin with https:// or http://",
    };
    judge.fail(&[&key], message);
}

/// Models answer in real time; a faster clock would be at the deadline before the first word.
fn speed(judge: &mut Judge<'_>) {
    let s = judge.settings;
    if !s.chains.is_empty() && s.cassette.mode != CassetteMode::Replay && s.runtime.speed > 1 {
        let message = "models answer in real time: set runtime.speed = 1, or cassette.mode = \"replay\"";
        judge.fail(&["runtime.speed", "chains"], message);
    }
}

/// `key` names a chain of `[chains]`.
pub(super) fn known_chain(judge: &mut Judge<'_>, key: &str, name: &str) {
    let chains = &judge.settings.chains;
    if chains.contains_key(name) {
        return;
    }
    let hint = match keys::nearest(name, chains.keys().map(String::as_str)) {
        Some(near) => format!(", did you mean `{near}`?"),
        None if chains.is_empty() => {
            ": no chain is configured; add `NAME = [\"provider/model\"]` to [chains]".to_owned()
        }
        None => format!("; known: {}", chains.keys().cloned().collect::<Vec<_>>().join(", ")),
    };
    judge.fail(&[key], format!("unknown chain `{name}`{hint}"));
}

/// Every entry names a configured model.
fn chains(judge: &mut Judge<'_>) {
    let s = judge.settings;
    let known: Vec<String> = s
        .providers
        .iter()
        .flat_map(|(provider, settings)| settings.models.keys().map(move |model| format!("{provider}/{model}")))
        .collect();
    for (name, chain) in &s.chains {
        for (i, entry) in chain.iter().enumerate() {
            if known.contains(entry) {
                continue;
            }
            let hint = match keys::nearest(entry, known.iter().map(String::as_str)) {
                Some(near) => format!(", did you mean `{near}`?"),
                None if known.is_empty() => ": no model is configured under [providers]".to_owned(),
                None => format!("; known: {}", known.join(", ")),
            };
            let what = if entry.contains('/') { "unknown model" } else { "must look like provider/model:" };
            judge.fail(&[&format!("chains.{name}[{i}]"), &format!("chains.{name}")], format!("{what} `{entry}`{hint}"));
        }
    }
}
