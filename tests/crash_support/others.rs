//! Rows that are more than one death: other processes, other disks, other clocks, other programs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use tempfile::TempDir;
use triplegain::{
    model::Ts,
    runtime::failpoint::{Class, SITES},
};

use super::{
    Mode, Settings, World, answering_or_dead, command, killed, launch, make_world, proof,
    verdict::{Failed, Outcome, require},
};
use crate::{process_support::*, service_support::Manager};

fn world(world: World) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    make_world(world, &store);
    (folder, store)
}

fn plain(store: &Path, settings: Settings) -> Program {
    let program = launch(store, "", settings).answering();
    proof::shown(store, &program.status());
    program
}

/// A clean start and a clean stop; the records of a store that is sound.
fn goes_on(store: &Path) -> Vec<serde_json::Value> {
    plain(store, &[]).stop("TERM");
    proof::proven(store)
}

/// What happens between a death and the clean start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Between {
    Nothing,
    /// A start that is killed at this place.
    Kill(&'static str),
    /// A start that meets an error at this place.
    Error(&'static str),
}

impl Between {
    /// Which column of the matrix it is.
    pub const fn mode(self) -> Mode {
        match self {
            Between::Nothing => Mode::Kill,
            Between::Kill(_) => Mode::Again,
            Between::Error(_) => Mode::Error,
        }
    }

    /// For the name of a run.
    pub fn text(self) -> String {
        match self {
            Between::Nothing => String::new(),
            Between::Kill(place) => format!(", then a start with {place}=kill"),
            Between::Error(place) => format!(", then a start with {place}=error"),
        }
    }

    /// Lets it happen.
    fn start(self, store: &Path, settings: &[(&str, &str)]) -> Outcome {
        let (place, action) = match self {
            Between::Nothing => return Ok(()),
            Between::Kill(place) => (place, "kill"),
            Between::Error(place) => (place, "error"),
        };
        let mut program = launch(store, &format!("{place}={action}"), settings);
        let status = program.wait();
        let wanted = if action == "kill" { killed(status) } else { failed(status) };
        require(wanted, || format!("{place}={action}: it ended with {status}: {}", program.said()))
    }
}

/// A start that met an error ended by itself, with a sentence.
fn failed(status: std::process::ExitStatus) -> bool {
    matches!(status.code(), Some(70 | 2))
}

/// A store with a plan under way whose process was killed.
fn killed_with_a_plan(settings: Settings) -> Result<(TempDir, PathBuf), Failed> {
    let (folder, store) = world(World::Morning);
    let mut program = launch(&store, "store.durable[TradeSettled]=kill", settings);
    let status = program.wait();
    require(killed(status), || format!("it ended with {status}: {}", program.said()))?;
    proof::prove(&store)?;
    Ok((folder, store))
}

/// K39: frozen while it holds the lock, at any of these places; a second process is refused and writes nothing;
/// when the frozen one is ended, the next start goes on.
pub fn k39_a_frozen_predecessor(place: &str, between: Between) -> Outcome {
    let (_folder, store) = world(World::Morning);
    let frozen = launch(&store, &format!("{place}=stop"), &[]);
    let stat = format!("/proc/{}/stat", frozen.id());
    until("the process to freeze", || fs::read_to_string(&stat).ok()?.contains(") T ").then_some(()));
    let files = |dir: &str| fs::read_dir(store.join(dir)).map_or(0, Iterator::count);
    let before = (lines(&store), files("journal"), files("checkpoint"));
    let mut second = launch(&store, "", &[]);
    let status = second.wait();
    let said = second.said();
    require(status.code() == Some(73) && said.contains("in use"), || format!("{status}: {said}"))?;
    require(before == (lines(&store), files("journal"), files("checkpoint")), || "it wrote something".to_owned())?;
    frozen.kill9();
    proof::prove(&store)?;
    between.start(&store, &[])?;
    drop(goes_on(&store));
    Ok(())
}

/// K40: it holds the lock and one of its threads stands still. The successor is refused; the signs of life end, so a
/// service manager ends it, as this one does; then the next start goes on.
pub fn k40_the_watchdog(who: &str, between: Between) -> Outcome {
    let (folder, store) = world(World::Morning);
    let manager = Manager::new(folder.path());
    let mut command = manager.command(Some(Duration::from_secs(3)));
    command.env("TRIPLEGAIN_CHAOS", format!("{who}:handler:pause:1500"));
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/crash_support/crash.toml");
    let frozen = Program::spawn_with(command, &store, &["--config", config, "--speed", "60"]);
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    // Looks of 50 ms without a sign of life; a manager's patience is 60 of them.
    let mut quiet = 0;
    until("silence", || {
        let told = manager.heard();
        let alive = told.iter().flatten().any(|line| line == "WATCHDOG=1");
        quiet = if alive { 0 } else { quiet + 1 };
        (quiet > 60).then_some(())
    });
    let before = lines(&store);
    let mut second = launch(&store, "", &[]);
    let status = second.wait();
    let said = second.said();
    require(status.code() == Some(73) && said.contains("in use"), || format!("{status}: {said}"))?;
    require(before == lines(&store), || "it wrote something".to_owned())?;
    frozen.kill9();
    proof::prove(&store)?;
    between.start(&store, &[])?;
    drop(goes_on(&store));
    Ok(())
}

/// Writes of a start: at least so many, and after so many it is over.
const FEWEST_STEPS: u64 = 12;
const LAST_STEP: u64 = 45;

/// K41: a start is killed, or fails, at its first, second, third … step, and each time the next start meets that one step
/// later; the steps of three nested deaths follow one another.
pub fn k41_every_step_of_boot(from: World, action: &str, first: u64, stride: u64) -> Outcome {
    let (_folder, store) = world(from);
    let mut step = first;
    loop {
        let mut program = launch(&store, &format!("*={action}@{step}"), &[]);
        match answering_or_dead(&mut program) {
            Some(status) => {
                let wanted = if action == "kill" { killed(status) } else { failed(status) };
                require(wanted, || format!("at step {step} it ended with {status}: {}", program.said()))?;
            }
            // A mark beside the store that cannot be written is only warned of.
            None if action == "error" && step < LAST_STEP => program.kill9(),
            None => {
                program.kill9();
                break;
            }
        }
        proof::prove(&store)?;
        step += stride;
        // What is written after the start goes on for ever.
        if step > LAST_STEP {
            break;
        }
    }
    require(step > FEWEST_STEPS, || format!("a start has only {step} writes"))?;
    let program = plain(&store, &[]);
    require(program.status()["state"] == "RUNNING", || program.status()["state"].to_string())?;
    program.stop("TERM");
    let booted = of_kind(&proof::proven(&store), "StoreCreated").len();
    require(booted == 1, || format!("created {booted} times"))
}

/// K42: the disk is full, or fails, at a write: the process ends without having told anyone of an effect, and the next
/// start is clean.
pub fn k42_a_failing_disk(place: &str, action: &str, from: World, settings: Settings, between: Between) -> Outcome {
    let (_folder, store) = world(from);
    let mut program = launch(&store, &format!("{place}={action}"), settings);
    if place.starts_with("starts.") {
        // A mark for counting crashes, beside the truth: without it the start goes on.
        require(answering_or_dead(&mut program).is_none(), || format!("it ended: {}", program.said()))?;
        program.kill9();
    } else {
        let status = program.wait();
        let said = program.said();
        require(failed(status), || format!("it ended with {status}: {said}"))?;
        require(!said.contains("panicked"), || format!("it panicked: {said}"))?;
    }
    proof::prove(&store)?;
    between.start(&store, settings)?;
    let program = plain(&store, settings);
    require(program.status()["state"] == "RUNNING", || program.status()["state"].to_string())?;
    program.stop("TERM");
    drop(proof::proven(&store));
    Ok(())
}

/// Which writes a start from which directory passes.
pub fn k42_places() -> Vec<(&'static str, World, Settings)> {
    const SOON: Settings =
        &[("TRIPLEGAIN__STORE__CHECKPOINT__EVENTS", "2"), ("TRIPLEGAIN__STORE__CHECKPOINT__KEEP", "1")];
    let writes = SITES.iter().filter(|site| site.class == Class::Write);
    let place = |name: &'static str| match name {
        // K43 has them.
        "state.open" | "state.rebuild" | "state.clear" | "aside.rename" | "aside.dir_sync" => None,
        "tail.cut" | "tail.sync" => Some((name, World::Torn, &[][..])),
        "journal.close" => Some((name, World::Evening, &[][..])),
        "checkpoint.prune" => Some((name, World::Morning, SOON)),
        _ if name.starts_with("file.") => Some((name, World::Morning, SOON)),
        "journal.open" | "starts.forget" => Some((name, World::Morning, &[][..])),
        _ => Some((name, World::New, &[][..])),
    };
    writes.filter_map(|site| place(site.name)).collect()
}

