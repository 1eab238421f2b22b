//! Bad input to the real process: each a clear message with the right exit code, nothing lost, never a panic.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod process_support;

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use flate2::{Compression, write::GzEncoder};
use process_support::*;
use serde_json::Value;

const SLOW: [&str; 2] = ["--speed", "1"];
const FIRST: i64 = 1_618_963_200; // 2021-04-21T00:00:00Z

/// Two days of one-minute candles that go up and down.
fn candles() -> Vec<String> {
    let row = |minute: i64| {
        let price = 50_000.0 + 500.0 * (minute as f64 / 90.0).sin();
        format!("{},{price:.2},{:.2},{:.2},{price:.2},1.5,3", FIRST + minute * 60, price + 5.0, price - 5.0)
    };
    (0..2 * 1440).map(row).collect()
}

fn folder_with(name: &str, rows: &[String]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), rows.join("\n") + "\n").unwrap();
    folder
}

fn backtest(data: &Path, more: &[&str]) -> Output {
    run_to_end(&[&["backtest", "--data", data.to_str().unwrap(), "--symbols", "BTC/USDT"], more].concat())
}

fn report(data: &Path) -> (Value, Output) {
    let output = backtest(data, &["--json"]);
    assert_clear(&output, 0, &[]);
    (serde_json::from_slice(&output.stdout).unwrap(), output)
}

#[test]
fn candle_folders_that_cannot_be_used_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    assert_clear(&backtest(empty.path(), &[]), 2, &[path]);
    let nowhere = empty.path().join("nowhere");
    for nobody in [backtest(&nowhere, &[]), run_to_end(&["backtest", "--data", nowhere.to_str().unwrap()])] {
        // What was given on the command line is named as it was given.
        assert_clear(&nobody, 2, &["--data", nowhere.to_str().unwrap(), "candle files"]);
        assert!(!stderr(&nobody).contains("market.csv.dir"), "{}", stderr(&nobody));
    }
    fs::write(empty.path().join("notes.txt"), "hello").unwrap();
    assert_clear(&backtest(empty.path(), &[]), 2, &[path]);
    let file = empty.path().join("notes.txt");
    assert_clear(&backtest(&file, &[]), 2, &["notes.txt"]);

    let data = folder_with("XBTUSDT_1.csv", &candles());
    let missing = run_to_end(&["backtest", "--data", data.path().to_str().unwrap(), "--symbols", "BTC/USDT,XRP/USDT"]);
    assert_clear(&missing, 2, &["XRP/USDT", "XRPUSDT_1.csv"]);
    fs::write(data.path().join("XBTUSDT_1.csv"), "").unwrap();
    assert_clear(&backtest(data.path(), &[]), 2, &["XBTUSDT_1.csv"]);
    fs::write(data.path().join("XBTUSDT_1.csv"), "time,open,high\nnothing,here,at all\n").unwrap();
    assert_clear(&backtest(data.path(), &[]), 2, &["XBTUSDT_1.csv"]);
}

#[test]
fn windows_and_flags_that_make_no_sense_are_refused() {
    let data = folder_with("XBTUSDT_1.csv", &candles());
    assert_clear(&backtest(data.path(), &["--from", "2021-04-22", "--to", "2021-04-20"]), 2, &["--to"]);
    assert_clear(&backtest(data.path(), &["--from", "yesterday"]), 2, &["yesterday", "2021-04-21"]);
    assert_clear(&backtest(data.path(), &["--from", "2021-02-30"]), 2, &["2021-02-30"]);
    assert_clear(&backtest(data.path(), &["--from", "2030-01-01"]), 2, &["2030-01-01"]);
    assert_clear(&backtest(data.path(), &["--to", "1999-01-01"]), 2, &["--to"]);
    let symbols = run_to_end(&["backtest", "--data", data.path().to_str().unwrap(), "--symbols", "BITCOIN"]);
    assert_clear(&symbols, 2, &["BITCOIN"]);
    let file = data.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("report");
    assert_clear(&backtest(data.path(), &["--report", below.to_str().unwrap()]), 1, &["report"]);
}

