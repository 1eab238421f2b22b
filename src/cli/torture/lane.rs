//! One lane: one store at a time, killed and started again and again, judged after every kill.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::blocking::Client;

use super::{
    Shared,
    client::{Caller, Sent, Told},
    program::{End, Market, Program, free_port},
    totals::Totals,
};
use crate::{
    settings::{self, sections::StoreSettings},
    store::{oracle::Ack, twice, verify},
};

/// How long a request may take before the client gives the program up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys kept for being asked again.
const KEPT: usize = 40;

/// A violation, or a harness that cannot go on.
pub(super) struct Trouble {
    lane: u64,
    store: u64,
    cycle: u64,
    kept: PathBuf,
    what: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trouble { lane, store, cycle, kept, what } = self;
        writeln!(f, "VIOLATION in lane {lane}, store {store}, cycle {cycle}: {what}")?;
        write!(
            f,
            "kept: {0}; look at it with: triplegain --store {0} journal verify --acks {1}",
            kept.display(),
            acks_file(kept).display()
        )
    }
}

fn acks_file(store: &Path) -> PathBuf {
    store.with_extension("acks.jsonl")
}

pub(super) struct Lane {
    number: u64,
    rng: ChaCha8Rng,
    dir: PathBuf,
    shared: Arc<Shared>,
    http: Client,
    port: u16,
    /// Number of the store, and of the kill in it.
    store: u64,
    cycle: u64,
    acks: Vec<Ack>,
    sent: Vec<Sent>,
    /// Figures of the newest check of the current store.
    newest: Totals,
}

