//! Judges all mutants that cargo-mutants lists with one build instead of one build each: see README.md.

mod build;
mod mutants;
mod switch;
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mutants::{Mutants, Out};
use serde::{Deserialize, Serialize};
use tests::{Ended, Test};

/// What became of one mutant.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Verdict {
    id: usize,
    /// `caught`, `timeout`, `missed`, or `unmet`: no test comes to it.
    verdict: String,
    /// The tests that failed, or that would have been next.
    by: String,
}

struct Place {
    work: PathBuf,
    jobs: usize,
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn tree(&self) -> PathBuf {
        self.work.join("tree")
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<T> {
        let text = fs::read_to_string(self.file(name)).with_context(|| name.to_owned())?;
        serde_json::from_str(&text).with_context(|| name.to_owned())
    }

    /// Does `work` for the numbers below `count`, some at a time.
    fn each(&self, count: usize, work: impl Fn(usize, &Path) -> Result<()> + Sync) -> Result<()> {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.jobs)
                .map(|job| {
                    let (next, work, scratch) = (&next, &work, self.work.join(format!("tmp-{job}")));
                    scope.spawn(move || -> Result<()> {
                        loop {
                            let index = next.fetch_add(1, Ordering::Relaxed);
                            if index >= count {
                                return Ok(());
                            }
                            work(index, &scratch)?;
                        }
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a job panicked"))?)
        })
    }
}

/// Builds the switched tree: first the library alone, whose errors come soonest, then all tests.
///
/// `targets` are arguments of `cargo test` that choose tests; none = all.
fn build(place: &Place, source: &Path, targets: &[&str]) -> Result<()> {
    let mut mutants = Mutants::read(&place.file("listed.json"))?;
    // What an earlier build of the same list left out need not be found again.
    if let Ok(before) = Mutants::read(&place.file("mutants.json"))
        && before.0.iter().map(|mutant| &mutant.name).eq(mutants.0.iter().map(|mutant| &mutant.name))
    {
        mutants = before;
    }
    let tree = place.tree();
    build::build(source, &tree, &mut mutants, &["test", "--no-run", "--lib", "--locked"])?;
    let messages = build::build(source, &tree, &mut mutants, &[&["test", "--no-run", "--locked"], targets].concat())?;
    mutants.write(&place.file("mutants.json"))?;
    fs::write(place.file("binaries.json"), serde_json::to_string(&tests::binaries(&messages))?)?;
    let count = |why| mutants.0.iter().filter(|mutant| mutant.out == why).count();
    println!(
        "{} mutants: {} switched, {} do not build, {} to be judged apart",
        mutants.0.len(),
        count(None),
        count(Some(Out::Unviable)),
        count(Some(Out::Apart))
    );
    Ok(())
}

/// Runs every test alone, without a mutant, and notes its time and the mutants it meets.
fn trace(place: &Place) -> Result<()> {
    let binaries: Vec<(String, PathBuf)> = place.read("binaries.json")?;
    let tree = place.tree();
    let mut all = Vec::new();
    for (target, binary) in binaries {
        for name in tests::names(&binary, &tree)? {
            all.push((target.clone(), binary.clone(), name));
        }
    }
    let (found, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    place.each(all.len(), |index, scratch| {
        let (target, binary, name) = &all[index];
        let file = scratch.with_extension(format!("trace-{index}"));
        let began = Instant::now();
        let ended = tests::run(binary, &[name], &tree, "trace", Some(&file), scratch, Duration::from_secs(240))?;
        let ms = began.elapsed().as_millis() as u64;
        let meets = fs::read_to_string(&file).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect();
        let _ = fs::remove_file(&file);
        if ended == Ended::Passed {
            let test = Test { binary: binary.clone(), target: target.clone(), name: name.clone(), ms, meets };
            found.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(test);
        } else {
            failed.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(format!("{target} {name}"));
        }
        Ok(())
    })?;
    let (mut found, failed) = (found.into_inner().unwrap_or_default(), failed.into_inner().unwrap_or_default());
    found.sort_by(|a, b| (&a.target, &a.name).cmp(&(&b.target, &b.name)));
    fs::write(place.file("tests.json"), serde_json::to_string(&found)?)?;
    println!("{} tests pass, {} do not and are not used:", found.len(), failed.len());
    failed.iter().for_each(|name| println!("  {name}"));
    Ok(())
}

/// Part of a name that a test shares with the file of a mutant: `risk::view` of `src/risk/view.rs`.
fn module(file: &str) -> String {
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    inside.replace('/', "::")
}

/// Judges one mutant: tests that meet it, the likeliest and quickest first, until one fails or the budget is used up.
fn judge(place: &Place, tests: &[Test], file: &str, id: usize, budget_ms: u64, scratch: &Path) -> Result<Verdict> {
    let tree = place.tree();
    let near = module(file);
    let mut meeting: Vec<&Test> = tests.iter().filter(|test| test.meets.contains(&id)).collect();
    if meeting.is_empty() {
        return Ok(Verdict { id, verdict: "unmet".to_owned(), by: String::new() });
    }
    let weight = |test: &Test| {
        let own = test.target == "lib" && test.name.starts_with(&near);
        // A test that meets few mutants is about them.
        let about = test.meets.len() as u64 / 4;
        if own { test.ms / 8 } else { test.ms + about }
    };
    meeting.sort_by_key(|test| (weight(test), &test.name));
    let (mut at, mut spent) = (0, 0);
    while at < meeting.len() {
        let first = meeting[at];
        if spent + first.ms > budget_ms && spent > 0 {
            let by = format!("{} of {} tests asked; next: {} {}", at, meeting.len(), first.target, first.name);
            return Ok(Verdict { id, verdict: "missed".to_owned(), by });
        }
        let (mut chunk, mut ms) = (vec![first], first.ms);
        while let Some(test) = meeting.get(at + chunk.len()) {
            if test.binary != first.binary || ms + test.ms > 400 || chunk.len() >= 40 {
                break;
            }
            ms += test.ms;
            chunk.push(test);
        }
        let names: Vec<&str> = chunk.iter().map(|test| test.name.as_str()).collect();
        let most = Duration::from_millis(8_000 + 6 * ms);
        let ended = tests::run(&first.binary, &names, &tree, &id.to_string(), None, scratch, most)?;
        let by = || format!("{} {}", first.target, names.join(" "));
        if ended != Ended::Passed {
            // What fails without the mutant as well says nothing about it.
            let certain = first.target == "lib" && ended == Ended::Failed
                || tests::run(&first.binary, &names, &tree, "0", None, scratch, most)? == Ended::Passed;
            if certain {
                let verdict = if ended == Ended::Failed { "caught" } else { "timeout" };
                return Ok(Verdict { id, verdict: verdict.to_owned(), by: by() });
            }
        }
        spent += ms;
        at += chunk.len();
    }
    Ok(Verdict { id, verdict: "missed".to_owned(), by: format!("all {} tests asked", meeting.len()) })
}

fn verdicts(place: &Place) -> Vec<Verdict> {
    let text = fs::read_to_string(place.file("verdicts.jsonl")).unwrap_or_default();
    let all: Vec<Verdict> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    // The newest word about a mutant counts.
    all.into_iter().map(|verdict| (verdict.id, verdict)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Judges every mutant without a verdict; with `again`, also those that were missed. `filter` is part of its name.
fn evaluate(place: &Place, budget_ms: u64, again: bool, filter: &str) -> Result<()> {
    let mutants = Mutants::read(&place.file("mutants.json"))?;
    let tests: Vec<Test> = place.read("tests.json")?;
    let known: BTreeSet<usize> = verdicts(place)
        .into_iter()
        .filter(|verdict| !again || ["caught", "timeout"].contains(&verdict.verdict.as_str()))
        .map(|verdict| verdict.id)
        .collect();
    let open: Vec<usize> = (1..=mutants.0.len())
        .filter(|id| mutants.get(*id).is_some_and(|mutant| mutant.out.is_none() && mutant.name.contains(filter)))
        .filter(|id| !known.contains(id))
        .collect();
    let out = Mutex::new(fs::OpenOptions::new().append(true).create(true).open(place.file("verdicts.jsonl"))?);
    place.each(open.len(), |index, scratch| {
        let id = open[index];
        let file = mutants.get(id).map(|mutant| mutant.file.clone()).unwrap_or_default();
        let verdict = judge(place, &tests, &file, id, budget_ms, scratch)?;
        let mut out = out.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        writeln!(out, "{}", serde_json::to_string(&verdict)?)?;
        Ok(())
    })?;
    report(place)
}

/// The score, by folder, and every survivor.
fn report(place: &Place) -> Result<()> {
    let mutants = Mutants::read(&place.file("mutants.json"))?;
    let verdicts = verdicts(place);
    let mut rows: BTreeMap<String, [usize; 6]> = BTreeMap::new();
    let mut survivors = String::new();
    let by_id: BTreeMap<usize, &Verdict> = verdicts.iter().map(|verdict| (verdict.id, verdict)).collect();
    for (index, mutant) in mutants.0.iter().enumerate() {
        let id = index + 1;
        let folder = mutant.file.split('/').nth(1).unwrap_or_default().to_owned();
        let column = match (mutant.out, by_id.get(&id).map(|verdict| verdict.verdict.as_str())) {
            (Some(Out::Unviable), _) => 0,
            (Some(Out::Apart), _) => 1,
            (None, Some("caught")) => 2,
            (None, Some("timeout")) => 3,
            (None, Some(_)) => 4,
            (None, None) => 5,
        };
        if column == 4 {
            let said = by_id.get(&id).map(|verdict| format!("{}: {}", verdict.verdict, verdict.by)).unwrap_or_default();
            survivors.push_str(&format!("{id}\t{}\t{said}\n", mutant.name));
        }
        for row in [folder, "all".to_owned()] {
            rows.entry(row).or_default()[column] += 1;
        }
    }
    println!("| part | do not build | apart | caught | by time | missed | not judged | score |");
    println!("|---|---|---|---|---|---|---|---|");
    for (part, [unviable, apart, caught, timeout, missed, open]) in &rows {
        let (good, all) = (caught + timeout, caught + timeout + missed);
        let score = 100.0 * good as f64 / all.max(1) as f64;
        println!("| {part} | {unviable} | {apart} | {caught} | {timeout} | {missed} | {open} | {score:.1} % |");
    }
    fs::write(place.file("survivors.tsv"), survivors)?;
    println!("survivors: {}", place.file("survivors.tsv").display());
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = |index: usize| arguments.get(index).map(String::as_str).unwrap_or_default();
    let work = PathBuf::from(std::env::var("MUTATION_WORK").context("MUTATION_WORK: the directory to work in")?);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let place = Place { work, jobs };
    match text(0) {
        "build" => {
            let targets: Vec<&str> = arguments.iter().skip(2).map(String::as_str).collect();
            build(&place, Path::new(text(1)), &targets)
        }
        "trace" => trace(&place),
        "evaluate" => evaluate(&place, text(1).parse().unwrap_or(20_000), text(2) == "again", text(3)),
        "report" => report(&place),
        _ => bail!("usage: mutation build SOURCE [--lib --test NAME …] | trace | evaluate BUDGET_MS [again|new FILTER] | report"),
    }
}