/// K43: the embedded store is damaged, panics or is silently short: rebuilt from the journal, the old one kept.
pub fn k43_a_damaged_embedded_store(how: &str, between: Between) -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let db = store.join("state/db");
    let bytes = fs::read(&db).unwrap();
    match how {
        "short" => fs::write(&db, &bytes[..bytes.len() / 64]).unwrap(),
        "flipped" => fs::write(&db, bytes.iter().map(|byte| byte ^ 0x10).collect::<Vec<u8>>()).unwrap(),
        "gone" => fs::remove_dir_all(store.join("state")).unwrap(),
        rule => {
            let mut program = launch(&store, rule, &[]);
            // A panic inside the library is an error like any other: the start may go on with a rebuilt store.
            if answering_or_dead(&mut program).is_none() {
                program.kill9();
            }
        }
    }
    between.start(&store, &[])?;
    let program = plain(&store, &[]);
    require(program.status()["state"] == "RUNNING", || program.status()["state"].to_string())?;
    program.stop("TERM");
    drop(proof::proven(&store));
    // A store that is only short at its end is brought up to the journal where it lies.
    if how == "flipped" {
        let kept = fs::read_dir(&store)
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("state."));
        require(kept, || "the damaged directory was not kept".to_owned())?;
    }
    Ok(())
}

