//! The tests of the project as processes: which there are, which mutants each meets, and what one says with a mutant on.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One test.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Test {
    /// The binary it is in.
    pub binary: PathBuf,
    /// `lib` or the name of the file below `tests/`.
    pub target: String,
    pub name: String,
    /// Its own time, milliseconds.
    pub ms: u64,
    /// The mutants it meets.
    pub meets: BTreeSet<usize>,
}

/// How a run of tests ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Passed,
    Failed,
    TimedOut,
}

/// The test binaries a build reports.
pub fn binaries(messages: &[Value]) -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = messages
        .iter()
        .filter(|message| message["reason"] == "compiler-artifact" && message["profile"]["test"] == true)
        .filter_map(|message| {
            let kind = message["target"]["kind"][0].as_str()?;
            let name = message["target"]["name"].as_str()?;
            let target = if kind == "lib" { "lib".to_owned() } else { name.to_owned() };
            (kind == "lib" || kind == "test").then_some((target, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect();
    found.sort();
    found
}

/// The names of the tests in a binary.
pub fn names(binary: &Path, tree: &Path) -> Result<Vec<String>> {
    let output = Command::new(binary).args(["--list", "--format", "terse"]).current_dir(tree).stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs tests of one binary in one process, on one thread, with a mutant on.
pub fn run(binary: &Path, names: &[&str], tree: &Path, mutant: &str, trace: Option<&Path>, scratch: &Path, most: Duration) -> Result<Ended> {
    fs::create_dir_all(scratch)?;
    let mut command = Command::new("sh");
    // What runs away is ended by its memory or its time.
    command.args(["-c", "ulimit -v 8000000; exec \"$0\" \"$@\""]).arg(binary);
    command.arg("--exact").args(names).arg("--test-threads=1");
    command.current_dir(tree).env("MUTANT", mutant).env("TMPDIR", scratch).env("RUST_BACKTRACE", "0");
    command.env("CARGO_MANIFEST_DIR", tree).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(trace) = trace {
        command.env("MUTANT_TRACE", trace);
    }
    command.process_group(0);
    let mut child = command.spawn().with_context(|| format!("{}", binary.display()))?;
    let began = Instant::now();
    let mut pause = Duration::from_millis(1);
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break if status.success() { Ended::Passed } else { Ended::Failed };
        }
        if began.elapsed() > most {
            break Ended::TimedOut;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    // Also what the test started and left behind.
    let _ = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).stderr(Stdio::null()).status();
    let _ = child.wait();
    if ended != Ended::Passed {
        let _ = fs::remove_dir_all(scratch);
    }
    Ok(ended)
}