#[test]
fn defective_rows_are_skipped_counted_and_shown_and_the_rest_is_used() {
    let mut rows = candles();
    let whole = report(folder_with("XBTUSDT_1.csv", &rows).path()).0;
    let duplicate = rows[500].clone();
    rows.insert(501, duplicate);
    rows.swap(700, 710);
    rows[900] = format!("{},-1,-1,-1,-1,1,1", FIRST + 900 * 60);
    rows[950] = format!("{},NaN,NaN,NaN,NaN,1,1", FIRST + 950 * 60);
    rows[960] = format!("{},inf,inf,1,1,1,1", FIRST + 960 * 60);
    rows[970] = "1618".to_owned();
    rows[980] = format!("{},5,4,6,5,1,1", FIRST + 980 * 60); // high below low
    let last = rows.len() - 1;
    rows[last].truncate(14);
    let data = folder_with("XBTUSDT_1.csv", &rows);
    let (report, output) = report(data.path());
    let text = stderr(&output);
    assert!(report["candles"].as_u64() < whole["candles"].as_u64());
    assert!(report["candles"].as_u64() > whole["candles"].as_u64().map(|all| all - 40));
    assert_eq!(report["invariant_violations"], Value::Array(Vec::new()));
    let shown = backtest(data.path(), &[]);
    assert_clear(&shown, 0, &["skipped", "XBTUSDT_1.csv"]);
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_damaged_gzip_is_named_and_no_half_result_is_printed() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all((candles().join("\n") + "\n").as_bytes()).unwrap();
    let good = encoder.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("XBTUSDT_1.csv.gz");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let cut = good[..good.len() / 2].to_vec();
    for (what, bytes) in [("flipped", flipped), ("cut", cut), ("no gzip", b"hello".to_vec()), ("empty", Vec::new())] {
        fs::write(&path, bytes).unwrap();
        let output = backtest(folder.path(), &[]);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{what}: {} {}", output.status, stderr(&output));
        assert!(stderr(&output).contains("XBTUSDT_1.csv.gz"), "{what}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked") && !stdout(&output).contains("sharpe"), "{what}");
    }
    fs::write(&path, good).unwrap();
    assert_clear(&backtest(folder.path(), &[]), 0, &[]);
}

#[test]
fn a176_every_mistake_of_a_configuration_in_one_report_with_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    let text = r#"
symbols = ["BTC/USDT", "BTC/USDT", "NOPE"]
[risk]
max_position_pct = 900
max_positon_pct = 10
[runtime]
speed = "fast"
[api]
bind = "0.0.0.0:8710"
[tasks.technical_analysis]
interval_seconds = 0
depends_on = [{ task = "trading_decision" }]
[tasks.trading_decision]
depends_on = [{ task = "technical_analysis" }]
"#;
    fs::write(&file, text).unwrap();
    let (config, store) = (file.to_str().unwrap(), folder.path().join("store"));
    for command in [&["config", "check"][..], &["run"], &["status"]] {
        let args = [&["--config", config, "--store", store.to_str().unwrap()], command].concat();
        let words = ["bad.toml", "NOPE", "max_position_pct", "max_positon_pct", "runtime.speed", "interval_seconds"];
        assert_clear(&run_to_end(&args), 2, &words);
    }
    assert!(!store.exists(), "a refused start leaves nothing behind");
    fs::write(&file, "[risk\nmax = ").unwrap();
    assert_clear(&run_to_end(&["--config", config, "config", "check"]), 2, &["bad.toml:1"]);
    fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    assert_clear(&run_to_end(&["--config", config, "config", "check"]), 2, &["bad.toml"]);
    let nowhere = folder.path().join("nowhere.toml");
    assert_clear(&run_to_end(&["--config", nowhere.to_str().unwrap(), "config", "check"]), 2, &["nowhere.toml"]);
    let environment =
        triplegain().env("TRIPLEGAIN__RISK__MAX_POSITION_PCT", "x").args(["config", "check"]).output().unwrap();
    assert_clear(&environment, 2, &["TRIPLEGAIN__RISK__MAX_POSITION_PCT"]);
    let cycle = r#"
[tasks.technical_analysis]
depends_on = [{ task = "trading_decision", required = true, require_new = false }]
"#;
    fs::write(&file, cycle).unwrap();
    assert_clear(&run_to_end(&["--config", config, "config", "check"]), 2, &["technical_analysis", "->"]);
}

/// Starts on `store` and expects it to end by itself.
fn refused_start(store: &Path) -> Output {
    let listen = format!("127.0.0.1:{}", free_port());
    run_to_end(&["--store", store.to_str().unwrap(), "--listen", &listen, "run", "--speed", "1"])
}

