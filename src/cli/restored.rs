//! What a start takes over from the process before it: opinions and scheduler rows kept beside the truth, interrupted
//! runs, and the record of what was found.

use actix::Addr;
use anyhow::{Context, Result};

use crate::{
    coordinator::{
        notes::{self, KeptPast, KeptRow},
        opinions::{Opinions, StoredOpinion},
        schedule::{Effect, Gates, Generation, Restored, Scheduler, Setup},
        states,
    },
    model::{Clock, Event, InFlightMarker, PlanState, Recovered, State, Symbol, TaskName, TradeState, Ts},
    runtime::failpoint,
    settings::Settings,
    store::{Batch, Commit, Opened, Store, StoreActor, view::StateView},
};

/// What is kept beside the truth.
pub(super) struct Aux {
    pub(super) opinions: Opinions,
    pub(super) scheduler: SchedulerRows,
}

/// What is kept beside the truth for the scheduler.
pub(super) struct SchedulerRows {
    rows: Vec<KeptRow>,
    markers: Vec<InFlightMarker>,
    pasts: Vec<KeptPast>,
}

impl Aux {
    /// Rows that cannot be read are left out: losing them is harmless, and they are written anew. So are rows from
    /// after `now`: an accelerated clock may begin a little before them, and nothing may know its own future.
    pub(super) fn read(store: &Store, now: Ts) -> Result<Aux> {
        let mut opinions = Opinions::default();
        for (_, row) in store.aux_rows(notes::OPINIONS)? {
            if let Ok(opinion) = serde_json::from_slice::<StoredOpinion>(&row)
                && opinion.head().produced_at <= now
            {
                opinions.accept(opinion);
            }
        }
        let mut rows: Vec<KeptRow> = readable(store, notes::ROWS)?;
        rows.retain(|row| {
            row.last_success.is_none_or(|at| at <= now) && row.latest.is_none_or(|output| output.1 <= now)
        });
        let (markers, pasts) = (readable(store, notes::MARKERS)?, readable(store, notes::PASTS)?);
        Ok(Aux { opinions, scheduler: SchedulerRows { rows, markers, pasts } })
    }
}

fn readable<T: serde::de::DeserializeOwned>(store: &Store, tree: &str) -> Result<Vec<T>> {
    Ok(store.aux_rows(tree)?.iter().filter_map(|(_, row)| serde_json::from_slice(row).ok()).collect())
}

/// The scheduler as it was, with interrupted runs judged and recorded in one event.
pub(super) async fn restore(
    settings: &Settings,
    config_hash: &str,
    view: &StateView,
    store: &Addr<StoreActor>,
    opened: &Opened,
    kept: SchedulerRows,
    clock: &impl Clock,
) -> Result<(Scheduler, Vec<Effect>, Recovered)> {
    let now = clock.now();
    let config = config_hash.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
    let generation = Generation { config, schema: crate::model::event::SCHEMA_VERSION };
    let (scheduler, effects, runs, recovered) = {
        let state = view.read();
        let setup = Setup {
            scheduler: &settings.scheduler,
            tasks: &settings.tasks,
            providers: &settings.providers_by_task(),
            quarantine: &settings.quarantine,
            analysis_while_halted: settings.coordinator.analysis_while_halted,
            symbols: &settings.symbols,
            seed: state.meta.seed,
            epoch: state.meta.epoch,
            generation,
        };
        let mut scheduler = Scheduler::new(&setup, now).context("the tasks do not fit together")?;
        let gates = Gates { state: state.coordinator.state, ..Gates::default() };
        let mut restored = Restored::from_view(&state.coordinator, gates);
        restored.keys.extend(kept.rows.into_iter().map(Into::into));
        restored.pasts.extend(kept.pasts.into_iter().map(|row| (row.key, row.past)));
        restored.markers.extend(kept.markers.into_iter().filter(|marker| marker.run_id.epoch < state.meta.epoch));
        let mut effects = Vec::new();
        let runs = scheduler.restore(now, restored, &mut effects);
        let recovered = found(&state, settings, opened, runs.len() as u32);
        (scheduler, effects, runs, recovered)
    };
    if opened.frozen {
        // Nothing can be recorded over a damaged journal; the program is HALTED and says so.
        return Ok((scheduler, effects, recovered));
    }
    let mut events = Vec::new();
    if !runs.is_empty() {
        events.push(Event::InFlightRecovered { runs });
    }
    events.push(Event::RecoveryDone { recovered: recovered.clone() });
    if let Some(reason) = &opened.pause {
        // In the commit of the recovery: no decision comes before it.
        events.extend(states::pause(&view.read().coordinator, reason));
    }
    failpoint::effect("commit.boot", "");
    let done = store.send(Commit(Batch::new("boot", "boot", "boot", now, events))).await?;
    done.context("the recovery could not be recorded")?;
    Ok((scheduler, effects, recovered))
}

/// What goes on although the settings no longer have its symbol or its task: nobody schedules anything for it, but its
/// stops, exits and legs are carried out.
fn orphans(state: &State, settings: &Settings) -> Vec<String> {
    let gone = |symbol: &Symbol| !settings.symbols.contains(symbol);
    let why = |symbol: &Symbol| match settings.market.symbol.contains_key(symbol) {
        true => "not in `symbols`",
        false => "neither in `symbols` nor in `market.symbol`: nothing can be done about it",
    };
    let positions = state.positions.values().filter(|held| gone(&held.symbol));
    let mut found: Vec<String> =
        positions.map(|held| format!("position {} of {}: {}", held.id, held.symbol, why(&held.symbol))).collect();
    let trades = state.trades.values().filter(|trade| gone(&trade.body.symbol));
    found.extend(
        trades.map(|trade| format!("order {} of {}: {}", trade.key, trade.body.symbol, why(&trade.body.symbol))),
    );
    let off = settings.tasks.get(&TaskName::PortfolioRebalance).is_none_or(|task| !task.enabled);
    for plan in state.plans.values().filter(|plan| plan.state == PlanState::Active) {
        if off {
            found.push(format!("plan {}: portfolio_rebalance is off", plan.id));
        }
        let legs = plan.legs.iter().filter(|leg| leg.state == TradeState::Planned && gone(&leg.symbol));
        found.extend(legs.map(|leg| format!("leg {} of {}: {}", leg.key, leg.symbol, why(&leg.symbol))));
    }
    found
}

/// What the boot found, for people.
fn found(state: &State, settings: &Settings, opened: &Opened, interrupted_runs: u32) -> Recovered {
    let trades = |wanted: &[TradeState]| state.trades.values().filter(|t| wanted.contains(&t.state)).count() as u32;
    let planned = state.plans.values().flat_map(|plan| &plan.legs).filter(|leg| leg.state == TradeState::Planned);
    Recovered {
        interrupted_runs,
        interrupted_decisions: state.decisions.len() as u32,
        resumed_trades: trades(&[
            TradeState::Intent,
            TradeState::Submitting,
            TradeState::Unknown,
            TradeState::NotExecuted,
        ]),
        resting_orders: trades(&[TradeState::Acked, TradeState::Partial]),
        positions: state.positions.len() as u32,
        planned_legs: planned.count() as u32,
        announced_again: opened.unannounced.len() as u32,
        orphans: orphans(state, settings),
        ..opened.recovered.clone()
    }
}