/// K43: a start that is killed, or fails, while it rebuilds rebuilds again. Nothing is cleared but what a start made.
pub fn k43_ended_while_rebuilding(rule: &str) -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let db = store.join("state/db");
    let bytes = fs::read(&db).unwrap();
    if rule.starts_with("state.clear") {
        fs::remove_dir_all(store.join("state")).unwrap();
    } else {
        fs::write(&db, bytes.iter().map(|byte| byte ^ 0x10).collect::<Vec<u8>>()).unwrap();
    }
    let mut program = launch(&store, rule, &[]);
    let status = program.wait();
    let wanted = if rule.contains("=kill") { killed(status) } else { failed(status) };
    require(wanted, || format!("it ended with {status}: {}", program.said()))?;
    drop(goes_on(&store));
    Ok(())
}

/// K44: journal and embedded store both damaged: HALTED, nothing is repaired and nothing traded.
pub fn k44_both_damaged(between: Between) -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let name = fs::read_dir(store.join("journal")).unwrap().next().unwrap().unwrap().path();
    let mut text = fs::read(&name).unwrap();
    let middle = text.len() / 2;
    text[middle] ^= 0x01;
    fs::write(&name, &text).unwrap();
    fs::remove_dir_all(store.join("checkpoint")).unwrap();
    fs::write(store.join("state/db"), b"nothing").unwrap();
    between.start(&store, &[])?;
    let program = launch(&store, "", &[]).answering();
    let status = program.status();
    require(status["state"] == "HALTED", || status["state"].to_string())?;
    program.kill9();
    require(fs::read(&name).unwrap() == text, || "the damaged journal was written to".to_owned())
}

