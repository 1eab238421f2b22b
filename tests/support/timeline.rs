//! Runs the pure scheduler with scripted agents in virtual time and prints what it does as a readable timeline.
//!
//! A scenario file: first line `ID sentence`; then settings and scripts; then `---` and the expected timeline.

use std::collections::{BTreeMap, BTreeSet};

use triplegain::{coordinator::schedule::*, model::*, settings::sections::*};

#[path = "effect_words.rs"]
mod effect_words;
use effect_words::words;

/// Day 2 of Unix time, so that slot numbers stay small: technical_analysis slot 1440 is 00:00.
pub const DAY: Ts = Ts(86_400_000);

/// Shipped defaults of scheduling §7, symbols BTC/USDT, XRP/USDT, XRP/BTC.
#[derive(Clone)]
pub struct Plan {
    pub scheduler: SchedulerSettings,
    pub tasks: BTreeMap<TaskName, TaskSettings>,
    pub providers: BTreeMap<TaskName, BTreeSet<String>>,
    pub quarantine: QuarantineSettings,
    pub symbols: Vec<Symbol>,
    pub analysis_while_halted: bool,
    pub seed: u64,
    pub epoch: u32,
}

fn need(task: TaskName, max_age_seconds: u32, require_new: bool, required: bool) -> DependencySettings {
    DependencySettings { task, max_age_seconds, require_new, required }
}

fn task(numbers: [u32; 7], depends_on: Vec<DependencySettings>, on_crash: OnCrash) -> TaskSettings {
    let [interval, timeout, snapshot, parallel, catch_up, start_deadline, enabled] = numbers;
    TaskSettings {
        enabled: enabled == 1,
        symbols: vec![],
        interval_seconds: interval,
        phase_seconds: 0,
        timeout_seconds: timeout,
        snapshot_timeout_seconds: snapshot,
        max_parallel: parallel,
        catch_up_seconds: catch_up,
        start_deadline_seconds: start_deadline,
        depends_on,
        max_skew_seconds: 0,
        on_stale: OnStale::Skip,
        on_crash,
    }
}

impl Default for Plan {
    fn default() -> Self {
        use TaskName::*;
        let tasks = BTreeMap::from([
            (TechnicalAnalysis, task([60, 30, 15, 3, 60, 60, 1], vec![], OnCrash::Rerun)),
            (
                RegimeDetection,
                task([300, 60, 30, 3, 300, 300, 1], vec![need(TechnicalAnalysis, 120, false, true)], OnCrash::Rerun),
            ),
            (SentimentAnalysis, task([1800, 120, 0, 2, 1800, 900, 0], vec![], OnCrash::Rerun)),
            (
                TradingDecision,
                task(
                    [3600, 180, 30, 3, 300, 300, 1],
                    vec![
                        need(TechnicalAnalysis, 120, true, true),
                        need(RegimeDetection, 510, true, true),
                        need(SentimentAnalysis, 2820, false, false),
                    ],
                    OnCrash::Skip,
                ),
            ),
            (PortfolioRebalance, task([3600, 120, 30, 1, 300, 300, 1], vec![], OnCrash::Skip)),
        ]);
        Plan {
            scheduler: SchedulerSettings {
                tick_ms: 1000,
                max_concurrent_runs: 5,
                reserved_safety_slots: 1,
                max_per_provider: 2,
                ageing_seconds: 30,
                cancel_grace_seconds: 5,
                retry: RetrySettings { max_attempts: 3, base_ms: 1000, cap_seconds: 60 },
                starvation_factor: 3,
                overlap_alert_after: 3,
                spread_ms: 250,
                wait: WaitSettings { max_seconds: 120, interval_ratio: 0.25 },
                freshness_interval_factor: 1.5,
            },
            tasks,
            providers: BTreeMap::new(),
            quarantine: QuarantineSettings {
                consecutive: 5,
                failures_of_20: 10,
                base_minutes: 5,
                max_minutes: 60,
                sticky_after: 3,
                poison_crashes: 2,
            },
            symbols: ["BTC/USDT", "XRP/USDT", "XRP/BTC"].map(symbol).to_vec(),
            analysis_while_halted: false,
            seed: 7,
            epoch: 2,
        }
    }
}

