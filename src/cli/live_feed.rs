//! Puts the live feed together: candles kept on disk, what happened while the process was down, the link to the venue.

use std::{path::Path, rc::Rc, time::Duration};

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::system::System;
use crate::{
    market::{
        Market,
        feed::{
            candle_store::CandleStore,
            hours::Hours,
            kraken::{
                actor::{
                    fetch::RestClient,
                    link::{self, Parts},
                },
                backfill::gap_before,
                session::Waits,
                view::Shared,
            },
            live::LiveFeed,
        },
    },
    model::{Symbol, Timeframe, Ts},
    runtime::clock::wall_now,
    settings::Settings,
};

/// For the candles of the downtime, all symbols together; the link goes on where it ended.
const CATCH_UP: Duration = Duration::from_secs(12);

/// Length of the configured candles.
pub fn frame(settings: &Settings) -> Timeframe {
    let minutes = i64::from(settings.market.kraken.candle_minutes);
    // Validation lets only lengths through that exist.
    Timeframe::ALL.into_iter().find(|frame| frame.minutes() == minutes).unwrap_or(Timeframe::M1)
}

/// Where candles are kept.
///
/// # Errors
/// The folder cannot be made.
pub fn candle_store(settings: &Settings) -> Result<CandleStore> {
    let dir = Path::new(&settings.data_dir).join("candles");
    CandleStore::open(&dir, frame(settings)).with_context(|| format!("cannot make the folder {}", dir.display()))
}

/// The feed, with the candles of the downtime in its history so that what they did to stops is seen first. Those the venue does
/// not give any more are told in `view`.
///
/// # Errors
/// The folder of candles cannot be made or read.
pub async fn open(settings: &Settings, view: &Shared) -> Result<LiveFeed> {
    let store = candle_store(settings)?;
    for symbol in &settings.symbols {
        store.repair(*symbol).with_context(|| format!("cannot repair {}", store.path(*symbol).display()))?;
    }
    let hours = hours(settings)?.map(|hours| hours.store);
    for (hours, symbol) in hours.iter().flat_map(|hours| settings.symbols.iter().map(move |symbol| (hours, symbol))) {
        hours.repair(*symbol).with_context(|| format!("cannot repair {}", hours.path(*symbol).display()))?;
    }
    if settings.market.gap_fill && timeout(CATCH_UP, catch_up(settings, &store, view)).await.is_err() {
        tracing::warn!("the venue's REST interface is slow; the candles of the downtime come later");
    }
    let history_ms = Market::history_ms(&settings.market, store.frame());
    Ok(LiveFeed::new("kraken", store.frame(), store, settings.symbols.clone(), history_ms).with_hours(hours))
}

/// The hours that reach further back than the candles and into their holes; none when the candles are hours or longer.
fn hours(settings: &Settings) -> Result<Option<Hours>> {
    let base = frame(settings);
    if base >= Timeframe::H1 {
        return Ok(None);
    }
    let dir = Path::new(&settings.data_dir).join("candles");
    let store = CandleStore::open(&dir, Timeframe::H1);
    let store = store.with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let market = &settings.market;
    let candles = market.lookback.get(&market.primary_timeframe).map_or(0, |n| i64::from(*n)) + 1;
    let span_ms = candles * market.primary_timeframe.ms().max(base.ms());
    let reset_after = Market::reset_after(market, store.frame());
    Ok(Some(Hours { store, span_ms, reset_after }))
}

async fn catch_up(settings: &Settings, store: &CandleStore, view: &Shared) {
    let mut client = match RestClient::new(&settings.market.kraken.rest_url) {
        Ok(client) => client,
        Err(error) => return tracing::warn!("{error}"),
    };
    for symbol in &settings.symbols {
        match fetch_newer(&mut client, store, *symbol).await {
            Ok((added, gap)) => {
                tracing::info!("{symbol}: {added} candles fetched");
                gap.into_iter().for_each(|gap| drop(view.miss(*symbol, store.frame(), gap)));
            }
            Err(error) => tracing::warn!("{symbol}: the candles of the downtime could not be fetched: {error:#}"),
        }
    }
    // The candles reach back for 720 of their own length; longer frames take hours from before that, and from the hole a long
    // downtime leaves. What does not come now is asked for again by the link.
    let Ok(Some(hours)) = hours(settings) else { return };
    for symbol in &settings.symbols {
        let fetched = match hours.are_missing(store, *symbol, wall_now()) {
            Ok(false) => continue,
            Ok(true) => fetch_newer(&mut client, &hours.store, *symbol).await,
            Err(error) => Err(error.into()),
        };
        match fetched {
            // Hours that are older than the venue gives are older than anybody looks back.
            Ok((added, _)) => tracing::info!("{symbol}: {added} hours from before the candles fetched"),
            Err(error) => tracing::warn!("{symbol}: no hours from before the candles yet: {error:#}"),
        }
    }
}

/// Keeps the candles after the newest one; how many, and which of them the venue does not give any more.
async fn fetch_newer(client: &mut RestClient, store: &CandleStore, symbol: Symbol) -> Result<(u64, Option<(Ts, Ts)>)> {
    let (newest, frame) = (store.newest(symbol)?, store.frame());
    let rows = client.candles(symbol, frame, newest).await?;
    let gap = gap_before(newest.map(|newest| newest.plus_ms(frame.ms())), &rows);
    Ok((store.append(symbol, &rows)?, gap))
}

/// Starts the link to the venue.
///
/// # Errors
/// The folder of candles cannot be made.
pub fn start(settings: &Settings, system: &System, view: Shared, seed: u64) -> Result<()> {
    let board = system.board.clone();
    let parts = Parts {
        symbols: settings.symbols.clone(),
        frame: frame(settings),
        ws_url: settings.market.kraken.ws_url.clone(),
        rest_url: settings.market.kraken.rest_url.clone(),
        silence_ms: i64::from(settings.market.silence_seconds) * 1_000,
        gap_fill: settings.market.gap_fill,
        clock: system.clock.clone(),
        market: system.links.market.clone().recipient(),
        rewarm: system.links.market.clone().recipient(),
        store: candle_store(settings)?,
        hours: hours(settings)?,
        view,
        on_silence: Rc::new(move |silent| board.set_silent(silent)),
        seed,
        waits: Waits::default(),
        bus: system.links.bus.clone(),
    };
    // It ends with the thread it runs on.
    drop(link::start(parts));
    Ok(())
}
