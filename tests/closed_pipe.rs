//! A reader that has gone (`triplegain journal tail | head`) ends no command with a panic and changes no exit code; a disk
//! that is full behind a redirect does.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "process_support/mod.rs"]
mod process_support;

use std::{
    fmt::Write as _,
    fs::{self, File},
    io,
    path::Path,
    process::{Command, Output, Stdio},
};

use process_support::{Program, stderr, triplegain};

/// A pipe nobody reads any more.
fn closed() -> io::PipeWriter {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer
}

/// The same command with a reader, without one, and without one on both outputs.
fn assert_quiet(name: &str, make: &dyn Fn() -> Command) {
    let read: Output = make().output().unwrap();
    assert!(!read.stdout.is_empty(), "{name} says nothing: {}", stderr(&read));
    let gone = make().stdout(closed()).stderr(Stdio::piped()).output().unwrap();
    assert!(!stderr(&gone).contains("panicked"), "{name}: {}", stderr(&gone));
    assert_eq!(gone.status, read.status, "{name}: {}", stderr(&gone));
    let both = make().stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(both, read.status, "{name}, nobody reads standard error either");
}

/// A subcommand that talks to a running program, or reads its store.
fn client(program: &Program, row: &[&str]) -> Command {
    let mut command = triplegain();
    command.arg("--store").arg(&program.store).args(["--listen", &format!("127.0.0.1:{}", program.port)]).args(row);
    command
}

fn candles(folder: &Path) {
    let rows = (0..12 * 24).fold(String::new(), |mut rows, i| {
        writeln!(rows, "{},100,101,99,100,3.5,10", 1_704_067_200 + i * 300).unwrap();
        rows
    });
    fs::write(folder.join("XBTUSDT_5.csv"), rows).unwrap();
}

#[test]
fn a_reader_that_has_gone_ends_no_command_with_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    candles(folder.path());
    let data = folder.path().display().to_string();
    let backtest = ["backtest", "--symbols", "BTC/USDT", "--data", &data];
    let import = format!("{data}/XBTUSDT_5.csv");
    let rows: [&[&str]; 9] = [
        &["--help"],
        &["config", "show"],
        &["config", "schema"],
        &["config", "docs"],
        &["config", "explain", "cassette.mode"],
        &["config", "check"],
        &backtest,
        &["--json", "--store", &data, "import", "kraken-csv", &import],
        &["simulate", "--seed", "1", "--days", "0.02", "--faults", "none"],
    ];
    for row in rows {
        let make = || {
            let mut command = triplegain();
            command.env("TRIPLEGAIN__MARKET__KRAKEN__CANDLE_MINUTES", "5").args(row);
            command
        };
        assert_quiet(&row.join(" "), &make);
    }
}

#[test]
fn a_reader_of_a_journal_or_a_status_may_go_and_so_may_the_reader_of_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(&folder.path().join("store"), &[]);
    let rows: [&[&str]; 6] = [
        &["status"],
        &["--json", "status"],
        &["journal", "tail"],
        &["journal", "export"],
        &["journal", "export", "--format", "csv"],
        &["journal", "verify"],
    ];
    for row in rows {
        assert_quiet(&row.join(" "), &|| client(&program, row));
    }
    let refused = client(&program, &["reset", "no-such-halt"]).stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(refused.code(), Some(1));
}

#[test]
fn what_a_full_disk_swallowed_is_no_success() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = triplegain().args(["config", "docs"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("standard output cannot be written: "), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}
