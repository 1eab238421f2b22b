//! What outlives one life of the router: breakers, rates, permits, counters, keys, the way to the store.
//!
//! A router that is restarted after a panic goes on with all of it; a process that is restarted goes on with breakers
//! and rates from the rows beside the truth.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use actix::Recipient;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore};

use super::{Misses, ModelOutcome, ProviderStatus, http::Http, keys::Key, tape::Tape};
use crate::{
    llm::{plan::Doubt, question::FailureKind, rations::WorstCases},
    model::{Capability, Clock, DegradationLevel, Event, Ts, spending::ModelSpending, time::MINUTE_MS},
    providers::{
        breaker::{Breaker, BreakerState, Outcome, Ticket},
        rate::{Bucket, RateLimits},
        retries::Retries,
    },
    runtime::{clock::LogicalClock, failpoint, post::post},
    settings::{DegradationSettings, ModelSettings, ProviderSettings, Settings},
    store::{
        actor::{AuxRow, AuxWrite, Commit},
        batch::Batch,
        view::StateView,
    },
};

/// Tree of the rows beside the truth; one per provider.
pub const TREE: &str = "providers";

/// What a provider's endpoint keeps over a restart.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Its breaker.
    pub breaker: Breaker,
    /// Its rate.
    pub bucket: Bucket,
    /// Configuration and key under which the breaker stood: another one releases it.
    pub under: String,
}

/// What the router is made of.
pub struct RouterParts {
    /// All settings.
    pub settings: Rc<Settings>,
    /// SHA-256 of the effective settings: a change releases breakers.
    pub config_hash: String,
    /// Logical time.
    pub clock: LogicalClock,
    /// The state.
    pub view: StateView,
    /// Takes the ledger's events.
    pub store: Recipient<Commit>,
    /// Takes breakers and rates.
    pub aux: Recipient<AuxWrite>,
    /// Rows of [`TREE`] at the start.
    pub stored: Vec<(String, Vec<u8>)>,
    /// By provider: its key, none when it needs none, or why there is none.
    pub keys: BTreeMap<String, Result<Option<Key>, String>>,
    /// Recording.
    pub tape: Tape,
    /// Drives the draws of back-offs and breakers.
    pub seed: u64,
    /// How calls leave this process; absent where they may not.
    pub http: Option<Http>,
    /// What a run of each task may cost.
    pub worst_cases: WorstCases,
}

/// One provider's endpoint.
pub struct Endpoint {
    /// Its name in the settings.
    pub name: String,
    /// Its settings.
    pub settings: ProviderSettings,
    /// Its key, none when it needs none, or why there is none.
    pub key: Result<Option<Key>, String>,
    /// Calls under way at once.
    pub permits: Semaphore,
    /// What the newest call left open, and since when; not kept, because a start while degraded doubts anew.
    pub doubt: Cell<(Doubt, Ts)>,
    /// How many of its calls repeated others.
    pub retries: RefCell<Retries>,
    breaker: RefCell<Breaker>,
    bucket: RefCell<Bucket>,
    under: String,
    counts: RefCell<(u64, BTreeMap<&'static str, u64>)>,
}

impl Endpoint {
    /// Long-run rate and burst.
    pub fn rate(&self) -> RateLimits {
        RateLimits { calls_per_minute: self.settings.calls_per_minute, burst: self.settings.burst }
    }

    /// Takes one call of the rate.
    ///
    /// # Errors
    /// When there is one.
    pub fn take(&self, now: Ts) -> Result<(), Ts> {
        self.bucket.borrow_mut().take(self.rate(), now)
    }

    /// What the newest calls left open, unless it is too long ago to say anything.
    pub fn doubt_at(&self, now: Ts, settings: &DegradationSettings) -> Doubt {
        let (doubt, at) = self.doubt.get();
        let forgotten = now.since_ms(at) > i64::from(settings.sample_max_age_minutes) * MINUTE_MS;
        if forgotten { Doubt::None } else { doubt }
    }

    fn kept(&self) -> Kept {
        Kept { breaker: self.breaker.borrow().clone(), bucket: *self.bucket.borrow(), under: self.under.clone() }
    }
}

/// The right to one call; a call that is dropped before its end gives it back without a finding.
pub struct Admission {
    endpoint: Rc<Endpoint>,
    ticket: Option<Ticket>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.endpoint.breaker.borrow_mut().abandon(ticket);
        }
    }
}

