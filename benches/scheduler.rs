//! The whole system in real time: 1 000 symbols on a task of one second beside a task whose runs take five. Prints
//! missed slots, lateness of the starts and of the arrivals at the agent, and CPU time per run.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use actix::{Actor, Context, Handler, ResponseFuture};
use triplegain::{
    agents::{
        actor::{RunSentiment, RunTechnical},
        contract::Answer,
    },
    cli::system::{self, Ingredients, Seams},
    coordinator::{actor::Links, messages::GetStats, schedule::Stats},
    market::{Feed, FeedError, FeedIssues, FeedItem, FeedKind, actor::FeedEnded},
    model::{Candle, Clock, SentimentOutput, SkipReason, Symbol, SymbolRules, TaOutput, TaskName, Timeframe, Ts},
    runtime::{
        clock::{LogicalClock, wall_now},
        placement::{Place, run_live},
    },
    settings::Settings,
    store::{OpenInfo, Store},
};

const SYMBOLS: usize = 1_000;
const SECONDS: u64 = 30;
const SLOW: Duration = Duration::from_secs(5);

/// One candle per symbol, then silence.
struct OneCandle(VecDeque<FeedItem>);
impl Feed for OneCandle {
    fn base(&self) -> Timeframe {
        Timeframe::M1
    }
    fn name(&self) -> &'static str {
        "bench"
    }
    fn history(&mut self, _: Ts, sink: &mut dyn FnMut(FeedItem)) -> Result<(), FeedError> {
        self.0.drain(..).for_each(sink);
        Ok(())
    }
    fn next(&mut self) -> Option<Result<FeedItem, FeedError>> {
        None
    }
    fn peek_at(&mut self) -> Option<Ts> {
        None
    }
    fn issues(&self) -> FeedIssues {
        FeedIssues::default()
    }
}

/// Answers at once and notes how long after its second it was asked.
struct Quick {
    clock: LogicalClock,
    arrivals: Rc<RefCell<Vec<i64>>>,
}
impl Actor for Quick {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(2 * SYMBOLS);
    }
}
impl Handler<RunSentiment> for Quick {
    type Result = actix::MessageResult<RunSentiment>;
    fn handle(&mut self, _: RunSentiment, _: &mut Context<Self>) -> Self::Result {
        let now = self.clock.now();
        self.arrivals.borrow_mut().push(now.since_ms(now.floor_to(1_000)));
        actix::MessageResult(Answer::<SentimentOutput>::Abstain("bench".into()))
    }
}
impl Handler<FeedEnded> for Quick {
    type Result = ();
    fn handle(&mut self, _: FeedEnded, _: &mut Context<Self>) {}
}

/// Takes five seconds of waiting, as a provider would.
struct Slow;
impl Actor for Slow {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(2 * SYMBOLS);
    }
}
impl Handler<RunTechnical> for Slow {
    type Result = ResponseFuture<Answer<TaOutput>>;
    fn handle(&mut self, _: RunTechnical, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async {
            tokio::time::sleep(SLOW).await;
            Answer::Abstain("bench".into())
        })
    }
}

fn settings() -> Settings {
    let mut settings = Settings::defaults();
    let rules: SymbolRules =
        *settings.market.symbol.values().next().unwrap_or_else(|| panic!("the defaults have symbols"));
    settings.symbols = (0..SYMBOLS)
        .map(|n| format!("S{n}/USDT").parse::<Symbol>().unwrap_or_else(|error| panic!("{error}")))
        .collect();
    settings.market.symbol.extend(settings.symbols.iter().map(|symbol| (*symbol, rules)));
    for (name, task) in &mut settings.tasks {
        task.enabled = matches!(name, TaskName::SentimentAnalysis | TaskName::TechnicalAnalysis);
        task.depends_on.clear();
        task.symbols.clone_from(&settings.symbols);
        task.max_parallel = SYMBOLS as u32;
        task.timeout_seconds = if *name == TaskName::SentimentAnalysis { 1 } else { 8 };
        task.interval_seconds = if *name == TaskName::SentimentAnalysis { 1 } else { 10 };
        task.phase_seconds = 0;
    }
    settings.scheduler.max_concurrent_runs = 2 * SYMBOLS as u32;
    settings.scheduler.spread_ms = 0;
    settings
}

/// User and system time of this process, seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted after the name in parentheses; in ticks of 10 ms.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn of(stats: &Stats, task: TaskName) -> (u64, u64, u64) {
    let keys = stats.keys.iter().filter(|key| key.key.task == task);
    keys.fold((0, 0, 0), |sum, key| (sum.0 + key.counts.started, sum.1 + key.counts.missed, sum.2 + key.counts.skipped))
}

