//! The mutants as cargo-mutants lists them, and what is known of each.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Line and column, both from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize, Serialize)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Span {
    pub start: Place,
    pub end: Place,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Function {
    pub function_name: String,
    pub return_type: String,
}

/// One change of the sources.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Mutant {
    pub name: String,
    pub file: String,
    pub function: Option<Function>,
    pub span: Span,
    pub replacement: String,
    pub genre: String,
    /// What keeps it out of the switched build.
    #[serde(default)]
    pub out: Option<Out>,
}

/// Why a mutant is not in the switched build.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, Serialize)]
pub enum Out {
    /// It does not build: no mutant.
    Unviable,
    /// It cannot be switched at run time (constants, opaque return types): to be judged by a build of its own.
    Apart,
}

/// All mutants; the number of one is its place in the list, counted from 1.
#[derive(Default, Deserialize, Serialize)]
pub struct Mutants(pub Vec<Mutant>);

impl Mutants {
    /// Reads what `cargo mutants --list --json` printed, or what [`Mutants::write`] wrote.
    pub fn read(file: &Path) -> Result<Mutants> {
        let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}", file.display()))
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        fs::write(file, serde_json::to_string_pretty(self)?).with_context(|| format!("{}", file.display()))
    }

    pub fn get(&self, id: usize) -> Option<&Mutant> {
        id.checked_sub(1).and_then(|index| self.0.get(index))
    }

    pub fn leave_out(&mut self, id: usize, why: Out) {
        if let Some(mutant) = id.checked_sub(1).and_then(|index| self.0.get_mut(index)) {
            mutant.out = mutant.out.or(Some(why));
        }
    }

    /// Numbers of those that are switched, by file.
    pub fn by_file(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut files: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, mutant) in self.0.iter().enumerate() {
            files.entry(&mutant.file).or_default();
            if mutant.out.is_none() {
                files.entry(&mutant.file).or_default().push(index + 1);
            }
        }
        files
    }
}
