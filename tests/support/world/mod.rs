//! A whole program in virtual time: real actors, a scripted feed, agents that do what the scenario says. Only what the
//! scenario names is replaced.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)] // a failed unwrap is a failed test

pub mod doubles;
pub mod feed;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex},
};

use actix::{Actor, Context, Handler};
pub use doubles::*;
pub use feed::Tape;
use triplegain::{
    bus::actor as bus,
    cli::system::{self, Ingredients, Seams, System, assemble},
    coordinator::{
        messages::{CheckedStats, GetStats, GetStatus},
        timekeeper::{Outside, WallSource},
    },
    execution::venue::{Venue, VenueAnswer},
    llm::actor::http::Http,
    market::{
        Feed, Market,
        actor::FeedEnded,
        feed::{kraken::view::Shared, simulated::SimulatedFeed},
    },
    runtime::{clock::LogicalClock, placement::run_virtual},
    store::{Close, CommittedBatch, Detach, Observe, OpenInfo, Store, StoreError, memory_disk::MemoryDisk},
};
#[allow(unused_imports)] // not every test file looks at the bus
pub use triplegain::{
    bus::{Envelope, Payload, Priority, Topic},
    coordinator::{
        messages::{Operate, Operated},
        status::Status,
    },
    execution::venue::{Fault, FaultyVenue, PaperVenue},
    model::*,
    settings::Settings,
};

/// Wednesday 2026-01-07, 11:58:00: decisions fall due two minutes later, week and day do not change for half a day.
pub const START: Ts = Ts(1_767_787_080_000);

pub fn sym(text: &str) -> Symbol {
    text.parse().unwrap()
}

pub fn asset(text: &str) -> Asset {
    text.parse().unwrap()
}

pub fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub fn btc() -> Symbol {
    sym("BTC/USDT")
}

pub fn xrp() -> Symbol {
    sym("XRP/USDT")
}

