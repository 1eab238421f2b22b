//! `run`: the long-running process. Recover, take history in, start the actors, serve, and drain when told to stop.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use actix::{Actor, Context as ActorContext, Handler, Recipient};
use anyhow::{Context, Result};
use reqwest::Url;

use super::{
    Global, config,
    feeds::{csv_feed, make_feed, watched},
    live_feed, load, logging, models, new_store_only,
    system::{self, Ingredients, System},
};
#[cfg(feature = "failpoints")]
use crate::runtime::chaos;
use crate::{
    api::{self, Surface, auth},
    coordinator::{
        actor::Drain,
        announce::Notifier,
        describe::Loudness,
        heartbeat::{Beat, Watch},
        states,
        timekeeper::{AuditSource, Outside, WallSource},
    },
    execution::actor::Stop,
    market::{Feed, Market, actor::FeedEnded, feed::kraken::view::Shared},
    model::{
        Clock, CoordinatorState, Event, TaskName, Ts,
        time::{HOUR_MS, MINUTE_MS},
    },
    runtime::{
        boots,
        clock::wall_now,
        dead_man::{self, DeadMan},
        failpoint,
        failure::{Exit, Failure},
        placement::{Place, run_live},
        service::Service,
        shutdown::{end_by_force_if_needed, signals, stop_on_signal},
        terminal::note,
        webhook::Webhook,
    },
    settings::{Loaded, MarketSource, Settings, sections::CrashLoopSettings},
    store::{
        AuxChange, Batch, CRASHES, Close, Commit, Detach, Flush, LEFT_WALL, META, OpenInfo, Opened, Store, StoreError,
        VERIFIED_AT, lock::StoreLock, reader, starts, verify,
    },
};

/// Where the access token is kept.
pub fn token_file(settings: &Settings) -> PathBuf {
    PathBuf::from(&settings.api.token_file)
}

/// Runs until told to stop.
///
/// # Errors
/// Settings (exit 2), a store that cannot be opened (73 when it is in use), a taken port, a feed that cannot be used.
pub fn run(global: &Global, speed: Option<u32>) -> Result<Exit> {
    let more: Vec<(&str, String)> = speed.map(|n| ("runtime.speed", n.to_string())).into_iter().collect();
    let loaded = load(global, &more)?;
    let _log = logging::start(&loaded.settings.log)?;
    for warning in config::warnings(&loaded) {
        tracing::info!("{warning}");
    }
    let data = PathBuf::from(&loaded.settings.data_dir);
    let enabled = loaded.settings.api.enabled;
    if enabled {
        auth::check(&token_file(&loaded.settings)).map_err(wrong_usage)?;
    }
    models::read_keys(&loaded.settings).map_err(wrong_usage)?;
    let dead_man = dead_man(&loaded.settings).map_err(wrong_usage)?;
    let webhook = webhook(&loaded.settings).map_err(wrong_usage)?;
    // The port before the store, so that a refused start leaves no boot in the journal; but a store that is in use is
    // the better answer when both are taken by the same process.
    let listener = match enabled.then(|| api::listen(&loaded.settings.api.bind)).transpose() {
        Err(error) if !StoreLock::is_held(&data) => return Err(error),
        listener => listener,
    };
    let (mut store, mut opened) = open_store(&data, &loaded)?;
    if !opened.created && !opened.frozen {
        opened.warnings.extend(new_store_only::without_effect(&loaded.settings, &opened.state));
    }
    note_boot(&mut store, &mut opened, &data, &loaded.settings.supervisor.crash_loop)
        .map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let listener = match listener? {
        Some(listener) => Some((listener, auth::load_or_create(&token_file(&loaded.settings)).map_err(wrong_usage)?)),
        None => None,
    };
    let start = logical_start(&opened, &loaded.settings)?;
    say_what_was_found(&opened, &data, start, loaded.settings.runtime.speed);
    run_live(start, loaded.settings.runtime.speed, |place| {
        live(place, loaded, store, opened, listener, Told { dead_man, webhook })
    })?
}

