//! `import kraken-csv` and `import fetch`: candles into the local candle store.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    Global,
    live_feed::{candle_store, frame},
    load,
};
use crate::{
    market::feed::{
        candle_store::{CandleStore, Merged},
        csv::CandleFile,
        kraken::actor::fetch::{FetchError, RestClient},
    },
    model::{Symbol, Ts},
    runtime::{
        failure::{Exit, Failure},
        terminal::{note, tell},
    },
    settings::Settings,
    store::lock::StoreLock,
};

/// Candles into the local candle store.
#[derive(Subcommand, Debug)]
pub enum ImportCommand {
    /// Kraken's published OHLCVT files, named like XBTUSDT_1.csv or XBTUSDT_1.csv.gz
    KrakenCsv {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// The newest candles over REST; the venue gives the last 720 at most
    Fetch(FetchArgs),
}

/// What is fetched.
#[derive(Args, Debug)]
pub struct FetchArgs {
    /// Which symbol; all traded ones when absent
    #[arg(long)]
    symbol: Option<Symbol>,
    /// From this day on; what the venue does not give is told [default: after the newest kept candle]
    #[arg(long, value_parser = super::parse_instant)]
    from: Option<Ts>,
}

/// Carries out an import.
///
/// # Errors
/// A file that is not what it should be, before anything is written; a venue that does not answer.
pub fn import(global: &Global, command: &ImportCommand) -> Result<Exit> {
    let settings = load(global, &[])?.settings;
    // Before anything is made or asked for: a symbol nobody knows.
    if let ImportCommand::Fetch(FetchArgs { symbol: Some(symbol), .. }) = command {
        known_symbol(&settings, *symbol)?;
    }
    let store = candle_store(&settings)?;
    // A running process appends to the same files; a merge would take the place of what it writes meanwhile.
    let _held = StoreLock::take(Path::new(&settings.data_dir), Duration::ZERO, "import").map_err(|error| {
        let text = format!("{error}; stop it, import, and start it again. Nothing was imported");
        Failure::new(Exit::from_code(error.exit_code()), text)
    })?;
    let (lines, failed) = match command {
        ImportCommand::KrakenCsv { files } => (kraken_csv(&settings, &store, files)?, Vec::new()),
        ImportCommand::Fetch(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(fetch(&settings, &store, args))?
        }
    };
    if global.json {
        tell!("{}", serde_json::to_string_pretty(&lines)?);
    }
    if !failed.is_empty() {
        bail!("{}; what came is kept, the same command goes on from there", failed.join("; "));
    }
    Ok(Exit::Done)
}

/// Refuses a symbol without rules, with the nearest one that has some.
fn known_symbol(settings: &Settings, symbol: Symbol) -> Result<()> {
    let known = &settings.market.symbol;
    if known.contains_key(&symbol) {
        return Ok(());
    }
    let name = symbol.to_string();
    let near = |other: &Symbol| strsim::jaro_winkler(&name, &other.to_string());
    let nearest = known.keys().max_by(|a, b| near(a).total_cmp(&near(b)));
    let hint = nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
    bail!("unknown symbol `{name}`{hint} Another one needs `[market.symbol.\"{name}\"]` in the settings")
}

fn say(symbol: Symbol, from: &str, merged: &Merged, store: &CandleStore) -> Value {
    let frame = store.frame();
    note!(
        "{symbol} from {from}: {} candles of {frame} added, {} replaced; {} kept now{}",
        merged.added,
        merged.changed,
        merged.total,
        merged.span.map_or(String::new(), |(first, last)| format!(", {first} to {last}")),
    );
    if merged.holes > 0 {
        note!(
            "  {} candles absent in {} holes (minutes without a trade are never there)",
            merged.missing,
            merged.holes
        );
        for (from, to) in &merged.longest {
            note!("  {from} to {to}: {} candles", to.since_ms(*from) / frame.ms());
        }
    }
    let longest: Vec<Value> = merged.longest.iter().map(|(from, to)| json!({"from": from, "to": to})).collect();
    json!({
        "symbol": symbol, "source": from, "added": merged.added, "replaced": merged.changed, "kept": merged.total,
        "holes": merged.holes, "absent": merged.missing, "longest": longest,
    })
}

/// Every file is read to its end before the first one is merged: a bad file changes nothing.
fn kraken_csv(settings: &Settings, store: &CandleStore, files: &[PathBuf]) -> Result<Vec<Value>> {
    let known: Vec<Symbol> = settings.market.symbol.keys().copied().collect();
    let opened: Vec<(Symbol, &Path)> = files
        .iter()
        .map(|path| CandleFile::symbol_of(path, &known, frame(settings)).map(|symbol| (symbol, path.as_path())))
        .collect::<Result<_, String>>()
        .map_err(|text| anyhow!(text))?;
    let style = ProgressStyle::with_template("{msg} {human_pos} candles, {elapsed}")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    for (_, path) in &opened {
        bar.set_position(0);
        bar.set_message(format!("checking {}", path.display()));
        let mut file = CandleFile::open(path, store.frame())?;
        for candle in &mut file {
            candle?;
            bar.inc(1);
        }
        if let Some(problem) = file.problem() {
            bar.finish_and_clear();
            bail!("{problem}; nothing was imported");
        }
    }
    let mut lines = Vec::new();
    for (symbol, path) in &opened {
        bar.set_position(0);
        bar.set_message(format!("merging {}", path.display()));
        let mut file = CandleFile::open(path, store.frame())?;
        let merged = store.merge(*symbol, &mut (&mut file).inspect(|_| bar.inc(1)))?;
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        bar.suspend(|| lines.push(say(*symbol, &name, &merged, store)));
    }
    bar.finish_and_clear();
    Ok(lines)
}

/// What was done for each symbol, and which ones could not be fetched: one that fails keeps no other back, and what came
/// is kept before the next one is asked for.
async fn fetch(settings: &Settings, store: &CandleStore, args: &FetchArgs) -> Result<(Vec<Value>, Vec<String>)> {
    let symbols = args.symbol.map_or_else(|| settings.symbols.clone(), |symbol| vec![symbol]);
    let mut client = RestClient::new(&settings.market.kraken.rest_url)?;
    let bar = ProgressBar::new(symbols.len() as u64);
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    for symbol in symbols {
        bar.set_message(symbol.to_string());
        let newest = store.newest(symbol)?;
        let since = args.from.map(|from| from.plus_ms(-store.frame().ms())).or(newest);
        let later = |error: &FetchError, wait: Duration| {
            bar.suspend(|| note!("{symbol}: {error}; asked again in {} s", wait.as_secs()));
        };
        let rows = match client.candles_patiently(symbol, store.frame(), since, later).await {
            Ok(rows) => rows,
            Err(error) => {
                failed.push(format!("{symbol}: {error}"));
                bar.inc(1);
                continue;
            }
        };
        let first = rows.first().map(|row| row.open_time);
        let merged = store.merge(symbol, &mut rows.into_iter().map(Ok))?;
        bar.suspend(|| {
            lines.push(say(symbol, "REST", &merged, store));
            if let (Some(from), Some(first)) = (args.from.or(newest), first)
                && first > from.plus_ms(store.frame().ms())
            {
                note!(
                    "  the venue gives nothing before {first}; for {from} to {first} import Kraken's published files with \
                     `import kraken-csv`"
                );
            }
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((lines, failed))
}