impl Lane {
    pub(super) fn new(number: u64, rng: ChaCha8Rng, base: &Path, shared: Arc<Shared>) -> Result<Lane> {
        let dir = base.join(format!("lane-{number}"));
        std::fs::create_dir_all(&dir)?;
        // A connection of a killed program is never used again.
        let http = Client::builder().no_proxy().timeout(PATIENCE).pool_max_idle_per_host(1).build()?;
        Ok(Lane {
            number,
            rng,
            dir,
            shared,
            http,
            port: free_port()?,
            store: 1,
            cycle: 0,
            acks: Vec::new(),
            sent: Vec::new(),
            newest: Totals::default(),
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("store-{}", self.store))
    }

    /// Kills until there is nothing left to kill.
    pub(super) fn run(&mut self) -> Result<(), Trouble> {
        while self.shared.take() {
            self.cycle += 1;
            let done =
                self.cycle().and_then(|()| if self.cycle >= self.shared.fresh_every { self.renew() } else { Ok(()) });
            done.map_err(|what| self.trouble(&what))?;
        }
        if self.cycle > 0 {
            self.renew().map_err(|what| self.trouble(&what))?;
        }
        Ok(())
    }

    /// Keeps the store with everything that was acknowledged.
    fn trouble(&self, what: &str) -> Trouble {
        let kept = self.path();
        let lines = self.acks.iter().filter_map(|ack| serde_json::to_string(ack).ok());
        let text: String = lines.map(|line| line + "\n").collect();
        let unwritten = std::fs::write(acks_file(&kept), text).err();
        let more =
            unwritten.map_or_else(String::new, |error| format!(" (the acknowledgements cannot be kept: {error})"));
        let (lane, store, cycle) = (self.number, self.store, self.cycle);
        Trouble { lane, store, cycle, kept, what: format!("{what}{more}") }
    }

    /// One life of the program and its judgement.
    fn cycle(&mut self) -> Result<(), String> {
        let window = self.shared.window.as_micros().max(1);
        let after = Duration::from_micros(self.rng.random_range(0..=u64::try_from(window).unwrap_or(u64::MAX)));
        let told = loop {
            match self.life(after).map_err(|error| format!("the harness cannot go on: {error:#}"))? {
                (End::Killed, told) => break told,
                (End::Itself(how), _) => return Err(format!("the program ended by itself, {how}")),
                (End::PortTaken, _) => {
                    self.port = free_port().map_err(|error| error.to_string())?;
                    self.shared.add(&Totals { ports: 1, ..Totals::default() });
                }
            }
        };
        if let Some(wrong) = &told.wrong {
            return Err(wrong.clone());
        }
        let mut facts = Totals {
            kills: 1,
            early: u64::from(!told.answered),
            restarts: u64::from(self.cycle > 1),
            commands: told.commands,
            repeated: told.repeated,
            shown: (told.acks.len() as u64).saturating_sub(told.commands),
            ..Totals::default()
        };
        self.acks.extend(told.acks);
        self.sent.extend(told.sent);
        let old = self.sent.len().saturating_sub(KEPT);
        self.sent.drain(..old);
        self.judge(&mut facts)?;
        self.shared.add(&facts);
        Ok(())
    }

    fn life(&mut self, after: Duration) -> Result<(End, Told)> {
        let store = self.path();
        // One market per store; the same one after every restart.
        let market = Market { seed: self.number * 1_000_000 + self.store, speed: self.shared.speed };
        let mut program = Program::start(&self.shared.exe, &self.shared.config, &store, self.port, market)?;
        let stop = AtomicBool::new(false);
        let caller = Caller {
            http: &self.http,
            port: self.port,
            token_file: store.join("token"),
            name: format!("t{}-{}-{}", self.number, self.store, self.cycle),
            rng: ChaCha8Rng::seed_from_u64(self.rng.random()),
            earlier: &self.sent,
        };
        std::thread::scope(|scope| {
            let talking = scope.spawn(|| caller.talk(&stop));
            let end = program.kill_after(after);
            stop.store(true, Ordering::Relaxed);
            let told = talking.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
            Ok((end?, told))
        })
    }

    /// The oracle over the whole store with everything acknowledged so far.
    fn judge(&mut self, facts: &mut Totals) -> Result<(), String> {
        let store = self.path();
        if !store.join("journal").is_dir() {
            // Killed before it made anything: nothing can have been acknowledged.
            return if self.acks.is_empty() { Ok(()) } else { Err("the journal is gone".to_owned()) };
        }
        let report = verify::check_with(&store, &self.acks);
        if report.is_rebuilt_by_a_start() {
            // The embedded store's own files did not survive the kill. What counts is that a start notices, and that the
            // journal alone gives everything back.
            let settings = self.settings()?;
            twice::recover_twice(&store, &settings).map_err(|why| format!("making the embedded store anew: {why}"))?;
            facts.rebuilt = 1;
        } else if !report.is_sound() {
            return Err(report.defects.join("\n  "));
        }
        let figures = report.figures;
        facts.judged = report.records;
        facts.torn = u64::from(report.notes.iter().any(|note| note.starts_with("a torn tail")));
        self.newest = Totals {
            records: report.records,
            intents: figures.intents,
            fills: figures.fills,
            plans: figures.plans,
            closed: figures.closed,
            ..Totals::default()
        };
        Ok(())
    }

    fn settings(&self) -> Result<StoreSettings, String> {
        let sources =
            settings::Sources { file: Some(self.shared.config.clone()), env: Vec::new(), overrides: Vec::new() };
        settings::load(&sources).map(|loaded| loaded.settings.store).map_err(|problems| problems.to_string())
    }

    /// Recovers the store twice, forgets it and begins another.
    fn renew(&mut self) -> Result<(), String> {
        let path = self.path();
        let mut facts = Totals { stores: 1, ..std::mem::take(&mut self.newest) };
        if path.join("identity.json").exists() {
            twice::recover_twice(&path, &self.settings()?).map_err(|why| format!("recovering twice: {why}"))?;
            facts.twice = 1;
        }
        self.shared.add(&facts);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(|error| format!("{} cannot be removed: {error}", path.display()))?;
        }
        let _ = std::fs::remove_file(path.with_extension("log"));
        self.store += 1;
        self.cycle = 0;
        self.acks.clear();
        self.sent.clear();
        Ok(())
    }
}