/// Only a person can help; the service manager does not try again.
fn wrong_usage(error: anyhow::Error) -> anyhow::Error {
    Failure::new(Exit::Usage, format!("{error:#}")).into()
}

fn open_store(data: &Path, loaded: &Loaded) -> Result<(Store, Opened)> {
    let settings = &loaded.settings;
    let seed = if settings.seed == 0 { fresh_seed() } else { settings.seed };
    // A replay lives in the time of its candles from its first record on.
    let now = match settings.market.source {
        MarketSource::Csv => csv_feed(settings).map_err(wrong_usage)?.peek_at().unwrap_or_else(wall_now),
        MarketSource::Simulated | MarketSource::Kraken => wall_now(),
    };
    let info = OpenInfo {
        seed,
        data_kind: data_kind(settings).to_owned(),
        config_hash: loaded.hash.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now,
        deposits: system::deposits(settings),
        stands_still: settings.runtime.speed > 1 || settings.market.source == MarketSource::Csv,
        store_id: Some(uuid::Uuid::now_v7()),
    };
    Store::open(data, &settings.store, &info).map_err(|error| {
        // A full disk under a store that has records is worth another try; under none there is nothing to recover.
        let new = reader::segments(&data.join("journal")).is_ok_and(|segments| segments.is_empty());
        let full = matches!(error, StoreError::Full { .. });
        let exit = if new && full { Exit::Usage } else { Exit::from_code(error.exit_code()) };
        Failure::new(exit, error.to_string()).into()
    })
}

/// Notes a start that follows a crash before anything else can crash, and begins PAUSED when there were too many: a
/// program that fails by what it does must not do it again and again by itself.
fn note_boot(store: &mut Store, opened: &mut Opened, data: &Path, limits: &CrashLoopSettings) -> Result<()> {
    // A drain that was cut short is recovered from like a crash; it is none.
    let clean = opened.created || opened.recovered.clean || starts::was_stopping(data);
    let rows = store.aux_rows(META)?;
    // A row that cannot be read is as good as none: only the count of a loop begins anew.
    let earlier: Option<Vec<Ts>> =
        rows.iter().find(|(key, _)| key == CRASHES).and_then(|(_, row)| serde_json::from_slice(row).ok());
    let window_ms = i64::from(limits.minutes) * MINUTE_MS;
    let boots =
        boots::judge(&earlier.unwrap_or_default(), &opened.aborted, clean, wall_now(), limits.starts, window_ms);
    let value = Some(serde_json::to_vec(&boots.crashes)?);
    store.aux_write(vec![AuxChange { tree: META, key: CRASHES.to_owned(), value }])?;
    store.aux_flush()?;
    starts::counted(data);
    if boots.looping {
        let reason = states::boot_reason("crash_loop");
        opened.warnings.push(format!(
            "{} starts after a crash within {} minutes: PAUSED ({reason}); find the cause, then `resume`",
            boots.crashes.len(),
            limits.minutes,
        ));
        opened.pause = Some(reason);
    }
    Ok(())
}

/// A seed for a store that was not given one; stored at creation and never drawn again.
fn fresh_seed() -> u64 {
    let bytes = uuid::Uuid::now_v7().into_bytes();
    bytes.iter().rev().fold(0u64, |seed, byte| seed.rotate_left(7) ^ u64::from(*byte)) | 1
}

/// The kind of data a store of these settings holds.
pub const fn data_kind(settings: &Settings) -> &'static str {
    match settings.market.source {
        MarketSource::Simulated => "simulated",
        MarketSource::Csv => "csv",
        MarketSource::Kraken => "live",
    }
}

/// Where logical time begins. An accelerated clock stands still while the process is down; at speed 1 it is the wall's,
/// but never behind what is stored. A replay of candle files begins at its first candle and has no wall at all.
fn logical_start(opened: &Opened, settings: &Settings) -> Result<Ts> {
    let stored = opened.last_logical_time;
    if settings.market.source == MarketSource::Csv {
        let first = csv_feed(settings)?.peek_at().unwrap_or(stored);
        return Ok(if opened.created { first } else { stored.max(first) });
    }
    let stands_still = settings.runtime.speed > 1 && !opened.created;
    Ok(if stands_still { stored } else { wall_now().max(stored) })
}