/// See the module.
pub struct Shared {
    /// All settings.
    pub settings: Rc<Settings>,
    /// Logical time.
    pub clock: LogicalClock,
    /// The state.
    pub view: StateView,
    /// By name.
    pub endpoints: BTreeMap<String, Rc<Endpoint>>,
    /// Recording.
    pub tape: Tape,
    /// Absent where calls may not leave.
    pub http: Option<Http>,
    /// What a run of each task may cost.
    pub worst_cases: WorstCases,
    /// Held from looking at the ledger until the reservation is durable: two calls never share the same money.
    pub ledger: Mutex<()>,
    /// Told of every logical call; set once the coordinator runs.
    pub outcomes: RefCell<Option<Recipient<ModelOutcome>>>,
    /// Questions a replay could not answer.
    pub misses: RefCell<Misses>,
    store: Recipient<Commit>,
    aux: Recipient<AuxWrite>,
    draws: RefCell<ChaCha8Rng>,
}

impl Shared {
    /// Puts the parts together; breakers and rates go on where they were.
    pub fn new(parts: RouterParts) -> Rc<Shared> {
        let now = parts.clock.now();
        let stored: BTreeMap<&str, Kept> = parts
            .stored
            .iter()
            // A row that cannot be read is like one that was lost: the endpoint begins anew.
            .filter_map(|(name, row)| Some((name.as_str(), serde_json::from_slice(row).ok()?)))
            .collect();
        let level = parts.view.read().coordinator.degradation.get(&Capability::Llm).copied().unwrap_or_default();
        let doubt = if level > DegradationLevel::Normal { Doubt::Reach } else { Doubt::None };
        let mut endpoints = BTreeMap::new();
        for (name, settings) in &parts.settings.providers {
            let key = parts.keys.get(name).cloned().unwrap_or(Ok(None));
            let print = key.as_ref().ok().and_then(Option::as_ref).map(Key::fingerprint).unwrap_or_default();
            let under = format!("{} {print}", parts.config_hash);
            let kept = stored.get(name.as_str()).cloned();
            let bucket = kept.as_ref().map_or(Bucket::full(now), |kept| kept.bucket);
            let mut breaker = kept.as_ref().map(|kept| kept.breaker.clone()).unwrap_or_default();
            if kept.is_some_and(|kept| kept.under != under) {
                breaker.release();
            }
            let endpoint = Endpoint {
                name: name.clone(),
                settings: settings.clone(),
                key,
                permits: Semaphore::new(settings.max_parallel.max(1) as usize),
                doubt: Cell::new((doubt, now)),
                retries: RefCell::default(),
                breaker: RefCell::new(breaker),
                bucket: RefCell::new(bucket),
                under,
                counts: RefCell::default(),
            };
            endpoints.insert(name.clone(), Rc::new(endpoint));
        }
        let http = parts.http.filter(|_| !parts.tape.replays());
        Rc::new(Shared {
            settings: parts.settings,
            clock: parts.clock,
            view: parts.view,
            endpoints,
            tape: parts.tape,
            http,
            worst_cases: parts.worst_cases,
            ledger: Mutex::new(()),
            outcomes: RefCell::new(None),
            misses: RefCell::default(),
            store: parts.store,
            aux: parts.aux,
            draws: RefCell::new(ChaCha8Rng::seed_from_u64(parts.seed)),
        })
    }