/// K45: a copy of a killed store starts HALTED and trades nothing.
pub fn k45_a_copied_directory(between: Between) -> Outcome {
    let (folder, store) = killed_with_a_plan(&[])?;
    let moved = folder.path().join("copy");
    copy(&store, &moved);
    let before = of_kind(&records(&moved), "TradeIntent").len();
    between.start(&moved, &[])?;
    let program = plain(&moved, &[]);
    let status = program.status();
    require(status["state"] == "HALTED", || status["state"].to_string())?;
    let began = Ts::parse(status["now"].as_str().unwrap()).unwrap();
    program.status_when("a program hour", |status| {
        Ts::parse(status["now"].as_str().unwrap()).unwrap() > began.plus_ms(3_600_000)
    });
    program.stop("TERM");
    let after = of_kind(&proof::proven(&moved), "TradeIntent").len();
    require(after == before, || format!("{} orders of a copy", after - before))
}

/// K46: the wall's clock is far from what it was: no slot twice, no burst of legs.
pub fn k46_another_day(days: i64, between: Between) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let wall = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    super::prepare(&store, wall - days * 86_400);
    let settings: Vec<(&str, &str)> = OFTEN.iter().copied().chain([("-speed", "60")]).collect();
    let mut program = launch(&store, "store.durable[TradeSettled]=kill", &settings);
    let status = program.wait();
    require(killed(status), || format!("it ended with {status}: {}", program.said()))?;
    proof::prove(&store)?;
    let crashed = records(&store);
    // At speed 1 the program follows the wall.
    let settings: Vec<(&str, &str)> = OFTEN.iter().copied().chain([("-speed", "1")]).collect();
    between.start(&store, &settings)?;
    let program = launch(&store, "", &settings).answering();
    let mut asked = 0;
    until("runs after the jump", || {
        // PAUSED when its clock is seen to be wrong, until somebody trusts it.
        if program.try_status()?["state"] == "PAUSED" {
            asked += 1;
            command(&program, &format!("trust-{asked}"), &json!({"command": "clock_ack"}));
            command(&program, &format!("go-on-{asked}"), &json!({"command": "resume"}));
        }
        let claims = of_kind(&records(&store)[crashed.len()..], "RunClaimed").len();
        (claims >= 3).then_some(())
    });
    program.stop("TERM");
    let all = proof::proven(&store);
    // A day of one plan was missed: not more than one batch of it goes at once.
    let mut legs: BTreeMap<String, usize> = BTreeMap::new();
    for intent in of_kind(&all[crashed.len()..], "TradeIntent") {
        *legs.entry(intent["data"]["trade"]["plan"].to_string()).or_default() += 1;
    }
    require(legs.values().all(|legs| *legs <= 2), || format!("legs at once: {legs:?}"))?;
    let times: Vec<&str> = all.iter().filter_map(|record| record["ts"].as_str()).collect();
    require(times.is_sorted(), || "journal time went back".to_owned())?;
    let claims = of_kind(&all, "RunClaimed");
    // A run that failed is tried again by the process that claimed its slot, and by no other.
    let mut slots = BTreeMap::new();
    for claim in &claims {
        let marker = &claim["data"]["marker"];
        let slot = format!("{} {}", marker["key"], marker["slot"]);
        let first = slots.entry(slot.clone()).or_insert(&claim["epoch"]);
        require(*first == &claim["epoch"], || format!("{slot} was claimed by boot {first} and by {}", claim["epoch"]))?;
    }
    Ok(())
}

/// The rebalance check so often that slots are met on both sides of a jump within seconds at speed 1.
const OFTEN: Settings = &[
    ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__INTERVAL_SECONDS", "10"),
    ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__TIMEOUT_SECONDS", "9"),
    ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__SNAPSHOT_TIMEOUT_SECONDS", "3"),
    ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__CATCH_UP_SECONDS", "10"),
    ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__START_DEADLINE_SECONDS", "10"),
];