fn say_what_was_found(opened: &Opened, data: &Path, start: Ts, speed: u32) {
    let state = &opened.state;
    if opened.created {
        tracing::info!("new store in {}; program time {start} at {speed}x", data.display());
    } else if opened.frozen {
        // What is wrong and what to do stands in the line of the halt.
        tracing::warn!(
            "the store in {} cannot be continued: the first {} records of its damaged journal are shown, {} positions and \
             {} living orders in them; nothing is supervised, nothing is written; program time {start} at {speed}x",
            data.display(),
            opened.recovered.records,
            state.positions.len(),
            state.trades.len(),
        );
    } else {
        let clean = if opened.recovered.clean { "after a clean stop" } else { "after a crash" };
        tracing::info!(
            "continuing the store in {} {clean}: {} records, {} positions, {} living orders, coordinator {}; program \
             time {start} at {speed}x",
            data.display(),
            opened.recovered.records,
            state.positions.len(),
            state.trades.len(),
            state.coordinator.state.name(),
        );
    }
    for warning in &opened.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(halt) = &opened.halt {
        tracing::error!("HALTED ({}): {}", halt.code, halt.text);
    }
}

/// The wall is followed at speed 1 only, and not while it is behind a time that an accelerated clock has reached: that
/// clock left the wall on purpose, as a replay does.
fn outside(settings: &Settings, store: &Store, opened: &Opened) -> Outside {
    let data = PathBuf::from(&settings.data_dir);
    let rows = store.aux_rows(META).unwrap_or_default();
    let left = rows.iter().any(|(key, _)| key == LEFT_WALL) && wall_now() < opened.last_logical_time;
    let follows = settings.runtime.speed <= 1 && settings.market.source != MarketSource::Csv && !left;
    let verified_at = rows.iter().find(|(key, _)| key == VERIFIED_AT);
    let verified_at = verified_at.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok().map(Ts));
    let journal = data.clone();
    // Over a damaged journal there is nothing left to find out.
    let audit = (!opened.frozen).then(|| Rc::new(move || verify::audit(journal.clone())) as AuditSource);
    let wall = follows.then(|| Rc::new(wall_now) as WallSource);
    Outside {
        wall,
        free_space: Some(Rc::new(move || fs2::available_space(&data).ok())),
        audit,
        verified_at,
        venue: (settings.market.source == MarketSource::Kraken).then(Shared::default),
        notifier: None,
        persisted: opened.last_logical_time,
        seldom: 1,
    }
}

/// Ends the process: a broken invariant or a failed store. The next start recovers.
pub fn fatal(what: &str) {
    tracing::error!("{what}; the process ends, the next start recovers");
    note!("fatal: {what}");
    Exit::Internal.end_now();
}

/// Hears that a feed has ended; a live process goes on, with stale data shown as such.
struct FeedWatch;

impl Actor for FeedWatch {
    type Context = ActorContext<Self>;
}

impl Handler<FeedEnded> for FeedWatch {
    type Result = ();
    fn handle(&mut self, ended: FeedEnded, _: &mut ActorContext<Self>) {
        match ended.error {
            Some(error) => tracing::error!("the feed broke: {error}"),
            None => tracing::warn!("the feed has ended; no new prices will come"),
        }
    }
}