thread_local! {
    static FATAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn fatal(what: &str) {
    FATAL.with_borrow_mut(|seen| seen.push(what.to_owned()));
}

/// What a scenario starts from.
pub struct Setup {
    pub settings: Settings,
    pub start: Ts,
    pub tape: Tape,
    pub doubles: Doubles,
    pub faults: Faults,
    /// A durable store in this folder; in memory when absent.
    pub folder: Option<PathBuf>,
    /// A durable store on this disk of memory instead.
    pub disk: Option<MemoryDisk>,
    /// How many times less often than live the clock is watched; see [`Outside`].
    pub seldom: u32,
    /// The wall jumps once: milliseconds after the start, and how far. Without it program time follows no wall.
    pub wall_jump: Option<(i64, i64)>,
    /// What the link to a live venue shows; the scenario changes it. With it there is a wall.
    pub link: Option<Shared>,
    /// Hash of the settings, as a change of settings would change it.
    pub config_hash: String,
    pub history_hours: i64,
    /// Prices come from the simulated market instead of the tape.
    pub simulated: bool,
    /// Who stands for the providers of models behind the real router.
    pub providers: Option<Http>,
    /// The journal's bytes of a store in memory, for a comparison.
    pub journal: Option<Bytes>,
}

/// What a store in memory has written.
#[derive(Clone, Default)]
pub struct Bytes(pub Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Setup {
    /// Defaults without rebalancing: the account stays what decisions make of it.
    pub fn new() -> Setup {
        let mut settings = Settings::defaults();
        settings.tasks.get_mut(&TaskName::PortfolioRebalance).unwrap().enabled = false;
        Setup {
            settings,
            start: START,
            tape: Tape::default(),
            doubles: Doubles::default(),
            faults: Faults::default(),
            folder: None,
            disk: None,
            seldom: Outside::default().seldom,
            wall_jump: None,
            link: None,
            config_hash: "a".repeat(64),
            history_hours: 2,
            simulated: false,
            providers: None,
            journal: None,
        }
    }

    /// The program as it is shipped: default settings, its own agents, its simulated market.
    pub fn shipped() -> Setup {
        let settings = Settings::defaults();
        Setup { settings, doubles: Doubles::none(), simulated: true, ..Setup::new() }
    }

    pub fn with(mut self, edit: impl FnOnce(&mut Settings)) -> Setup {
        edit(&mut self.settings);
        self
    }

    pub fn at(mut self, start: Ts) -> Setup {
        self.start = start;
        self
    }

    pub fn durable(mut self, folder: &Path) -> Setup {
        self.folder = Some(folder.to_owned());
        self
    }

    fn info(&self) -> OpenInfo {
        OpenInfo {
            seed: 7,
            data_kind: "simulated".into(),
            config_hash: self.config_hash.clone(),
            version: "test".into(),
            now: self.start,
            deposits: system::deposits(&self.settings),
            stands_still: false,
            store_id: None,
        }
    }

    /// Opens the store without starting anything.
    pub fn open(&self) -> Result<(), StoreError> {
        Store::open(self.folder.as_deref().unwrap(), &self.settings.store, &self.info()).map(drop)
    }

    /// Commits to the store of this setup without starting anything, as a process that is killed at once.
    pub fn commit(&self, events: Vec<Event>) {
        let (mut store, _) = Store::open(self.folder.as_deref().unwrap(), &self.settings.store, &self.info()).unwrap();
        let batch = triplegain::store::Batch::new("test", "test", "test", self.start, events);
        store.commit(batch).unwrap().unwrap();
    }

    /// Plays a scenario; what is left when it returns is dropped without a drain, as in a crash.
    pub fn play<T>(self, scenario: impl AsyncFnOnce(&World) -> T) -> T {
        FATAL.with_borrow_mut(Vec::clear);
        let info = self.info();
        let (store, opened) = match (&self.disk, &self.folder) {
            (Some(disk), _) => Store::on_disk(disk, &self.settings.store, &info, Box::new(|_, _| ())).unwrap(),
            (None, Some(folder)) => Store::open(folder, &self.settings.store, &info).unwrap(),
            (None, None) => Store::memory(&info, self.journal.clone().map(|out| Box::new(out) as _)).unwrap(),
        };
        let start = self.start.max(opened.last_logical_time);
        let result = run_virtual(start, |place| async move {
            let clock = place.clock.clone();
            let settings = Rc::new(self.settings);
            let seen = Log { starts: Rc::default(), start };
            let wishes = self.doubles.wishes.clone();
            let models = self.doubles.models.clone();
            let doubles = (self.doubles, seen.clone());
            let feed: Box<dyn Feed> = if self.simulated {
                let history_ms = Market::history_ms(&settings.market, Timeframe::M1);
                let (simulated, meta) = (&settings.market.simulated, &store.state().meta);
                let (seed, origin) = (meta.seed, meta.created_at);
                Box::new(SimulatedFeed::new(simulated, &settings.symbols, seed, origin, start, history_ms).unwrap())
            } else {
                Box::new(feed::Scripted::new(self.tape.clone(), &settings.symbols, start, self.history_hours))
            };
            let faults = self.faults.clone();
            let wall_jump = self.wall_jump.or(self.link.as_ref().map(|_| (i64::MAX, 0)));
            let venue = Flaky { inner: PaperVenue::new(&settings, "scripted".into()), faults: faults.clone() };
            let seams = Seams {
                venue: Some(Box::new(venue)),
                remote: None,
                links: Some(Box::new(move |links| doubles.0.install(links, &doubles.1))),
                market: None,
                models: models.map(doubles::thinker),
                providers: self.providers,
            };
            let records = Rc::new(RefCell::new(Vec::new()));
            let owner = Owner(Rc::clone(&records)).start();
            let system = assemble(Ingredients {
                settings: Rc::clone(&settings),
                config_hash: self.config_hash,
                place,
                store,
                opened,
                feed,
                volatile: false,
                outside: Outside {
                    wall: wall_jump.map(|jump| wall(start, jump)),
                    venue: self.link,
                    seldom: self.seldom,
                    ..Outside::default()
                },
                on_end: owner.clone().recipient(),
                on_fatal: fatal,
                seams,
            })
            .await
            .unwrap();
            system.links.store.send(Observe(owner.recipient())).await.unwrap();
            let world = World { system, clock, start, records, tape: self.tape, wishes, seen, settings, faults };
            scenario(&world).await
        });
        let fatal = FATAL.with_borrow_mut(std::mem::take);
        assert!(fatal.is_empty(), "a broken invariant: {fatal:?}");
        result.unwrap()
    }
}

/// A wall that agrees with program time until it jumps.
fn wall(start: Ts, (at_ms, by_ms): (i64, i64)) -> WallSource {
    let began = tokio::time::Instant::now();
    Rc::new(move || {
        let passed = began.elapsed().as_millis() as i64;
        start.plus_ms(if passed < at_ms { passed } else { passed + by_ms })
    })
}

/// What would have ended the process so far; the scenario that asks has expected it.
pub fn expected_fatal() -> Vec<String> {
    FATAL.with_borrow_mut(std::mem::take)
}

/// How many of the next executions fail, and how.
pub type Faults = Rc<Cell<Option<(u32, Fault)>>>;

struct Flaky {
    inner: PaperVenue,
    faults: Faults,
}

impl Venue for Flaky {
    fn execute(&mut self, trade: &Trade, price: Option<&PriceTick>, now: Ts) -> VenueAnswer {
        let Some((failures, fault)) = self.faults.get() else { return self.inner.execute(trade, price, now) };
        let mut venue = FaultyVenue { inner: self.inner.clone(), failures, fault, calls: 0 };
        let answer = venue.execute(trade, price, now);
        self.faults.set(Some((venue.failures, fault)).filter(|(left, _)| *left > 0));
        answer
    }
}

struct Owner(Rc<RefCell<Vec<Record>>>);

impl Actor for Owner {
    type Context = Context<Self>;
}

impl Handler<FeedEnded> for Owner {
    type Result = ();
    fn handle(&mut self, ended: FeedEnded, _: &mut Context<Self>) {
        fatal(&format!("the scripted feed ended: {:?}", ended.error));
    }
}

impl Handler<CommittedBatch> for Owner {
    type Result = ();
    fn handle(&mut self, CommittedBatch(records): CommittedBatch, _: &mut Context<Self>) {
        self.0.borrow_mut().extend(records.iter().cloned());
    }
}

/// The running program.
pub struct World {
    pub system: System,
    pub clock: LogicalClock,
    pub start: Ts,
    records: Rc<RefCell<Vec<Record>>>,
    pub tape: Tape,
    pub wishes: Wishes,
    pub seen: Log,
    pub settings: Rc<Settings>,
    /// How the venue fails from now on.
    pub faults: Faults,
}

impl World {
    pub fn now(&self) -> Ts {
        self.clock.now()
    }

    /// Lets time pass until `ms` after the start of this life.
    pub async fn until_ms(&self, ms: i64) {
        self.clock.sleep_until(self.start.plus_ms(ms)).await;
        settle().await;
    }

    /// Lets time pass until so many seconds after the start of this life.
    pub async fn until(&self, seconds: i64) {
        self.until_ms(seconds * 1_000).await;
    }

    pub async fn pass(&self, seconds: i64) {
        self.clock.sleep_until(self.now().plus_ms(seconds * 1_000)).await;
        settle().await;
    }

    pub fn state(&self) -> std::cell::Ref<'_, State> {
        self.system.view.read()
    }

    pub async fn status(&self) -> Status {
        self.system.coordinator.send(GetStatus).await.unwrap()
    }

    pub async fn stats(&self) -> CheckedStats {
        let stats = self.system.coordinator.send(GetStats).await.unwrap();
        assert_eq!(stats.checked, Ok(()));
        stats
    }

    pub async fn operate(&self, key: &str, command: Command) -> Operated {
        let operate = Operate { key: key.into(), command, source: "test".into() };
        let answer = self.system.coordinator.send(operate).await.unwrap();
        settle().await;
        answer
    }

    /// Asks for something that must not be refused.
    pub async fn order(&self, key: &str, command: Command) -> serde_json::Value {
        match self.operate(key, command).await {
            Operated::Answered(CommandAnswer::Ok { result }) => result,
            other => panic!("{other:?}"),
        }
    }

    /// Code of a refusal.
    pub async fn refusal(&self, key: &str, command: Command) -> String {
        match self.operate(key, command).await {
            Operated::Answered(CommandAnswer::Refused { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }

    pub fn records(&self) -> Vec<Record> {
        self.records.borrow().clone()
    }

    /// What `pick` makes of the events so far, in order.
    pub fn all<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        self.records.borrow().iter().filter_map(|record| pick(&record.event)).collect()
    }

    /// As `all`, over whole records.
    pub fn each<T>(&self, pick: impl Fn(&Record) -> Option<T>) -> Vec<T> {
        self.records.borrow().iter().filter_map(pick).collect()
    }

    pub fn count(&self, kind: &str) -> usize {
        self.records.borrow().iter().filter(|record| record.event.kind() == kind).count()
    }

    /// Seconds after the start at which events of a kind were recorded.
    pub fn times(&self, kind: &str) -> Vec<f64> {
        let records = self.records.borrow();
        let of_kind = records.iter().filter(|record| record.event.kind() == kind);
        of_kind.map(|record| record.ts.since_ms(self.start) as f64 / 1_000.0).collect()
    }

    /// How decisions ended, in order.
    pub fn ends(&self) -> Vec<DecisionEnd> {
        self.all(|event| match event {
            Event::DecisionEnded { end, .. } => Some(end.clone()),
            _ => None,
        })
    }

    /// Notes of one name.
    pub fn notes(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        self.all(|event| match event {
            Event::Noted { what, facts } if what == name => Some(facts.clone()),
            _ => None,
        })
    }

    /// What the bus still shows of a topic, oldest first.
    pub async fn on_bus(&self, topic: Topic) -> Vec<Arc<Envelope>> {
        let ask = bus::Recent { topic, symbol: None, limit: 100_000 };
        let mut shown = self.system.links.bus.bus().send(ask).await.unwrap();
        shown.reverse();
        shown
    }

    /// Pause reasons as one text.
    pub fn reasons(&self) -> String {
        self.state().coordinator.pause_reasons.iter().cloned().collect::<Vec<_>>().join(",")
    }

    pub fn is(&self) -> CoordinatorState {
        self.state().coordinator.state
    }

    /// The journal as a reader would see it, for messages of failures.
    pub fn timeline(&self) -> String {
        let records = self.records.borrow();
        let line = |record: &Record| {
            let text = serde_json::to_string(&record.event).unwrap();
            let text: String = text.chars().take(260).collect();
            format!("{:>9.1} {} {text}", record.ts.since_ms(self.start) as f64 / 1_000.0, record.actor)
        };
        records.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Ends this life the way a stop signal does.
    pub async fn stop(&self) {
        self.system.coordinator.send(triplegain::coordinator::actor::Drain).await.unwrap();
        let store = &self.system.links.store;
        store.send(triplegain::store::Flush).await.unwrap();
        store.send(Detach).await.unwrap();
        let stop =
            triplegain::store::Batch::new("coordinator", "stop", "signal", self.now(), vec![Event::CleanStop {}]);
        store.send(triplegain::store::Commit(stop)).await.unwrap().unwrap();
        store.send(Close).await.unwrap();
    }
}

/// Lets everything that can happen at this instant happen.
pub async fn settle() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}