/// A store with a first life of commands in it, cleanly stopped.
fn used_store(folder: &Path) -> PathBuf {
    let store = folder.join("store");
    let program = Program::start(&store, &SLOW);
    for _ in 0..5 {
        program.done(&["pause"]);
        program.done(&["resume"]);
    }
    program.done(&["pause", "--reason", "kept"]);
    program.stop("TERM")
}

/// A store whose newest records are in no checkpoint yet.
fn killed_store(folder: &Path) -> PathBuf {
    let store = folder.join("store");
    let program = Program::start(&store, &SLOW);
    program.done(&["pause", "--reason", "flipped"]);
    program.done(&["resume"]);
    program.kill9();
    store
}

fn last_segment(store: &Path) -> PathBuf {
    let mut names: Vec<PathBuf> = fs::read_dir(store.join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|ext| ext == "jsonl"));
    names.sort();
    names.pop().unwrap()
}

#[test]
fn a_data_directory_that_cannot_be_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let named = format!("{} is not a directory; choose another place for the store with --store", file.display());
    assert_clear(&refused_start(&file), 2, &[&named]);
    // Not the path below it: what is in the way.
    assert_clear(&refused_start(&file.join("below").join("it")), 2, &[&named]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    // No start recovers anything here: only a person can help, and a service manager must not try again.
    let kernel = refused_start(Path::new("/proc/triplegain"));
    assert_clear(&kernel, 2, &["the store directory /proc/triplegain cannot be made", "--store", "data_dir"]);
}

#[test]
fn a_full_disk_without_a_store_is_no_failed_store() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let Some(mounted) = Mounted::tmpfs(&disk, "size=64k,nr_inodes=4") else {
        println!("skipped: no right to mount a small file system here");
        return;
    };
    let mut taken = 0;
    while fs::write(disk.join(format!("{taken}")), "").is_ok() {
        taken += 1;
    }
    assert_clear(&refused_start(&disk.join("store")), 2, &["cannot be made", "make room"]);
    // The directory is there, and nothing fits into it.
    fs::remove_file(disk.join("0")).unwrap();
    fs::create_dir(disk.join("store")).unwrap();
    assert_clear(&refused_start(&disk.join("store")), 2, &["no space left", "store"]);
    drop(mounted);
}

/// A small file system of its own, unmounted when dropped; nothing where the tests may not mount.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, options: &str) -> Option<Mounted> {
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        done.is_ok_and(|output| output.status.success()).then(|| Mounted(at.to_owned()))
    }

    fn remount(&self, options: &str) -> bool {
        let options = format!("remount,{options}");
        Command::new("mount").args(["-o", &options]).arg(&self.0).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a147_a_full_disk_ends_the_process_and_the_next_start_continues() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let Some(mounted) = Mounted::tmpfs(&disk, "size=4m") else {
        println!("skipped: no right to mount a small file system here");
        return;
    };
    let store = disk.join("store");
    let mut program = Program::start(&store, &SLOW);
    program.done(&["pause"]);
    let ballast = disk.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    while file.write_all(&[7; 1]).is_ok() {}
    let mut refused = program.cli(&["halt"]);
    for _ in 0..200 {
        if !refused.status.success() {
            break;
        }
        refused = program.cli(&["pause", "--reason", &"x".repeat(4_000)]);
    }
    assert!(!refused.status.success(), "a command that is not durable is not answered with success");
    let ended = program.wait();
    assert_eq!(ended.code(), Some(70), "{}", program.said());
    assert!(!program.said().contains("panicked"), "{}", program.said());
    let full = refused_start(&store);
    assert!(matches!(full.status.code(), Some(1 | 70)), "{} {}", full.status, stderr(&full));
    assert!(!stderr(&full).contains("panicked"), "{}", stderr(&full));
    drop(file);
    fs::remove_file(&ballast).unwrap();
    let program = Program::start(&store, &SLOW);
    assert!(["PAUSED", "HALTED"].contains(&program.status()["state"].as_str().unwrap()), "what was answered holds");
    program.stop("TERM");
    assert_sound(&store);
    drop(mounted);
}

