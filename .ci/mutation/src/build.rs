//! Writes the switched sources into a copy of the project and builds it, leaving out what does not build.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    mutants::{Mutants, Out},
    switch,
};

/// The module that the switched sources ask. `MUTANT` is the number that is on; `trace` writes those that are asked for.
const MODULE: &str = r#"
#[allow(missing_docs, clippy::all)]
pub mod mutant {
    use std::{io::Write, sync::{OnceLock, atomic::{AtomicBool, Ordering}}};
    static ACTIVE: OnceLock<u32> = OnceLock::new();
    static SEEN: [AtomicBool; 16384] = [const { AtomicBool::new(false) }; 16384];
    fn active() -> u32 {
        *ACTIVE.get_or_init(|| match std::env::var("MUTANT") {
            Ok(text) if text == "trace" => u32::MAX,
            Ok(text) => text.parse().unwrap_or(0),
            Err(_) => 0,
        })
    }
    #[inline]
    pub fn on(id: u32) -> bool {
        let active = active();
        if active == u32::MAX { seen(id); }
        active == id
    }
    #[cold]
    fn seen(id: u32) {
        if !SEEN[id as usize].swap(true, Ordering::Relaxed) {
            let Ok(path) = std::env::var("MUTANT_TRACE") else { return };
            if let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path) {
                let _ = file.write_all(format!("{id}\n").as_bytes());
            }
        }
    }
}
"#;

const CONST_CALL: &str = "E0015";

/// Writes all switched files below `tree`, from the sources below `source`.
fn write(source: &Path, tree: &Path, mutants: &mut Mutants, keep_const: &BTreeSet<String>) -> Result<()> {
    let files: Vec<(String, Vec<usize>)> =
        mutants.by_file().into_iter().map(|(file, ids)| (file.to_owned(), ids)).collect();
    for (file, ids) in files {
        let text = fs::read_to_string(source.join(&file)).with_context(|| file.clone())?;
        let switched = switch::switch(&file, &text, &ids, mutants, keep_const)?;
        switched.apart.iter().for_each(|id| mutants.leave_out(*id, Out::Apart));
        switched.unviable.iter().for_each(|id| mutants.leave_out(*id, Out::Unviable));
        replace(&tree.join(&file), &switched.text)?;
    }
    let library = fs::read_to_string(source.join("src/lib.rs"))?;
    replace(&tree.join("src/lib.rs"), &(library + MODULE))
}

/// Writes what is not there already, so that nothing is built twice.
fn replace(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

/// The name of the function that a constant wanted to call: of `cannot call non-const function `a::b` in constants`.
fn wanted_const(message: &str) -> Option<String> {
    let path = message.split('`').nth(1)?;
    let name = path.split("::").last()?;
    Some(name.split('<').next().unwrap_or(name).to_owned())
}

/// Builds `tree` with `arguments` of cargo until nothing is left out any more; the messages of the last build.
pub fn build(source: &Path, tree: &Path, mutants: &mut Mutants, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut keep_const = BTreeSet::new();
    for round in 1..60 {
        write(source, tree, mutants, &keep_const)?;
        let output = Command::new("cargo")
            .args(arguments)
            .args(["--message-format", "json"])
            .current_dir(tree)
            .stderr(Stdio::piped())
            .output()?;
        let messages: Vec<Value> =
            String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if output.status.success() {
            return Ok(messages);
        }
        let (mut left_out, mut other) = (0, Vec::new());
        for message in messages.iter().filter(|message| message["message"]["level"] == "error") {
            let message = &message["message"];
            let text = message["message"].as_str().unwrap_or_default();
            if message["code"]["code"] == CONST_CALL && wanted_const(text).is_some_and(|name| keep_const.insert(name)) {
                left_out += 1;
                continue;
            }
            let mut blamed = false;
            for span in message["spans"].as_array().into_iter().flatten().filter(|span| span["is_primary"] == true) {
                let file = span["file_name"].as_str().unwrap_or_default();
                let Ok(written) = fs::read_to_string(tree.join(file)) else { continue };
                let offset = span["byte_start"].as_u64().unwrap_or(0) as usize;
                let Some((ids, why)) = switch::blame(&written, offset) else { continue };
                blamed = true;
                for id in ids {
                    left_out += usize::from(mutants.get(id).is_some_and(|mutant| mutant.out.is_none()));
                    mutants.leave_out(id, why);
                }
            }
            if !blamed {
                other.push(message["rendered"].as_str().unwrap_or(text).to_owned());
            }
        }
        eprintln!("build {round}: {left_out} left out, {} other errors", other.len());
        if left_out == 0 {
            bail!(
                "the switched sources do not build:\n{}\n{}",
                other.join("\n"),
                String::from_utf8_lossy(&output.stderr).lines().rev().take(5).collect::<Vec<_>>().join("\n")
            );
        }
    }
    bail!("the switched sources still do not build after 60 rounds")
}
