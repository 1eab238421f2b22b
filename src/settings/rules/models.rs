//! Rules of providers, chains, breaker, budget and recordings.

use std::collections::{BTreeMap, BTreeSet};

use super::Judge;
use crate::{
    model::TaskName,
    settings::{AnswerForm, CassetteMode, ProviderKind, ProviderSettings, Settings, keys},
};

pub(super) fn judge(judge: &mut Judge<'_>) {
    let s = judge.settings;
    for (name, provider) in &s.providers {
        source_of_key(judge, name, provider);
        address(judge, name, provider);
        if provider.models.is_empty() {
            let message = "has no model: add `[providers.NAME.models.MODEL]` with its price and max_output_tokens";
            judge.fail(&[&format!("providers.{name}")], message.replace("NAME", name));
        }
        answer_forms(judge, name, provider);
    }
    chains(judge);
    places(judge);
    for (key, chain) in s.agents.chains().chain([("conflicts.chain", s.conflicts.chain.as_str())]) {
        if !chain.is_empty() {
            known_chain(judge, key, chain);
        }
    }
    invented(judge);
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

/// Anthropic's format has a field for a schema and none for the mere wish for JSON.
fn answer_forms(judge: &mut Judge<'_>, name: &str, provider: &ProviderSettings) {
    let wished = provider.models.iter().filter(|(_, model)| model.answer_form == Some(AnswerForm::Json));
    for (model, _) in wished.filter(|_| provider.kind == ProviderKind::Anthropic) {
        let message = format!("answer_form of `{model}`: anthropic takes `schema` or `prompt`");
        judge.fail(&[&format!("providers.{name}")], message);
    }
}

/// Runs and calls that may be under way at once for one provider.
#[derive(Default)]
struct Load<'a> {
    runs: usize,
    calls: usize,
    tasks: BTreeSet<&'a str>,
}

/// A run that waits for a model holds its places. With fewer places than such runs a symbol waits for another's model.
fn places(judge: &mut Judge<'_>) {
    let s = judge.settings;
    let mut loads: BTreeMap<&str, Load<'_>> = BTreeMap::new();
    let (mut thinking, mut warnings) = (0, Vec::new());
    for (task, settings) in s.tasks.iter().filter(|(_, task)| task.enabled) {
        let chains: Vec<BTreeSet<&str>> = s.chains_of(*task).into_iter().map(|chain| asked(s, chain)).collect();
        let symbols = settings.symbols.len();
        if chains.is_empty() {
            continue;
        }
        thinking += symbols;
        if (settings.max_parallel as usize) < symbols {
            warnings.push(format!(
                "tasks.{task}.max_parallel = {} is fewer than its {symbols} symbols: one then waits for another's model; \
                 set it to at least {symbols}",
                settings.max_parallel
            ));
        }
        let firsts: BTreeSet<&str> = s.chains_of(*task).into_iter().filter_map(|chain| asked_first(s, chain)).collect();
        for provider in firsts {
            loads.entry(provider).or_default().runs += symbols;
        }
        let settles = if *task == TaskName::TradingDecision { asked(s, &s.conflicts.chain) } else { BTreeSet::new() };
        for provider in chains.iter().flatten().chain(&settles).copied().collect::<BTreeSet<_>>() {
            // A decision's conflict is settled when its votes are in.
            let each = chains.iter().filter(|chain| chain.contains(provider)).count().max(1);
            let load = loads.entry(provider).or_default();
            load.calls += symbols * each;
            load.tasks.insert(task.name());
        }
    }
    let too_few = |key: &str, given: u32, needed: usize, what: &str, who: &str| {
        format!(
            "{key} = {given} is fewer than the {needed} {what} that may wait for it at once ({who}): one symbol then waits \
             for another's model; set it to at least {needed}"
        )
    };
    for (provider, Load { runs, calls, tasks }) in loads {
        let who = format!("{provider}: {}", tasks.into_iter().collect::<Vec<_>>().join(", "));
        let given = s.scheduler.max_per_provider;
        if (given as usize) < runs {
            warnings.push(too_few("scheduler.max_per_provider", given, runs, "runs", &who));
        }
        let given = s.providers.get(provider).map_or(u32::MAX, |settings| settings.max_parallel);
        if (given as usize) < calls {
            warnings.push(too_few(&format!("providers.{provider}.max_parallel"), given, calls, "calls", &who));
        }
    }
    if thinking > 0 && s.scheduler.max_concurrent_runs as usize <= thinking {
        warnings.push(format!(
            "scheduler.max_concurrent_runs = {} has no place beside the {thinking} runs that may wait for models at once; \
             set it to at least {}",
            s.scheduler.max_concurrent_runs,
            thinking + 1
        ));
    }
    warnings.into_iter().for_each(|warning| judge.warn(warning));
}

/// The providers of a chain.
fn asked<'a>(settings: &'a Settings, chain: &str) -> BTreeSet<&'a str> {
    let entries = settings.chains.get(chain).into_iter().flatten();
    entries.filter_map(|entry| entry.split_once('/')).map(|(provider, _)| provider).collect()
}

/// The provider a chain asks first.
fn asked_first<'a>(settings: &'a Settings, chain: &str) -> Option<&'a str> {
    settings.chains.get(chain)?.first()?.split_once('/').map(|(provider, _)| provider)
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

/// No agent reads news: a model that is asked for a mood is told the name of the asset and nothing else.
fn invented(judge: &mut Judge<'_>) {
    let s = judge.settings;
    let sentiment = &s.agents.sentiment_analysis;
    let enabled = s.tasks.get(&TaskName::SentimentAnalysis).is_some_and(|task| task.enabled);
    let asked = [("social", &sentiment.social), ("news", &sentiment.news)];
    for (name, chain) in asked.into_iter().filter(|(_, chain)| enabled && !chain.is_empty()) {
        judge.warn(format!(
            "agents.sentiment_analysis.{name}: chain `{chain}` is told the name of the asset and nothing else; a model that does \
             not search by itself invents the mood it reports"
        ));
    }
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