#[test]
fn a_read_only_data_directory_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let Some(mounted) = Mounted::tmpfs(&disk, "size=32m") else {
        println!("skipped: no right to mount a small file system here");
        return;
    };
    let store = used_store(&disk);
    let before = lines(&store);
    assert!(mounted.remount("ro"));
    assert_clear(&refused_start(&store), 2, &["read-only"]);
    assert_clear(&refused_start(&disk.join("new")), 2, &["read-only"]);
    let verified = run_to_end(&["--store", store.to_str().unwrap(), "journal", "verify"]);
    assert!(verified.status.success(), "reading needs no right to write: {}", stderr(&verified));
    assert_eq!(lines(&store), before);
}

#[test]
fn a_store_of_a_newer_schema_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let store = used_store(folder.path());
    let path = store.join("identity.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut identity: Value = serde_json::from_str(&text).unwrap();
    identity["schema"] = Value::from(999);
    fs::write(&path, identity.to_string()).unwrap();
    let before = lines(&store);
    assert_clear(&refused_start(&store), 2, &["schema 999", "newer program"]);
    assert_eq!(lines(&store), before);
    fs::write(&path, text).unwrap();
    Program::start(&store, &SLOW).stop("TERM");
}

#[test]
fn a142_a_torn_tail_is_cut_and_the_program_continues() {
    let folder = tempfile::tempdir().unwrap();
    let store = used_store(folder.path());
    let segment = last_segment(&store);
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, [&whole[..], br#"{"v":1,"seq":999,"epo"#].concat()).unwrap();
    let program = Program::start(&store, &SLOW);
    let status = program.status();
    assert_eq!((&status["state"], status["recovered"]["torn_bytes"].as_u64()), (&Value::from("PAUSED"), Some(21)));
    program.stop("TERM");
    assert_sound(&store);
    let kept = fs::read_dir(store.join("journal")).unwrap().chain(fs::read_dir(&store).unwrap());
    assert!(kept.map(|e| e.unwrap()).any(|e| e.file_name().to_string_lossy().starts_with("torn-")), "the tail is kept");
}

#[test]
fn a142_a_flipped_byte_in_the_middle_starts_halted_and_names_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = killed_store(folder.path());
    let segment = last_segment(&store);
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(14).position(|part| part == b"\"reason\":\"flip").unwrap() + 11;
    bytes[at] ^= 0x01;
    fs::write(&segment, &bytes).unwrap();
    let verified = run_to_end(&["--store", store.to_str().unwrap(), "journal", "verify"]);
    assert_clear(&verified, 65, &["line"]);
    let program = Program::start(&store, &["--speed", "3600"]);
    let status = program.status();
    assert_eq!(status["state"], "HALTED");
    let reason = status["halt_reason"].as_str().unwrap();
    assert!(reason.contains("damaged") && reason.contains("line"), "{reason}");
    assert!(program.said().contains("damaged"), "{}", program.said());
    let refused = program.cli(&["resume"]);
    assert_clear(&refused, 1, &[]);
    program.kill9();
    assert_eq!(fs::read(&segment).unwrap(), bytes, "nothing is repaired and nothing is written");
}

#[test]
fn a141_a_damaged_or_deleted_embedded_store_is_rebuilt_from_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let store = used_store(folder.path());
    let state = store.join("state");
    let damages: [(&str, &dyn Fn()); 3] = [
        ("deleted", &|| fs::remove_dir_all(&state).unwrap()),
        ("truncated", &|| fs::write(state.join("db"), b"short").unwrap()),
        ("a file", &|| {
            fs::remove_dir_all(&state).unwrap();
            fs::write(&state, "hello").unwrap();
        }),
    ];
    for (what, damage) in damages {
        damage();
        let program = Program::start(&store, &SLOW);
        let status = program.status();
        assert_eq!(status["state"], "PAUSED", "{what}");
        assert_eq!(status["recovered"]["rebuilt"], true, "{what}");
        assert_eq!(status["account"]["balances"]["USDT"]["free"], "10000", "{what}");
        assert!(!program.said().contains("panicked at"), "{what}: {}", program.said());
        program.stop("TERM");
        assert_sound(&store);
    }
}

#[test]
fn a175_a_world_readable_token_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = used_store(folder.path());
    let token = store.join("token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let before = lines(&store);
    assert_clear(&refused_start(&store), 2, &["0644", "chmod 600"]);
    assert_eq!(lines(&store), before, "a refused start leaves no boot in the journal");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&token, "hello").unwrap();
    assert_clear(&refused_start(&store), 2, &["holds no token", "remove it"]);
    fs::remove_file(&token).unwrap();
    Program::start(&store, &SLOW).stop("TERM");
}