impl Plan {
    pub fn build(&self, now: Ts) -> Result<Scheduler, SetupError> {
        let setup = Setup {
            scheduler: &self.scheduler,
            tasks: &self.tasks,
            providers: &self.providers,
            quarantine: &self.quarantine,
            analysis_while_halted: self.analysis_while_halted,
            symbols: &self.symbols,
            seed: self.seed,
            epoch: self.epoch,
            generation: Generation { config: 1, schema: 1 },
        };
        Scheduler::new(&setup, now)
    }

    pub fn task(&mut self, name: TaskName) -> &mut TaskSettings {
        self.tasks.get_mut(&name).unwrap()
    }
}

pub fn symbol(text: &str) -> Symbol {
    text.parse().unwrap()
}

/// `12:00:01.250` of day 2, days counted on.
pub fn clock(at: Ts) -> String {
    let ms = at.since_ms(DAY);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{h:02}:{m:02}:{s:02}.{:03}", ms % 1000)
}

fn parse_clock(text: &str) -> Ts {
    let mut total = 0.0;
    for part in text.split(':') {
        total = total * 60.0 + part.parse::<f64>().unwrap_or_else(|_| panic!("bad time {text}"));
    }
    let parts = text.split(':').count();
    DAY.plus_ms((total * if parts == 2 { 60_000.0 } else { 1000.0 }).round() as i64)
}

fn parse_ms(text: &str) -> i64 {
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().unwrap(),
        None => {
            (text.strip_suffix('s').unwrap_or_else(|| panic!("bad length {text}")).parse::<f64>().unwrap() * 1e3) as i64
        }
    }
}

/// What an agent does when it is asked.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Act {
    Succeed,
    Abstain,
    Fail(FailClass),
    /// Answers only after `takes`, cancelled or not.
    Deaf,
    /// Never answers; a cancellation is acknowledged at once when true.
    Hang(bool),
    SnapshotHang,
}

#[derive(Clone)]
struct Script {
    task: Option<TaskName>,
    symbol: Option<Symbol>,
    from: Ts,
    to: Ts,
    takes_ms: i64,
    act: Act,
}

enum Stimulus {
    Input(Input),
    Finish(RunReport),
}

/// One scenario as read.
pub struct Scenario {
    pub title: String,
    plan: Plan,
    start: Ts,
    until: Ts,
    scripts: Vec<Script>,
    stimuli: Vec<(Ts, Stimulus)>,
    restored: Restored,
    show: Vec<String>,
    with_stats: bool,
}

pub fn read(text: &str) -> (Scenario, String) {
    let (head, expected) = text.split_once("\n---\n").expect("a line --- before the expected timeline");
    let mut lines = head.lines();
    let mut scenario = Scenario {
        title: lines.next().unwrap_or_default().to_owned(),
        plan: Plan::default(),
        start: DAY,
        until: DAY,
        scripts: vec![],
        stimuli: vec![],
        restored: Restored::default(),
        show: vec![],
        with_stats: false,
    };
    for line in lines.filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        scenario.line(&line.split_whitespace().collect::<Vec<_>>());
    }
    (scenario, expected.to_owned())
}

