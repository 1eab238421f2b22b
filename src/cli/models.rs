//! Starts the router of models on what recovery returned; nothing is started when no chain is configured.

use std::{collections::BTreeMap, rc::Rc};

use actix::Addr;
use anyhow::{Result, anyhow, bail};

use crate::{
    llm::actor::{
        keys,
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
    /// Virtual time: nothing leaves the process.
    pub is_virtual: bool,
}

/// The router and what outlives its lives.
pub(super) type Running = (Addr<Router>, Rc<Shared>);

/// Starts the router.
///
/// # Errors
/// Keys that are missing or readable by others, all at once; a recording that cannot be read; no TLS.
pub(super) fn start(around: Around, on_incident: fn(&Incident)) -> Result<Option<Running>> {
    let settings = around.settings;
    if settings.chains.is_empty() {
        return Ok(None);
    }
    let network = !around.is_virtual && settings.cassette.mode != CassetteMode::Replay;
    let mut providers = BTreeMap::new();
    let mut missing = Vec::new();
    for (name, provider) in settings.providers.iter().filter(|_| network) {
        let key = keys::read(name, provider, &|variable| std::env::var(variable).ok());
        missing.extend(key.as_ref().err().cloned());
        providers.insert(name.clone(), key);
    }
    if !missing.is_empty() {
        bail!("{}", missing.join("\n"));
    }
    let seed = around.view.read().meta.seed ^ u64::from(around.view.read().meta.epoch);
    let policy = Policy::from_settings(&settings.supervisor);
    let parts = RouterParts {
        tape: Tape::open(&settings.cassette).map_err(|text| anyhow!(text))?,
        settings,
        config_hash: around.config_hash,
        clock: around.clock,
        view: around.view,
        store: around.store.clone().recipient(),
        aux: around.store.recipient(),
        stored: around.stored,
        keys: providers,
        seed,
        network,
    };
    let shared = Shared::new(parts).map_err(|text| anyhow!(text))?;
    let lives = Rc::clone(&shared);
    let router = supervise("models", policy, move || Router::new(Rc::clone(&lives)), on_incident);
    Ok(Some((router, shared)))
}
