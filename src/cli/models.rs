//! Starts the router of models on what recovery returned; nothing is started when no chain is configured.

use std::{collections::BTreeMap, rc::Rc};

use actix::Addr;
use anyhow::{Result, anyhow, bail};

use crate::{
    agents::worst_case,
    coordinator::watch::MODELS,
    llm::actor::{
        http::Http,
        keys::{self, Key},
        recorder::Recorder,
        router::Router,
        shared::{RouterParts, Shared},
        tape::Tape,
    },
    runtime::{
        clock::LogicalClock,
        supervisor::{Incident, Policy, supervise},
    },
    settings::{CassetteMode, Settings},
    store::{StoreActor, view::StateView},
};

/// What a router needs of the rest of the program.
pub(super) struct Around {
    /// What the program is told.
    pub settings: Rc<Settings>,
    /// SHA-256 of the effective settings, hex.
    pub config_hash: String,
    /// Logical time.
    pub clock: LogicalClock,
    /// Newest durable state.
    pub view: StateView,
    /// Takes the ledger.
    pub store: Addr<StoreActor>,
    /// Breakers and rates of the last process.
    pub stored: Vec<(String, Vec<u8>)>,
    /// Virtual time: nothing leaves the process but calls that are recorded, during which it stands still.
    pub is_virtual: bool,
    /// Who stands for the network; nothing outside tests.
    pub stand: Option<Http>,
}

/// The router and what outlives its lives.
pub(super) type Running = (Addr<Router>, Rc<Shared>);

/// The keys a live program needs; none when no model is asked over the network.
///
/// # Errors
/// Keys that are missing or readable by others, all at once.
pub(super) fn read_keys(settings: &Settings) -> Result<BTreeMap<String, Option<Key>>> {
    if settings.chains.is_empty() || settings.cassette.mode == CassetteMode::Replay {
        return Ok(BTreeMap::new());
    }
    let (mut keys, mut missing) = (BTreeMap::new(), Vec::new());
    for (name, provider) in &settings.providers {
        match keys::read(name, provider, &|variable| std::env::var(variable).ok()) {
            Ok(key) => drop(keys.insert(name.clone(), key)),
            Err(why) => missing.push(why),
        }
    }
    if !missing.is_empty() {
        bail!("{}", missing.join("\n"));
    }
    Ok(keys)
}

/// Starts the router.
///
/// # Errors
/// Keys that are missing or readable by others, all at once; a recording that cannot be read; no TLS.
pub(super) fn start(around: Around, on_incident: impl FnMut(&Incident) + 'static) -> Result<Option<Running>> {
    let settings = around.settings;
    if settings.chains.is_empty() {
        return Ok(None);
    }
    let mode = settings.cassette.mode;
    let held = around.is_virtual && around.stand.is_none() && mode == CassetteMode::Record;
    let http = match around.stand {
        None if held => {
            Some(Http::recorded_by(Recorder::start(settings.cassette.max_usd).map_err(|text| anyhow!(text))?))
        }
        None if !around.is_virtual && mode != CassetteMode::Replay => Some(Http::new().map_err(|text| anyhow!(text))?),
        stand => stand,
    };
    let keys = if around.is_virtual && !held { BTreeMap::new() } else { read_keys(&settings)? };
    let seed = around.view.read().meta.seed ^ u64::from(around.view.read().meta.epoch);
    let policy = Policy::from_settings(&settings.supervisor);
    let parts = RouterParts {
        worst_cases: worst_case::of(&settings),
        tape: Tape::open(&settings.cassette, held).map_err(|text| anyhow!(text))?,
        settings,
        config_hash: around.config_hash,
        clock: around.clock,
        view: around.view,
        store: around.store.clone().recipient(),
        aux: around.store.recipient(),
        stored: around.stored,
        keys: keys.into_iter().map(|(name, key)| (name, Ok(key))).collect(),
        seed,
        http,
    };
    let shared = Shared::new(parts);
    let lives = Rc::clone(&shared);
    let router = supervise(MODELS, policy, move || Router::new(Rc::clone(&lives)), on_incident);
    Ok(Some((router, shared)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load_with};

    #[test]
    fn every_missing_key_is_named_and_a_replay_needs_none() {
        let load = |text: &str| {
            let sources = Sources { file: Some("x.toml".into()), ..Sources::default() };
            load_with(&sources, &|_| Ok(text.to_owned())).unwrap().settings
        };
        let provider = |name: &str| {
            format!(
                "[providers.{name}]\nkind = \"xai\"\nkey_env = \"NO_SUCH_{name}\"\n[providers.{name}.models.m]\n\
                 input_usd_per_1k = 1\noutput_usd_per_1k = 1\nmax_output_tokens = 9\n"
            )
        };
        let both = format!("{}{}", provider("a"), provider("b"));
        let live = format!("runtime.speed = 1\n[chains]\nc = [\"a/m\", \"b/m\"]\n{both}");
        let missing = read_keys(&load(&live)).unwrap_err().to_string();
        assert!(missing.contains("NO_SUCH_a") && missing.contains("NO_SUCH_b"), "{missing}");
        assert!(read_keys(&load(&format!("{live}[cassette]\nmode = \"replay\"\ndir = \"x\"\n"))).is_ok());
        assert!(read_keys(&load(&both)).is_ok(), "nobody asks them");
    }
}