async fn live(
    place: Place,
    loaded: Loaded,
    store: Store,
    opened: Opened,
    listener: Option<(std::net::TcpListener, auth::TokenDigest)>,
    told: Told,
) -> Result<Exit> {
    let settings = Rc::new(loaded.settings);
    let Told { dead_man, webhook } = told;
    let mut outside = outside(&settings, &store, &opened);
    outside.notifier = webhook.map(|url| notifier(url, &settings)).transpose()?;
    let notifier = outside.notifier.clone();
    let watched = watched(&settings, store.state());
    let view = outside.venue.clone().unwrap_or_default();
    let feed = make_feed(&watched, store.state(), place.clock.now(), &view).await?;
    let market = Market::new(&watched, feed.base())?;
    let (venue, seed) = (outside.venue.clone(), store.state().meta.seed);
    let on_end: Recipient<FeedEnded> = FeedWatch.start().recipient();
    let ingredients = Ingredients {
        settings: Rc::clone(&settings),
        config_hash: loaded.hash,
        place,
        store,
        opened,
        feed,
        outside,
        volatile: false,
        on_end,
        on_fatal: fatal,
        seams: system::Seams { market: Some(market), ..system::Seams::default() },
    };
    let system = system::assemble(ingredients).await?;
    if let Some(view) = venue {
        live_feed::start(&watched, &system, view, seed)?;
    }
    say_what_it_does(&settings, &system);
    let server = match listener {
        Some((listener, token)) => {
            let surface = Surface {
                status: system.coordinator.clone().recipient(),
                operate: system.desk.clone().recipient(),
                token,
                allowed_hosts: settings.api.allowed_hosts.clone(),
            };
            let handle = api::serve(listener, surface, fatal)?;
            tracing::info!("listening on http://{}, token in {}", settings.api.bind, settings.api.token_file);
            Some(handle)
        }
        None => None,
    };
    #[cfg(feature = "failpoints")]
    chaos::from_environment(&system.everyone());
    // Before anybody is told that it is ready: a manager may stop it at once.
    let signals = signals()?;
    let service = Service::from_environment();
    report_to(service.clone(), dead_man, &system).await?;
    let within = Duration::from_secs(u64::from(settings.coordinator.shutdown_seconds));
    end_by_force_if_needed(within)?;
    let stopped = stop_on_signal(signals, within, |signal| async move {
        starts::stopping(Path::new(&settings.data_dir));
        tracing::info!("{signal:?}: draining, at most {} s; a second signal ends at once", within.as_secs());
        if let Some(service) = service {
            service.stopping();
        }
        let exit = drain(&system).await;
        if let Some(notifier) = notifier {
            notifier.hook.flush(LAST_WORDS).await;
        }
        if let Some(server) = server {
            server.stop(false).await;
        }
        exit
    });
    Ok(stopped.await.exit())
}

/// Everybody is asked at least so often, and must answer within twice that, real time (resilience §6).
const BEAT: Duration = Duration::from_secs(5);

/// The switch outside of this machine, when one is configured.
fn dead_man(settings: &Settings) -> Result<Option<DeadMan>> {
    let (file, seconds) = (&settings.notify.dead_man_url_file, settings.notify.dead_man_seconds);
    if file.is_empty() {
        return Ok(None);
    }
    let url = dead_man::read_url("notify.dead_man_url_file", Path::new(file)).map_err(anyhow::Error::msg)?;
    DeadMan::new(url, Duration::from_secs(u64::from(seconds))).map(Some).map_err(anyhow::Error::msg)
}

/// Who is told outside of this machine.
struct Told {
    dead_man: Option<DeadMan>,
    webhook: Option<Url>,
}

/// What is still to be told when everything is drained has so long.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The address of notifications, when one is configured.
fn webhook(settings: &Settings) -> Result<Option<Url>> {
    let file = &settings.notify.webhook_url_file;
    let read = |file| dead_man::read_url("notify.webhook_url_file", Path::new(file)).map_err(anyhow::Error::msg);
    (!file.is_empty()).then(|| read(file)).transpose()
}

fn notifier(url: Url, settings: &Settings) -> Result<Notifier> {
    // Validation lets only names through that are known.
    let least = Loudness::parse(&settings.notify.min_level).unwrap_or(Loudness::Warning);
    Ok(Notifier { hook: Webhook::start(url).map_err(anyhow::Error::msg)?, least })
}

