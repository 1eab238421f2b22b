//! Rows that are more than one death: other processes, other disks, other clocks, other programs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use triplegain::{
    model::Ts,
    runtime::failpoint::{Class, SITES},
};

use super::{Settings, World, answering_or_dead, killed, launch, make_world};
use crate::process_support::*;

type Outcome = Result<(), String>;

fn world(world: World) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    make_world(world, &store);
    (folder, store)
}

fn plain(store: &Path, settings: Settings) -> Program {
    launch(store, "", settings).answering()
}

/// A store with a plan under way whose process was killed.
fn killed_with_a_plan(settings: Settings) -> Result<(TempDir, PathBuf), String> {
    let (folder, store) = world(World::Morning);
    let mut program = launch(&store, "store.durable[TradeSettled]=kill", settings);
    let status = program.wait();
    if killed(status) { Ok((folder, store)) } else { Err(format!("it ended with {status}: {}", program.said())) }
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what()) }
}

/// K39 and K40: frozen while it holds the lock, at any of these places; a second process is refused and writes nothing;
/// when the frozen one is ended, the next start goes on.
pub fn k39_k40_a_frozen_predecessor(place: &str) -> Outcome {
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
    plain(&store, &[]).stop("TERM");
    drop(assert_sound(&store));
    Ok(())
}

/// Writes of a start: at least so many, and after so many it is over.
const FEWEST_STEPS: u64 = 12;
const LAST_STEP: u64 = 36;

/// K41: a start is killed at its first, second, third … step, and each time the next start is killed one step later;
/// the steps of three nested deaths follow one another.
pub fn k41_every_step_of_boot(from: World, first: u64, stride: u64) -> Outcome {
    let (_folder, store) = world(from);
    let mut step = first;
    loop {
        let mut program = launch(&store, &format!("*=kill@{step}"), &[]);
        if answering_or_dead(&mut program).is_none() {
            program.kill9();
            break;
        }
        let status = program.wait();
        require(killed(status), || format!("at step {step} it ended with {status}: {}", program.said()))?;
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
    let booted = of_kind(&assert_sound(&store), "StoreCreated").len();
    require(booted == 1, || format!("created {booted} times"))
}

/// K42: the disk is full, or fails, at a write: the process ends without having told anyone of an effect, and the next
/// start is clean. Answers whether the place was reached.
pub fn k42_a_failing_disk(place: &str, action: &str, from: World, settings: Settings) -> Outcome {
    let (_folder, store) = world(from);
    let mut program = launch(&store, &format!("{place}={action}"), settings);
    let status = program.wait();
    let said = program.said();
    require(matches!(status.code(), Some(70 | 2)), || format!("it ended with {status}: {said}"))?;
    require(!said.contains("panicked"), || format!("it panicked: {said}"))?;
    let program = plain(&store, settings);
    require(program.status()["state"] == "RUNNING", || program.status()["state"].to_string())?;
    program.stop("TERM");
    drop(assert_sound(&store));
    Ok(())
}

/// Which writes a start from which directory passes.
pub fn k42_places() -> Vec<(&'static str, World, Settings)> {
    const SOON: Settings =
        &[("TRIPLEGAIN__STORE__CHECKPOINT__EVENTS", "2"), ("TRIPLEGAIN__STORE__CHECKPOINT__KEEP", "1")];
    let writes = SITES.iter().filter(|site| site.class == Class::Write);
    let place = |name: &'static str| match name {
        "state.open" | "state.rebuild" | "aside.rename" => None,
        "tail.cut" | "tail.sync" => Some((name, World::Torn, &[][..])),
        "journal.close" => Some((name, World::Evening, &[][..])),
        "checkpoint.prune" => Some((name, World::Morning, SOON)),
        _ if name.starts_with("file.") => Some((name, World::Morning, SOON)),
        "journal.open" => Some((name, World::Morning, &[][..])),
        _ => Some((name, World::New, &[][..])),
    };
    writes.filter_map(|site| place(site.name)).collect()
}

/// K43: the embedded store is damaged, panics or is silently short: rebuilt from the journal, the old one kept.
pub fn k43_a_damaged_embedded_store(how: &str) -> Outcome {
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
    let program = plain(&store, &[]);
    require(program.status()["state"] == "RUNNING", || program.status()["state"].to_string())?;
    program.stop("TERM");
    drop(assert_sound(&store));
    // A store that is only short at its end is brought up to the journal where it lies.
    if how == "flipped" {
        let kept = fs::read_dir(&store)
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("state."));
        require(kept, || "the damaged directory was not kept".to_owned())?;
    }
    Ok(())
}