/// K48: a symbol is gone and a task is off: what is open is still there and accounted for, and is listed.
pub fn k48_another_configuration(between: Between) -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let planned = of_kind(&records(&store), "PlanCreated").len();
    // Slowly: a start takes seconds, and none of the legs may have been carried out by then.
    let settings: Settings = &[
        ("TRIPLEGAIN__SYMBOLS", "BTC/USDT"),
        ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__ENABLED", "false"),
        ("-speed", "10"),
    ];
    between.start(&store, settings)?;
    let program = plain(&store, settings);
    let status = program.status();
    let xrp = &status["account"]["balances"]["XRP"];
    let legs = status["scheduled"].as_array().unwrap();
    require(planned == 1 && !legs.is_empty(), || "the plan is gone".to_owned())?;
    let held = of_kind(&records(&store), "TradeFill").iter().any(|fill| fill["data"]["symbol"] == "XRP/USDT");
    require(!held || xrp.is_object(), || format!("the XRP is gone: {}", status["account"]))?;
    let orphans = &status["recovered"]["orphans"];
    let listed =
        |what: &str| orphans.as_array().is_some_and(|all| all.iter().any(|line| line.to_string().contains(what)));
    require(listed("portfolio_rebalance is off"), || format!("the plan is not listed: {orphans}"))?;
    for leg in legs.iter().filter(|leg| leg["symbol"] == "XRP/USDT") {
        let key = leg["trade_key"].as_str().unwrap();
        require(listed(key), || format!("leg {key} is not listed: {orphans}"))?;
    }
    program.stop("TERM");
    drop(proof::proven(&store));
    let program = plain(&store, &[]);
    let status = program.status();
    require(status["recovered"]["orphans"].is_null(), || status["recovered"].to_string())?;
    program.stop("TERM");
    Ok(())
}

/// The only file of a folder, or its newest.
fn newest_in(folder: &Path) -> PathBuf {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
}

/// The newest line with `find` replaced, its checksum made right again.
fn forge_line(file: &Path, find: &str, put: &str) -> Outcome {
    let text = fs::read_to_string(file).unwrap();
    let (rest, line) = text.trim_end().rsplit_once('\n').unwrap();
    let (body, _) = line.rsplit_once(",\"crc\"").unwrap();
    let forged = body.replacen(find, put, 1);
    require(forged != body, || format!("no {find} in {line}"))?;
    let crc = crc32c::crc32c(forged.as_bytes());
    fs::write(file, format!("{rest}\n{forged},\"crc\":\"{crc:08x}\"}}\n")).unwrap();
    Ok(())
}

/// K49: what a newer program wrote is refused with a sentence, and left as it is. There is no older schema than this
/// one, so nothing can be upcast yet.
pub fn k49_another_schema(what: &str, between: Between) -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let file = match what {
        "identity" => store.join("identity.json"),
        _ => newest_in(&store.join("journal")),
    };
    let text = fs::read(&file).unwrap();
    match what {
        "record" => forge_line(&file, "{\"v\":1,", "{\"v\":99,")?,
        "kind" => {
            let line = String::from_utf8_lossy(&text).trim_end().lines().last().unwrap().to_owned();
            let kind = line.split("\"kind\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
            forge_line(&file, &format!("\"kind\":\"{kind}\""), "\"kind\":\"FromTheFuture\"")?;
        }
        _ => {
            let newer = String::from_utf8(text.clone()).unwrap().replacen("\"schema\": 1", "\"schema\": 99", 1);
            require(newer.as_bytes() != text, || format!("no schema in {}", file.display()))?;
            fs::write(&file, newer).unwrap();
        }
    }
    let (before, forged) = (lines(&store), fs::read(&file).unwrap());
    let mut program = launch(&store, "", &[]);
    let status = program.wait();
    require(status.code() == Some(2) && program.said().contains("newer"), || format!("{status}: {}", program.said()))?;
    require(lines(&store) == before && fs::read(&file).unwrap() == forged, || "it wrote something".to_owned())?;
    fs::write(&file, text).unwrap();
    between.start(&store, &[])?;
    drop(goes_on(&store));
    Ok(())
}

/// K49: a store whose last boots were of another version of the program, with the same schema, goes on.
pub fn k49_another_version() -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let all = goes_on(&store);
    let versions: Vec<&str> =
        of_kind(&all, "Booted").iter().filter_map(|boot| boot["data"]["version"].as_str()).collect();
    let (first, last) = (versions.first().copied(), versions.last().copied());
    require(first == Some("test") && last == Some(env!("CARGO_PKG_VERSION")), || format!("{versions:?}"))
}