    /// Provider and model of a chain's entry, with their settings.
    pub fn target<'a>(&self, entry: &'a str) -> Option<(Rc<Endpoint>, &'a str, ModelSettings)> {
        let (provider, model) = entry.split_once('/')?;
        let endpoint = self.endpoints.get(provider)?;
        let settings = endpoint.settings.models.get(model)?;
        Some((Rc::clone(endpoint), model, settings.clone()))
    }

    /// Level of the whole program and of the capability `llm`.
    pub fn levels(&self) -> (DegradationLevel, DegradationLevel) {
        let state = self.view.read();
        let levels = &state.coordinator.degradation;
        let own = levels.get(&Capability::Llm).copied().unwrap_or_default();
        (levels.values().copied().max().unwrap_or_default(), own)
    }

    /// A draw in 0..1.
    pub fn draw(&self) -> f64 {
        self.draws.borrow_mut().random_range(0.0..1.0)
    }

    /// Asks the breaker of an endpoint for one call.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn admit(&self, endpoint: &Rc<Endpoint>) -> Result<Admission, String> {
        let ticket = endpoint.breaker.borrow_mut().admit(self.clock.now());
        match ticket {
            Ok(ticket) => Ok(Admission { endpoint: Rc::clone(endpoint), ticket: Some(ticket) }),
            Err(refused) => Err(format!("the breaker does not let calls through: {refused:?}")),
        }
    }

    /// Counts what came of an admitted call and keeps breaker and rate.
    pub fn record(&self, mut admission: Admission, outcome: Option<Outcome>) {
        let endpoint = Rc::clone(&admission.endpoint);
        if let (Some(outcome), Some(ticket)) = (outcome, admission.ticket.take()) {
            let jitter = self.draw() * 2.0 - 1.0;
            let now = self.clock.now();
            let changed = endpoint.breaker.borrow_mut().record(ticket, outcome, &self.settings.breaker, jitter, now);
            if let Some(change) = changed {
                tracing::warn!(provider = endpoint.name, from = ?change.from, to = ?change.to, "the breaker changed");
            }
        }
        drop(admission);
        self.keep(&endpoint);
    }

    /// Writes breaker and rate beside the truth.
    pub fn keep(&self, endpoint: &Endpoint) {
        let row = AuxRow::put(TREE, endpoint.name.clone(), endpoint.kept());
        post("store", &self.aux, AuxWrite(vec![row]));
    }

    /// Counts an attempt.
    pub fn count(&self, endpoint: &Endpoint, failure: Option<FailureKind>) {
        let mut counts = endpoint.counts.borrow_mut();
        counts.0 += 1;
        if let Some(kind) = failure {
            *counts.1.entry(kind.name()).or_default() += 1;
        }
    }

    /// Some breaker of a chain's provider does not let calls through freely.
    pub fn strained(&self) -> bool {
        let chains = self.settings.chains.values().flatten();
        chains
            .filter_map(|entry| self.endpoints.get(entry.split_once('/')?.0))
            .any(|endpoint| endpoint.breaker.borrow().is_open())
    }

    /// The ledger as it stands now.
    pub fn spending(&self, day: i64) -> ModelSpending {
        self.view.read().models.on(day)
    }

    /// Makes events durable; false when the store did not take them.
    pub async fn commit(&self, corr: String, events: Vec<Event>) -> bool {
        let batch = Batch::new("router", corr.clone(), corr, self.clock.now(), events);
        failpoint::effect("commit.router", "");
        matches!(self.store.send(Commit(batch)).await, Ok(Ok(_)))
    }

    /// Tells the coordinator what came of a logical call.
    pub fn tell(&self, result: Result<(), String>) {
        if let Some(outcomes) = &*self.outcomes.borrow() {
            // Told of a call that failed as well: an open breaker does not close because of it.
            let strained = self.strained();
            post("coordinator", outcomes, ModelOutcome { result, strained });
        }
    }

    /// How the providers are.
    pub fn status(&self) -> Vec<ProviderStatus> {
        let spending = self.spending(self.clock.now().day());
        let one = |endpoint: &Rc<Endpoint>| {
            let held = spending.open.values().filter(|held| held.provider == endpoint.name);
            let counts = endpoint.counts.borrow();
            ProviderStatus {
                provider: endpoint.name.clone(),
                kind: endpoint.settings.kind.name().to_owned(),
                breaker: words(endpoint.breaker.borrow().state()),
                calls: counts.0,
                failures: counts.1.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
                spent_today_usd: spending.by_provider.get(&endpoint.name).copied().unwrap_or_default(),
                reserved_usd: held.map(|held| held.amount).sum(),
                key_problem: endpoint.key.as_ref().err().cloned(),
            }
        };
        self.endpoints.values().map(one).collect()
    }
}

fn words(state: BreakerState) -> String {
    match state {
        BreakerState::Closed => "closed".to_owned(),
        BreakerState::Open { until } => format!("open until {until}"),
        BreakerState::HalfOpen => "half-open".to_owned(),
        BreakerState::Locked => "locked: the provider refuses the key".to_owned(),
    }
}
