//! `backtest`: the same actors over historic candles in virtual time.

pub mod picture;
mod progress;
pub mod report;
mod symbols;

use std::{
    cell::RefCell,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use actix::{Actor, Addr, Context as ActorContext, Handler};
use anyhow::{Context, Result};
use clap::Args;
use rust_decimal::prelude::ToPrimitive;

use super::{
    Global, load, parse_instant, run,
    system::{self, Ingredients},
};
use crate::{
    agents::worst_case,
    coordinator::messages::{GetStats, Operate},
    execution::ledger,
    llm::actor::{Misses, ReadMisses, ReadRecording, Recording},
    market::{
        Feed, FeedIssues, Market,
        actor::{FeedEnded, ReadFeeds, ReadIssues},
        feed::csv::{CsvFeed, CsvWindow},
    },
    model::{
        Asset, Clock, ClosedPosition, Command, CoordinatorState, Event, Money, SkipReason, Symbol, TaskName, Timeframe,
        Ts, time::DAY_MS,
    },
    risk::actor::EquityCurve,
    runtime::{
        failure::{Exit, Failure},
        placement::{Place, run_virtual},
        terminal::{note, tell},
    },
    settings::{CassetteMode, Loaded},
    store::{Close, CommittedBatch, Detach, JournalHead, Observe, OpenInfo, Store},
};
use report::{FeedRow, Report, VoterRow};
use symbols::{Chosen, unusable};

/// Flags of `backtest`.
#[derive(Args, Debug, Clone)]
pub struct BacktestArgs {
    /// Folder of candle files (Kraken OHLCVT, plain or gz)
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// First day or instant [default: the first candle]
    #[arg(long, value_parser = parse_instant, value_name = "DATE")]
    pub from: Option<Ts>,
    /// Last day (inclusive) or instant [default: the last candle]
    #[arg(long, value_parser = parse_end, value_name = "DATE")]
    pub to: Option<Ts>,
    /// Only these, comma separated, for example BTC/USDT,XRP/USDT [default: every configured symbol that has a file]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub symbols: Vec<Symbol>,
    /// Drives every random draw
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What a breaker's pause or halt meets: `absent` leaves it, as an unattended process would; `daily` resets and
    /// resumes at every UTC midnight, as a person looking once a day would
    #[arg(long, value_enum, default_value_t = Operator::Absent)]
    pub operator: Operator,
    /// Folder for report.json, equity.svg, trades.csv, equity.csv and journal.jsonl
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

/// Who answers a pause or a halt during a backtest.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// Nobody: the program stays paused or halted.
    Absent,
    /// Somebody who looks at every UTC midnight, resets and resumes.
    Daily,
}

/// The end of a window: a date means its whole day.
fn parse_end(text: &str) -> Result<Ts, String> {
    let at = parse_instant(text)?;
    Ok(if text.len() == "2021-05-20".len() { at.plus_ms(DAY_MS) } else { at })
}

/// Runs the backtest and prints its summary; with `--report` also writes the files.
///
/// # Errors
/// Settings or flags that do not fit (exit 2), candle files that cannot be used, a report folder that cannot be written.
pub fn backtest(global: &Global, args: &BacktestArgs) -> Result<Exit> {
    let Chosen { symbols, left_out } = symbols::choose(global, args)?;
    if let Some(text) = symbols::left_out_words(&left_out, &args.data) {
        note!("{text}");
    }
    let list = symbols.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let more = [
        ("market.source", "csv".to_owned()),
        ("market.csv.dir", args.data.display().to_string()),
        ("seed", args.seed.to_string()),
        ("symbols", list),
        ("runtime.speed", "1".to_owned()),
    ];
    let loaded = load(global, &more)?;
    if loaded.settings.agents.ask_models() && loaded.settings.cassette.mode == CassetteMode::Off {
        let text = "a backtest asks models for a recording or from one: set cassette.dir and cassette.mode = \"record\" \
                    (calls the providers, costs up to cassette.max_usd) or \"replay\", or let no agent ask a model";
        return Err(Failure::new(Exit::Usage, text.to_owned()).into());
    }
    for warning in worst_case::warnings(&loaded.settings) {
        note!("{warning}");
    }
    if let Some(folder) = &args.report {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the report folder {}", folder.display()))?;
    }
    let outcome = simulate(loaded, args, left_out)?;
    if let Some(folder) = &args.report {
        write_report(folder, &outcome)?;
    }
    if global.json {
        tell!("{}", serde_json::to_string_pretty(&outcome.report)?);
    } else {
        tell!("{}", report::summary(&outcome.report));
        for issue in &outcome.issues.first {
            note!("skipped {issue}");
        }
        if let Some(folder) = &args.report {
            tell!("report in {}", folder.display());
        }
    }
    if !outcome.report.invariant_violations.is_empty() {
        return Ok(Exit::Internal);
    }
    let report = &outcome.report;
    let stopped = report.recording.as_ref().and_then(Recording::words);
    if let Some(text) = stopped.or_else(|| report.not_recorded.words()) {
        return Err(Failure::new(Exit::Failed, text).into());
    }
    Ok(Exit::Done)
}

/// What a simulation leaves.
struct Outcome {
    report: Report,
    curve: Vec<(Ts, f64)>,
    closed: Vec<ClosedPosition>,
    /// What the coordinator's state became, and when.
    changes: Vec<(Ts, CoordinatorState)>,
    issues: FeedIssues,
}

fn simulate(loaded: Loaded, args: &BacktestArgs, left_out: Vec<Symbol>) -> Result<Outcome> {
    let settings = &loaded.settings;
    if let (Some(from), Some(to)) = (args.from, args.to)
        && to <= from
    {
        return Err(Failure::new(Exit::Usage, format!("--to {to} is not after --from {from}")).into());
    }
    let exact = CsvWindow { from: args.from, to: args.to, warm_up_ms: 0 };
    let mut probe = CsvFeed::open(&args.data, &settings.symbols, exact).map_err(|error| unusable(&error))?;
    let base = probe.base();
    if probe.peek_at().is_none() {
        let from = args.from.map_or("the first candle".to_owned(), |from| from.to_string());
        let to = args.to.map_or("the last candle".to_owned(), |to| to.to_string());
        let (data, ends) = (args.data.display(), "look at the first and last line of its files");
        let text = format!("{data} has no candle between --from ({from}) and --to ({to}); {ends}");
        return Err(Failure::new(Exit::Usage, text).into());
    }
    let warm_up_ms = Market::history_ms(&settings.market, base);
    let window = CsvWindow { from: args.from, to: args.to, warm_up_ms };
    let mut feed = CsvFeed::open(&args.data, &settings.symbols, window).map_err(|error| unusable(&error))?;
    let first = feed.peek_at().unwrap_or_default();
    let start = args.from.unwrap_or(first);
    let info = OpenInfo {
        seed: args.seed,
        data_kind: "csv".to_owned(),
        config_hash: loaded.hash.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: start,
        deposits: system::deposits(settings),
        stands_still: false,
        store_id: None,
    };
    let out: Option<Box<dyn std::io::Write + Send>> = match &args.report {
        Some(folder) => {
            let path = folder.join("journal.jsonl");
            let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
            Some(Box::new(BufWriter::with_capacity(1 << 20, file)))
        }
        None => None,
    };
    let (store, opened) = Store::memory(&info, out)?;
    let began = Instant::now();
    let to = args.to;
    run_virtual(start, |place| async move {
        let currency = loaded.settings.account_currency;
        let symbols = loaded.settings.symbols.clone();
        let drive = Drive { start, to, began, base, operator: args.operator, currency, symbols, left_out };
        drive.run(place, loaded, store, opened, Box::new(feed)).await
    })?
}

/// Counts the end of the feed and what closed on the way.
#[derive(Default)]
struct Owner {
    seen: Rc<RefCell<Seen>>,
}

#[derive(Default)]
struct Seen {
    ended: bool,
    error: Option<String>,
    closed: Vec<ClosedPosition>,
    changes: Vec<(Ts, CoordinatorState)>,
}

impl Actor for Owner {
    type Context = ActorContext<Self>;
}

impl Handler<FeedEnded> for Owner {
    type Result = ();
    fn handle(&mut self, ended: FeedEnded, _: &mut ActorContext<Self>) {
        let mut seen = self.seen.borrow_mut();
        seen.ended = true;
        seen.error = ended.error;
    }
}

impl Handler<CommittedBatch> for Owner {
    type Result = ();
    fn handle(&mut self, CommittedBatch(records): CommittedBatch, _: &mut ActorContext<Self>) {
        let mut seen = self.seen.borrow_mut();
        for record in records.iter() {
            match &record.event {
                Event::PositionClosed { closed } => seen.closed.push((**closed).clone()),
                Event::StateChanged { to, .. } => seen.changes.push((record.ts, *to)),
                _ => {}
            }
        }
    }
}

/// One simulation under way.
struct Drive {
    start: Ts,
    to: Option<Ts>,
    began: Instant,
    base: Timeframe,
    operator: Operator,
    symbols: Vec<Symbol>,
    left_out: Vec<Symbol>,
    currency: Asset,
}

/// The progress bar is looked at after so much simulated time.
const STRIDE_MS: i64 = 6 * 3_600_000;

impl Drive {
    async fn run(
        self,
        place: Place,
        loaded: Loaded,
        store: Store,
        opened: crate::store::Opened,
        feed: Box<dyn Feed>,
    ) -> Result<Outcome> {
        let clock = place.clock.clone();
        let seen = Rc::new(RefCell::new(Seen::default()));
        let owner: Addr<Owner> = Owner { seen: Rc::clone(&seen) }.start();
        let settings = Rc::new(loaded.settings);
        let ingredients = Ingredients {
            settings: Rc::clone(&settings),
            config_hash: loaded.hash,
            place,
            store,
            opened,
            feed,
            outside: Default::default(),
            volatile: true,
            on_end: owner.clone().recipient(),
            on_fatal: run::fatal,
            seams: system::Seams::default(),
        };
        let system = system::assemble(ingredients).await?;
        system.links.store.send(Observe(owner.recipient())).await?;
        let start_equity = self.equity_of_deposits(&system);

        let bar = progress::bar(self.start, self.to);
        let mut next = self.start;
        loop {
            next = next.floor_to(STRIDE_MS).plus_ms(STRIDE_MS);
            let target = self.to.map_or(next, |to| to.min(next));
            clock.sleep_until(target).await;
            bar.set_position(target.since_ms(self.start).max(0) as u64 / 1_000);
            bar.set_message(target.utc().format("%Y-%m-%d").to_string());
            if self.operator == Operator::Daily && target.0.rem_euclid(DAY_MS) == 0 {
                resume(&system, target).await?;
            }
            let ended = seen.borrow().ended;
            if ended || self.to.is_some_and(|to| target >= to) {
                break;
            }
        }
        bar.finish_and_clear();
        if let Some(error) = seen.borrow().error.clone() {
            return Err(Failure::new(Exit::Failed, error).into());
        }
        self.gather(&system, start_equity, seen, clock.now()).await
    }

    /// Deposits at the first prices; deposits in the account currency need none.
    fn equity_of_deposits(&self, system: &system::System) -> Option<Money> {
        let (state, board) = (system.view.read(), system.prices.read());
        crate::risk::view::equity(&state, &board.book, crate::risk::AccountMode::Spot).map(|(equity, _)| equity)
    }

    async fn gather(
        &self,
        system: &system::System,
        start_equity: Option<Money>,
        seen: Rc<RefCell<Seen>>,
        end: Ts,
    ) -> Result<Outcome> {
        let stats = system.coordinator.send(GetStats).await?;
        let (issues, candles) = system.links.market.send(ReadIssues).await?;
        let feeds = system.links.market.send(ReadFeeds).await?;
        let curve = system.links.risk.send(EquityCurve).await?;
        let head = system.links.store.send(JournalHead).await?;
        let (not_recorded, recording) = match &system.models {
            Some(models) => (models.send(ReadMisses).await?, models.send(ReadRecording).await?),
            None => (Misses::default(), None),
        };
        system.links.store.send(Detach).await?;
        let journal_sha256 = system.links.store.send(Close).await?.unwrap_or_default();
        let elapsed = self.began.elapsed().as_secs_f64();

        let state = system.view.read();
        let curve: Vec<(Ts, f64)> = curve.iter().filter_map(|(at, equity)| Some((*at, equity.to_f64()?))).collect();
        let start_equity = start_equity.unwrap_or_default();
        let final_equity = curve.last().map_or_else(|| start_equity.to_f64().unwrap_or_default(), |point| point.1);
        let start_value = start_equity.to_f64().unwrap_or_default();
        let mut violations = Vec::new();
        if let Err(violation) = ledger::check_conservation(&state) {
            violations.push(violation.to_string());
        }
        if let Err(text) = stats.checked {
            violations.push(text);
        }
        let counted = |name: &str, count: u64| (count > 0).then(|| (name.to_owned(), count));
        let runs = TaskName::ALL.iter().filter_map(|task| {
            let started =
                stats.stats.keys.iter().filter(|key| key.key.task == *task).map(|key| key.counts.started).sum();
            counted(task.name(), started)
        });
        let skips = SkipReason::ALL.iter().filter_map(|reason| counted(reason.name(), stats.stats.skipped(*reason)));
        let data_issues = [
            ("defective_rows", issues.defective),
            ("duplicate_rows", issues.duplicates),
            ("out_of_order_rows", issues.out_of_order),
        ];
        let report = Report {
            from: self.start,
            to: end,
            base_timeframe: self.base,
            symbols: self.symbols.clone(),
            left_out: self.left_out.clone(),
            feeds: feeds.iter().map(FeedRow::new).collect(),
            candles,
            elapsed_seconds: elapsed,
            candles_per_second: candles as f64 / elapsed.max(1e-9),
            peak_rss_bytes: peak_rss_bytes(),
            runs: runs.collect(),
            skips: skips.collect(),
            signals: state.totals.signals,
            decisions: state.totals.decisions.clone(),
            orders: state.totals.orders,
            fills: state.totals.fills,
            closed_trades: state.totals.closed_trades,
            winning_trades: state.totals.winning_trades,
            fees: state
                .totals
                .fees
                .iter()
                .map(|(asset, fee)| (asset.to_string(), fee.normalize().to_string()))
                .collect(),
            start_equity: start_equity.normalize().to_string(),
            final_equity: format!("{final_equity:.2}"),
            return_pct: if start_value > 0.0 { (final_equity / start_value - 1.0) * 100.0 } else { 0.0 },
            max_drawdown_pct: report::max_drawdown_pct(&curve),
            sharpe: report::sharpe(&curve),
            journal_sha256,
            journal_records: head.seq,
            invariant_violations: violations,
            not_recorded,
            recording,
            data_issues: data_issues.iter().filter_map(|(name, count)| counted(name, *count)).collect(),
            state: state.coordinator.state.name().to_owned(),
            holdings: report::holdings(&state, self.currency),
            latched_breakers: state.risk.latched.keys().map(|kind| kind.name().to_owned()).collect(),
            per_voter: state.leaderboard.tallies.iter().map(|(name, tally)| VoterRow::new(name, tally)).collect(),
        };
        let closed = std::mem::take(&mut seen.borrow_mut().closed);
        let changes = std::mem::take(&mut seen.borrow_mut().changes);
        Ok(Outcome { report, curve, closed, changes, issues })
    }
}

/// Resets and resumes what is paused or halted, through the operator's own commands.
async fn resume(system: &system::System, at: Ts) -> Result<()> {
    let (state, halt) = {
        let state = system.view.read();
        (state.coordinator.state, state.coordinator.halt.clone())
    };
    let mut commands = Vec::new();
    if let Some(halt) = halt {
        commands.push(Command::Reset { halt_id: halt.id });
    }
    if state != CoordinatorState::Running {
        commands.push(Command::Resume {});
    }
    for (number, command) in commands.into_iter().enumerate() {
        let key = format!("backtest-{at}-{number}");
        let operate = Operate { key, command, source: "backtest".to_owned() };
        system.coordinator.send(operate).await?;
    }
    Ok(())
}

/// Highest resident memory of this process so far, from the kernel's own account.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024)
}

fn write_report(folder: &Path, outcome: &Outcome) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("report.json", serde_json::to_string_pretty(&outcome.report)? + "\n")?;
    let curve: String = outcome.curve.iter().map(|(at, equity)| format!("{at},{equity:.4}\n")).collect();
    write("equity.csv", format!("time,equity\n{curve}"))?;
    write("trades.csv", report::trades(&outcome.closed))?;
    if outcome.curve.is_empty() {
        return Ok(());
    }
    let marks: Vec<picture::Mark> = outcome
        .closed
        .iter()
        .map(|c| picture::Mark { at: c.closed_at, net: c.net_usd.to_f64().unwrap_or_default() })
        .collect();
    let report = &outcome.report;
    let trades = if report.closed_trades == 1 { "trade" } else { "trades" };
    let title = format!(
        "equity {} -> {} ({:+.2} %), max drawdown {:.2} %, {} closed {trades}",
        report.start_equity, report.final_equity, report.return_pct, report.max_drawdown_pct, report.closed_trades
    );
    picture::draw(&folder.join("equity.svg"), &title, &outcome.curve, &marks, &outcome.changes)
}
