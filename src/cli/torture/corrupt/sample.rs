//! The store that is damaged: the whole program over several days of the simulated market in virtual time, in files.

use std::{path::Path, rc::Rc};

use actix::{Actor, Context as ActorContext, Handler};
use anyhow::{Context, Result, anyhow};

use super::damage::copy;
use crate::{
    cli::{
        run,
        system::{self, Ingredients, Seams},
    },
    market::{Market, actor::FeedEnded, feed::simulated::SimulatedFeed},
    model::{Event, Timeframe, Ts, time::DAY_MS},
    runtime::placement::{Place, run_virtual},
    settings::{Settings, Sources},
    store::{Batch, Close, Commit, Detach, Flush, OpenInfo, Store},
};

/// A quarter past noon, so that days, hours and segments do not fall together.
const START: Ts = Ts(1_767_788_100_000);
/// Over three midnights: four segments.
const DAYS: i64 = 3;

/// The settings of the sample: the embedded defaults, with small checkpoint intervals and one price per minute.
///
/// # Errors
/// The defaults do not load: a defect of the program.
pub fn settings() -> Result<Settings> {
    let overrides = [("store.checkpoint.events", "400"), ("market.simulated.step_seconds", "60")];
    let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let sources = Sources { overrides, ..Sources::default() };
    Ok(crate::settings::load(&sources).map_err(|problems| anyhow!("{problems}"))?.settings)
}

/// What every start of the sample is told.
pub fn info(settings: &Settings, seed: u64) -> OpenInfo {
    OpenInfo {
        seed,
        data_kind: "simulated".to_owned(),
        config_hash: "0".repeat(64),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: START,
        deposits: system::deposits(settings),
        stands_still: true,
        store_id: Some(uuid::Uuid::from_u128(u128::from(seed) + 1)),
    }
}

struct Deaf;

impl Actor for Deaf {
    type Context = ActorContext<Self>;
}

impl Handler<FeedEnded> for Deaf {
    type Result = ();
    fn handle(&mut self, _: FeedEnded, _: &mut ActorContext<Self>) {}
}

/// Runs the program in `stopped` and leaves two stores: `killed` as a kill leaves it, and `stopped` after a clean stop.
///
/// # Errors
/// A store that cannot be written, or a program that does not start.
pub fn build(killed: &Path, stopped: &Path, seed: u64) -> Result<()> {
    let settings = Rc::new(settings()?);
    let (killed, stopped) = (killed.to_owned(), stopped.to_owned());
    run_virtual(START, |place| async move { drive(place, settings, seed, &killed, &stopped).await })?
}

async fn drive(place: Place, settings: Rc<Settings>, seed: u64, killed: &Path, stopped: &Path) -> Result<()> {
    let clock = place.clock.clone();
    let (store, opened) = Store::open(stopped, &settings.store, &info(&settings, seed))?;
    let history_ms = Market::history_ms(&settings.market, Timeframe::M1);
    let feed = SimulatedFeed::new(&settings.market.simulated, &settings.symbols, seed, START, START, history_ms)?;
    let ingredients = Ingredients {
        settings,
        config_hash: "0".repeat(64),
        place,
        store,
        opened,
        feed: Box::new(feed),
        outside: Default::default(),
        volatile: false,
        on_end: Deaf.start().recipient(),
        on_fatal: run::fatal,
        seams: Seams::default(),
    };
    let system = system::assemble(ingredients).await?;
    let end = START.plus_ms(DAYS * DAY_MS);
    clock.sleep_until(end).await;
    let store = &system.links.store;
    store.send(Flush).await?;
    copy(stopped, killed).context("the store cannot be copied")?;
    store.send(Detach).await?;
    let stop = Batch::new("coordinator", "stop", "signal", end, vec![Event::CleanStop {}]);
    store.send(Commit(stop)).await??;
    store.send(Close).await?;
    Ok(())
}

/// Starts once more on the cleanly stopped store in `dir` and leaves it as a kill does: what a second start writes, such
/// as the library's snapshot, is there.
///
/// # Errors
/// The store does not open or cannot be written.
pub fn restart(dir: &Path, seed: u64) -> Result<()> {
    let settings = settings()?;
    let (mut store, opened) = Store::open(dir, &settings.store, &info(&settings, seed))?;
    let what = Event::Noted { what: "torture".to_owned(), facts: Default::default() };
    store.commit(Batch::new("torture", "restart", "restart", opened.last_logical_time, vec![what]))??;
    Ok(())
}