/// Ready now, alive with every beat of the coordinator that finds everybody answering; without anyone to tell, no beat.
async fn report_to(service: Option<Service>, mut dead_man: Option<DeadMan>, system: &System) -> Result<()> {
    if service.is_none() && dead_man.is_none() {
        return Ok(());
    }
    // A manager with less patience is told more often.
    let watchdog = service.as_ref().and_then(|service| service.watchdog);
    let every = watchdog.map_or(BEAT, |limit| BEAT.min(limit / 6));
    if let Some(service) = &service {
        service.ready("recovered, every actor runs");
    }
    let on_beat = Box::new(move |beat: &Beat| {
        let alive = beat.silent.is_empty();
        match &service {
            Some(manager) if alive => manager.alive(&beat.status),
            Some(manager) => manager.status(&beat.status),
            None => {}
        }
        if let Some(dead_man) = dead_man.as_mut().filter(|_| alive) {
            dead_man.alive();
        }
    });
    let watch = Watch { pulses: system.pulses.clone(), horizon: every * 2, every, on_beat };
    system.coordinator.send(watch).await.context("the coordinator does not answer")
}

/// What a person wants to know in the first second.
fn say_what_it_does(settings: &Settings, system: &System) {
    let symbols = settings.symbols.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let voters = settings.agents.trading_decision.voters.iter().filter(|voter| voter.enabled).count();
    let (state, board) = (system.view.read(), system.prices.read());
    let equity = crate::risk::view::equity(&state, &board.book, crate::risk::AccountMode::Spot);
    let equity =
        equity.map_or("unknown".to_owned(), |(equity, _)| format!("{equity:.2} {}", settings.account_currency));
    let now = system.clock.now();
    let due = |task: TaskName| {
        let interval_ms = settings.tasks.get(&task).map_or(HOUR_MS, |task| i64::from(task.interval_seconds) * 1_000);
        now.floor_to(interval_ms).plus_ms(interval_ms).utc().format("%H:%M").to_string()
    };
    let decides = match state.coordinator.state {
        CoordinatorState::Running => format!(
            "next decisions and rebalance check at {} and {} program time",
            due(TaskName::TradingDecision),
            due(TaskName::PortfolioRebalance),
        ),
        CoordinatorState::Paused => "PAUSED: stops and targets are watched, nothing new is decided".to_owned(),
        CoordinatorState::Halted if system.read_only => {
            "HALTED and read-only: no stop, target or exit is carried out before the journal is restored".to_owned()
        }
        CoordinatorState::Halted => {
            "HALTED: nothing is decided before `reset` and `resume`; `status` says why and what next".to_owned()
        }
    };
    tracing::info!(
        "watching {symbols} ({} data), {voters} voters, paper account worth {equity}; {decides}",
        data_kind(settings),
    );
}

/// Stops admitting, lets what is under way end, writes the clean stop and closes the store.
async fn drain(system: &System) -> Exit {
    match try_drain(system).await {
        Ok(()) if system.read_only => {
            tracing::info!("stopped; the store is as it was found, its journal still damaged");
            Exit::Done
        }
        Ok(()) => {
            tracing::info!("stopped cleanly");
            Exit::Done
        }
        Err(error) => {
            tracing::error!("the stop was not clean: {error:#}; the next start recovers");
            Exit::Failed
        }
    }
}

/// The steps of a clean stop.
///
/// # Errors
/// An actor that does not answer or a commit that fails; the next start recovers.
pub(super) async fn try_drain(system: &System) -> Result<()> {
    system.links.execution.send(Stop).await.context("execution does not answer")?;
    system.coordinator.send(Drain).await.context("the coordinator does not answer")?;
    let store = &system.links.store;
    store.send(Flush).await?;
    store.send(Detach).await?;
    if !system.read_only {
        let at = system.clock.now();
        let stop = Batch::new("coordinator", "stop", "signal", at, vec![Event::CleanStop {}]);
        failpoint::effect("commit.stop", "");
        store.send(Commit(stop)).await??;
    }
    store.send(Close).await?;
    Ok(())
}