/// K43: a start that is killed while it rebuilds rebuilds again.
pub fn k43_killed_while_rebuilding(rule: &str) -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let db = store.join("state/db");
    let bytes = fs::read(&db).unwrap();
    fs::write(&db, bytes.iter().map(|byte| byte ^ 0x10).collect::<Vec<u8>>()).unwrap();
    let mut program = launch(&store, rule, &[]);
    let status = program.wait();
    require(killed(status), || format!("it ended with {status}: {}", program.said()))?;
    plain(&store, &[]).stop("TERM");
    drop(assert_sound(&store));
    Ok(())
}

/// K44: journal and embedded store both damaged: HALTED, nothing is repaired and nothing traded.
pub fn k44_both_damaged() -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let name = fs::read_dir(store.join("journal")).unwrap().next().unwrap().unwrap().path();
    let mut text = fs::read(&name).unwrap();
    let middle = text.len() / 2;
    text[middle] ^= 0x01;
    fs::write(&name, &text).unwrap();
    fs::remove_dir_all(store.join("checkpoint")).unwrap();
    fs::write(store.join("state/db"), b"nothing").unwrap();
    let program = plain(&store, &[]);
    let status = program.status();
    require(status["state"] == "HALTED", || status["state"].to_string())?;
    program.kill9();
    require(fs::read(&name).unwrap() == text, || "the damaged journal was written to".to_owned())
}

/// K45: a copy of a killed store starts HALTED and trades nothing.
pub fn k45_a_copied_directory() -> Outcome {
    let (folder, store) = killed_with_a_plan(&[])?;
    let moved = folder.path().join("copy");
    copy(&store, &moved);
    let before = of_kind(&records(&moved), "TradeIntent").len();
    let program = plain(&moved, &[]);
    let status = program.status();
    require(status["state"] == "HALTED", || status["state"].to_string())?;
    let began = Ts::parse(status["now"].as_str().unwrap()).unwrap();
    program.status_when("a program hour", |status| {
        Ts::parse(status["now"].as_str().unwrap()).unwrap() > began.plus_ms(3_600_000)
    });
    program.stop("TERM");
    let after = of_kind(&records(&moved), "TradeIntent").len();
    require(after == before, || format!("{} orders of a copy", after - before))
}

/// K46: the wall's clock is far from what it was: no slot twice, no burst of legs.
pub fn k46_another_day(days: i64) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let wall = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    super::prepare(&store, wall - days * 86_400);
    let mut program = launch(&store, "store.durable[TradeSettled]=kill", &[]);
    let status = program.wait();
    require(killed(status), || format!("it ended with {status}: {}", program.said()))?;
    let crashed = records(&store);
    // At speed 1 the program follows the wall.
    let program = plain(&store, &[("-speed", "1")]);
    program.status_when("the records of the start", |_| of_kind(&records(&store), "RecoveryDone").len() > 1);
    program.stop("TERM");
    let all = assert_sound(&store);
    let legs = of_kind(&all[crashed.len()..], "TradeIntent").len();
    require(legs <= 2, || format!("{legs} legs at once"))?;
    let times: Vec<&str> = all.iter().filter_map(|record| record["ts"].as_str()).collect();
    require(times.is_sorted(), || "journal time went back".to_owned())
}

/// K48: a symbol is gone and a task is off: what is open is still there and accounted for.
pub fn k48_another_configuration() -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let planned = of_kind(&records(&store), "PlanCreated").len();
    let settings: Settings =
        &[("TRIPLEGAIN__SYMBOLS", "BTC/USDT"), ("TRIPLEGAIN__TASKS__PORTFOLIO_REBALANCE__ENABLED", "false")];
    let program = plain(&store, settings);
    let status = program.status();
    let xrp = &status["account"]["balances"]["XRP"];
    require(planned == 1 && !status["scheduled"].as_array().unwrap().is_empty(), || "the plan is gone".to_owned())?;
    let held = of_kind(&records(&store), "TradeFill").iter().any(|fill| fill["data"]["symbol"] == "XRP/USDT");
    require(!held || xrp.is_object(), || format!("the XRP is gone: {}", status["account"]))?;
    program.stop("TERM");
    drop(assert_sound(&store));
    Ok(())
}

/// K49: a store of a newer schema is refused with a sentence, and left as it is.
pub fn k49_another_schema() -> Outcome {
    let (_folder, store) = killed_with_a_plan(&[])?;
    let file = store.join("identity.json");
    let text = fs::read_to_string(&file).unwrap();
    let newer = text.replace("\"schema\": 1", "\"schema\": 99");
    require(newer != text, || format!("no schema in {text}"))?;
    fs::write(&file, newer).unwrap();
    let before = lines(&store);
    let mut program = launch(&store, "", &[]);
    let status = program.wait();
    require(status.code() == Some(2) && program.said().contains("schema 99"), || program.said())?;
    require(lines(&store) == before, || "it wrote something".to_owned())?;
    fs::write(&file, text).unwrap();
    plain(&store, &[]).stop("TERM");
    drop(assert_sound(&store));
    Ok(())
}