impl Scenario {
    fn line(&mut self, words: &[&str]) {
        match words {
            ["start", at] => self.start = parse_clock(at),
            ["until", at] => self.until = parse_clock(at),
            ["symbols", symbols @ ..] => self.plan.symbols = symbols.iter().map(|s| symbol(s)).collect(),
            ["show", kinds @ ..] => self.show.extend(kinds.iter().map(|s| (*s).to_owned())),
            ["stats"] => self.with_stats = true,
            ["only", names @ ..] => {
                for (name, task) in &mut self.plan.tasks {
                    task.enabled = names.contains(&name.name());
                    task.depends_on.retain(|d| names.contains(&d.task.name()));
                }
            }
            ["set", key, value] => self.set(key, value),
            ["asks", task, providers @ ..] => {
                let names = providers.iter().map(|name| (*name).to_owned()).collect();
                self.plan.providers.insert(TaskName::parse(task).unwrap(), names);
            }
            ["agent", rest @ ..] => self.script(rest),
            ["at", at, rest @ ..] => {
                let input = stimulus(rest);
                self.stimuli.push((parse_clock(at), Stimulus::Input(input)));
            }
            ["claimed", task, sym, slot] => {
                let mut row = blank(task, sym);
                row.last_slot = Some(slot.parse().unwrap());
                self.restored.keys.push(row);
            }
            ["output", task, sym, at] => {
                let mut row = blank(task, sym);
                let run_id = RunId { epoch: 1, seq: 1 };
                let generation = Generation { config: 1, schema: 1 };
                row.latest = Some(Output { run_id, as_of: parse_clock(at), generation });
                row.last_success = Some(parse_clock(at));
                self.restored.keys.push(row);
            }
            ["marker", task, sym, slot, interruptions] => self.restored.markers.push(InFlightMarker {
                key: blank(task, sym).key,
                slot: SlotId::Grid(slot.parse().unwrap()),
                run_id: RunId { epoch: 1, seq: 9 },
                started_at: self.start.plus_ms(-1000),
                interruptions: interruptions.parse().unwrap(),
            }),
            other => panic!("scenario line not understood: {other:?}"),
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let (section, name) = key.rsplit_once('.').unwrap();
        let json: serde_json::Value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        let patch = |mut whole: serde_json::Value| {
            assert!(whole.get(name).is_some(), "no key {key}");
            whole[name] = json.clone();
            whole
        };
        match section.strip_prefix("tasks.") {
            Some(task) => {
                let held = self.plan.task(TaskName::parse(task).unwrap());
                *held = serde_json::from_value(patch(serde_json::to_value(&*held).unwrap())).unwrap();
            }
            None if section == "scheduler" => {
                let held = &mut self.plan.scheduler;
                *held = serde_json::from_value(patch(serde_json::to_value(&*held).unwrap())).unwrap();
            }
            None if section == "quarantine" => {
                let held = &mut self.plan.quarantine;
                *held = serde_json::from_value(patch(serde_json::to_value(&*held).unwrap())).unwrap();
            }
            None => panic!("no section {section}"),
        }
    }

    /// `agent TASK|* SYMBOL|* [from T] [to T] [takes D] [abstains|fails CLASS|hangs|ignores|snapshot]`
    fn script(&mut self, words: &[&str]) {
        let mut script = Script {
            task: TaskName::parse(words[0]),
            symbol: words[1].parse().ok(),
            from: Ts(0),
            to: Ts(i64::MAX),
            takes_ms: 0,
            act: Act::Succeed,
        };
        let mut rest = words[2..].iter();
        while let Some(word) = rest.next() {
            match *word {
                "from" => script.from = parse_clock(rest.next().unwrap()),
                "to" => script.to = parse_clock(rest.next().unwrap()),
                "takes" => script.takes_ms = parse_ms(rest.next().unwrap()),
                "abstains" => script.act = Act::Abstain,
                "hangs" => script.act = Act::Hang(true),
                "ignores" => script.act = Act::Hang(false),
                "deaf" => script.act = Act::Deaf,
                "snapshot" => script.act = Act::SnapshotHang,
                "fails" => {
                    let class = rest.next().unwrap();
                    script.act = Act::Fail(serde_json::from_value((*class).into()).unwrap());
                }
                other => panic!("agent word not understood: {other}"),
            }
        }
        self.scripts.push(script);
    }

    fn answer(&self, request: &RunRequest) -> Option<(Ts, RunReport, bool)> {
        let now = request.started_at;
        let fits = |s: &&Script| {
            s.task.is_none_or(|t| t == request.key.task)
                && s.symbol.is_none_or(|x| x == request.key.symbol)
                && (s.from..s.to).contains(&now)
        };
        // The last line that fits wins.
        let script = self.scripts.iter().rev().find(fits);
        let (takes, act) = script.map_or((0, Act::Succeed), |s| (s.takes_ms, s.act));
        let outcome = match act {
            Act::Hang(_) => return None,
            Act::Succeed | Act::Deaf => RunOutcome::Succeeded,
            Act::Abstain => RunOutcome::Abstained("no data".into()),
            Act::Fail(class) => RunOutcome::Failed(FailCause { class, message: "scripted".into() }),
            Act::SnapshotHang => RunOutcome::TimedOut("snapshot".into()),
        };
        let at = if act == Act::SnapshotHang { request.snapshot_deadline? } else { now.plus_ms(takes) };
        let report = RunReport { id: request.id, run_id: request.run_id, outcome, as_of: now };
        Some((at, report, act == Act::Deaf))
    }

    fn acknowledges(&self, key: RunKey, now: Ts) -> bool {
        let fits = |s: &&Script| {
            s.task.is_none_or(|t| t == key.task)
                && s.symbol.is_none_or(|x| x == key.symbol)
                && (s.from..s.to).contains(&now)
        };
        self.scripts.iter().rev().find(fits).is_none_or(|s| !matches!(s.act, Act::Hang(false) | Act::Deaf))
    }

    /// The timeline; every step checks the identities.
    pub fn play(mut self) -> String {
        let mut scheduler = self.plan.build(self.start).expect("valid settings");
        let mut effects = vec![];
        let mut lines = vec![];
        let restored = std::mem::take(&mut self.restored);
        for run in scheduler.restore(self.start, restored, &mut effects) {
            lines.push(format!(
                "{} recovered {} slot {} {}",
                clock(self.start),
                run.marker.key,
                run.marker.slot,
                run.policy
            ));
        }
        let mut pending: Vec<(Ts, Stimulus)> = std::mem::take(&mut self.stimuli);
        let mut now = self.start;
        let mut input = Input::Tick;
        loop {
            scheduler.step(now, input, &mut effects);
            scheduler.check().unwrap_or_else(|e| panic!("{}: {e}", clock(now)));
            for effect in effects.drain(..) {
                lines.extend(self.describe(now, &effect));
                match &effect {
                    Effect::Start(request) => {
                        pending.extend(self.answer(request).map(|(at, report, _)| (at, Stimulus::Finish(report))));
                    }
                    Effect::Cancel { key, run_id } if self.acknowledges(*key, now) => {
                        pending.retain(|(_, s)| !matches!(s, Stimulus::Finish(r) if r.run_id == *run_id));
                        let id = scheduler.key_id(*key).unwrap();
                        pending.push((now, Stimulus::Input(Input::Cancelled { id, run_id: *run_id })));
                    }
                    _ => {}
                }
            }
            let first = pending.iter().enumerate().min_by_key(|(place, (at, _))| (*at, *place)).map(|(i, p)| (i, p.0));
            let wakeup = scheduler.next_wakeup().unwrap_or(Ts(i64::MAX)).max(now);
            input = match first {
                Some((place, at)) if at <= wakeup => {
                    now = at.max(now);
                    match pending.remove(place).1 {
                        Stimulus::Input(input) => input,
                        Stimulus::Finish(report) => Input::Finished(report),
                    }
                }
                _ => {
                    now = wakeup;
                    Input::Tick
                }
            };
            if now > self.until {
                break;
            }
        }
        let mut text = lines.join("\n") + "\n";
        if self.with_stats {
            text += &stats_lines(&scheduler.stats());
        }
        text
    }

    fn describe(&self, now: Ts, effect: &Effect) -> Option<String> {
        let (kind, rest) = words(effect);
        let line = format!("{} {kind} {rest}", clock(now));
        let shown = self.show.is_empty()
            || self.show.iter().any(|filter| filter == kind || filter.split('+').all(|part| line.contains(part)));
        shown.then_some(line.trim_end().to_owned())
    }
}

fn stats_lines(stats: &Stats) -> String {
    let s = &stats.sums;
    let mut text = format!(
        "totals started {} succeeded {} abstained {} failed {} timed_out {} interrupted {}\n",
        s.started, s.succeeded, s.abstained, s.failed, s.timed_out, s.interrupted
    );
    let t = &stats.totals;
    text += &format!(
        "totals claimed {} missed {} skipped {} retries {} pulls {} late {} peak {} abandoned {}\n",
        s.claimed, s.missed, s.skipped, t.retries, t.pulls, t.late_results, t.peak_running, stats.abandoned
    );
    text
}

fn blank(task: &str, sym: &str) -> RestoredKey {
    let key = RunKey { task: TaskName::parse(task).unwrap(), symbol: symbol(sym) };
    RestoredKey { key, last_slot: None, latest: None, consumed: vec![], last_success: None }
}

fn stimulus(words: &[&str]) -> Input {
    match words {
        ["force", id, task, symbol] => {
            Input::Force { command_id: (*id).into(), task: (*task).into(), symbol: (*symbol).into() }
        }
        ["gates", state, level, unpaid @ ..] => Input::Gates(Gates {
            state: serde_json::from_value((*state).into()).unwrap(),
            level: serde_json::from_value((*level).into()).unwrap(),
            unpaid: unpaid.iter().map(|name| TaskName::parse(name).unwrap()).collect(),
        }),
        ["switch", task, onoff] => {
            Input::Switch { task: TaskName::parse(task).unwrap(), enabled: Some(*onoff == "on") }
        }
        ["release", task, symbol] => Input::Release { key: blank(task, symbol).key },
        ["drain"] => Input::Drain,
        other => panic!("stimulus not understood: {other:?}"),
    }
}