async fn measure(place: Place, durable: bool) {
    let settings = settings();
    let now = place.clock.now();
    let open_time = now.floor_to(60_000).plus_ms(-60_000);
    let candle = Candle { open_time, open: 1.0, high: 1.0, low: 1.0, close: 1.0, volume: 1.0 };
    let item = |symbol: &Symbol| FeedItem {
        symbol: *symbol,
        available_at: candle.close_time(Timeframe::M1),
        kind: FeedKind::Candle(candle),
    };
    let feed = OneCandle(settings.symbols.iter().map(item).collect());
    let info = OpenInfo {
        seed: 1,
        data_kind: "simulated".to_owned(),
        config_hash: "0".repeat(64),
        version: "bench".to_owned(),
        now,
        deposits: system::deposits(&settings),
        stands_still: false,
        store_id: None,
    };
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let (store, opened) = if durable {
        Store::open(dir.path(), &settings.store, &info).unwrap_or_else(|error| panic!("{error}"))
    } else {
        Store::memory(&info, None).unwrap_or_else(|error| panic!("{error}"))
    };
    let arrivals = Rc::new(RefCell::new(Vec::with_capacity(SYMBOLS * (SECONDS as usize + 5))));
    let clock = place.clock.clone();
    let quick = Quick { clock: clock.clone(), arrivals: Rc::clone(&arrivals) }.start();
    let (slow, fast) = (Slow.start().recipient(), quick.clone().recipient());
    let change = move |links: Links| Links { technical: slow, sentiment: fast, ..links };
    let seams = Seams { links: Some(Box::new(change)), ..Seams::default() };
    let ingredients = Ingredients {
        settings: Rc::new(settings),
        config_hash: "0".repeat(64),
        place,
        store,
        opened,
        feed: Box::new(feed),
        outside: Default::default(),
        volatile: !durable,
        on_end: quick.recipient(),
        on_fatal: |what| panic!("{what}"),
        seams,
    };
    let system = system::assemble(ingredients).await.unwrap_or_else(|error| panic!("{error:#}"));
    let ask = || system.coordinator.send(GetStats);
    // The catch-ups of the start are over after a second and a half; then measure between two instants without a slot.
    let begin = clock.now().floor_to(1_000).plus_ms(2_500);
    clock.sleep_until(begin).await;
    let before = ask().await.unwrap_or_else(|error| panic!("{error}"));
    arrivals.borrow_mut().clear();
    let cpu = cpu_seconds();
    clock.sleep_until(begin.plus_ms(SECONDS as i64 * 1_000)).await;
    let cpu = cpu_seconds() - cpu;
    let after = ask().await.unwrap_or_else(|error| panic!("{error}"));
    after.checked.unwrap_or_else(|error| panic!("{error}"));

    let mut arrivals = arrivals.borrow_mut();
    arrivals.sort_unstable();
    let at = |share: f64| arrivals.get(((arrivals.len() as f64 * share).ceil() as usize).max(1) - 1).copied();
    let ((q1, m1, s1), (q0, m0, s0)) =
        (of(&after.stats, TaskName::SentimentAnalysis), of(&before.stats, TaskName::SentimentAnalysis));
    let slow = of(&after.stats, TaskName::TechnicalAnalysis).0 - of(&before.stats, TaskName::TechnicalAnalysis).0;
    let runs = (q1 - q0) + slow;
    let lateness = &after.stats.totals.start_lateness;
    println!("{SYMBOLS} symbols, {SECONDS} s, store {}:", if durable { "in files, with notes" } else { "in memory" });
    println!(
        "  runs of the 1 s task {} of {}, missed {}, skipped {}",
        q1 - q0,
        SYMBOLS as u64 * SECONDS,
        m1 - m0,
        s1 - s0
    );
    println!("  runs of the 5 s task {slow}; skipped as running {}", after.stats.skipped(SkipReason::Running));
    println!(
        "  start lateness p50 {} p99 {} max {} ms; at the agent p50 {:?} p99 {:?} max {:?} ms",
        lateness.quantile(0.5),
        lateness.quantile(0.99),
        lateness.max_ms,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    println!("  CPU {:.2} s, {:.1} µs per run", cpu, cpu * 1e6 / runs.max(1) as f64);
}

fn main() {
    for durable in [false, true] {
        run_live(wall_now(), 1, |place| measure(place, durable)).unwrap_or_else(|error| panic!("{error}"));
    }
}
