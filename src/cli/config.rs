//! `config check | show | schema | explain KEY | docs`: each returns the text to print and the exit code.
//! Nothing here opens the store.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    agents::worst_case,
    runtime::{failure::Exit, terminal},
    settings::{
        Loaded, Sources, docs, load,
        tree::{Node, Origin, Raw, dotted},
    },
};

/// Text for the terminal and the exit code of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Ends with a line break.
    pub text: String,
    /// 0 done, 2 wrong usage or configuration.
    pub code: u8,
}

impl Answer {
    fn done(text: impl Into<String>) -> Answer {
        Answer { text: ended(text.into()), code: 0 }
    }

    fn refused(text: impl Into<String>) -> Answer {
        Answer { text: ended(text.into()), code: 2 }
    }
}

fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// What is worth knowing about valid settings: the warnings of their rules, and limits no call of a model could keep.
pub fn warnings(loaded: &Loaded) -> Vec<String> {
    let mut warnings = loaded.warnings.clone();
    warnings.extend(worst_case::warnings(&loaded.settings));
    warnings
}

/// `config check`: OK with warnings, or every problem.
pub fn check(sources: &Sources) -> Answer {
    match load(sources) {
        Ok(loaded) => {
            let mut text = format!("OK, config epoch {}\n", loaded.hash);
            for warning in warnings(&loaded) {
                text.push_str(&format!("warning: {warning}\n"));
            }
            Answer::done(text)
        }
        Err(problems) => Answer::refused(problems.to_string()),
    }
}

/// `config show`: the effective values with their sources, as TOML that can be read back, or as JSON.
pub fn show(sources: &Sources, as_json: bool) -> Answer {
    match load(sources) {
        Err(problems) => Answer::refused(problems.to_string()),
        Ok(loaded) if as_json => {
            let origins: Map<String, Value> =
                loaded.origins.iter().map(|(key, origin)| (key.clone(), json!(origin))).collect();
            let shown = json!({
                "hash": loaded.hash,
                "warnings": warnings(&loaded),
                "settings": loaded.tree.to_json(),
                "origins": origins,
            });
            Answer::done(format!("{shown:#}"))
        }
        Ok(loaded) => Answer::done(as_toml(&loaded)),
    }
}

/// One line per value below the header of its section; the source stands behind it as a comment.
fn as_toml(loaded: &Loaded) -> String {
    let mut sections: BTreeMap<String, Vec<(String, String, String)>> = BTreeMap::new();
    for (path, node) in loaded.tree.leaves() {
        let (section, rest) = match path.as_slice() {
            [first, rest @ ..] if !rest.is_empty() => (first.clone(), rest),
            whole => (String::new(), whole),
        };
        let line = (dotted(rest), node.to_string(), source(node));
        sections.entry(section).or_default().push(line);
    }
    let mut text = format!("# effective configuration, config epoch {}\n", loaded.hash);
    for (section, lines) in sections {
        if !section.is_empty() {
            text.push_str(&format!("\n[{section}]\n"));
        }
        for (key, value, source) in lines {
            text.push_str(&format!("{key} = {value}  # {source}\n"));
        }
    }
    text
}

/// Where a value came from; a list tells it when computed values were put in.
fn source(node: &Node) -> String {
    let has_computed = |node: &Node| match &node.raw {
        Raw::Table(names) => names.values().any(|node| node.origin == Origin::Computed),
        _ => false,
    };
    match &node.raw {
        Raw::List(elements) if elements.iter().any(has_computed) => format!("{}, ages computed", node.origin),
        _ => node.origin.to_string(),
    }
}

/// `config schema`: the JSON schema of a configuration file.
pub fn schema() -> Answer {
    Answer::done(format!("{:#}", docs::schema()))
}

/// `config explain KEY`: a key or all keys of a section.
pub fn explain(key: &str) -> Answer {
    match docs::explain(key) {
        Ok(text) => Answer::done(text),
        Err(message) => Answer::refused(message),
    }
}

/// `config docs`: the text of docs/configuration.md.
pub fn docs() -> Answer {
    Answer::done(docs::render_docs())
}

/// Subcommands of `config`.
#[derive(clap::Subcommand, Debug, Clone)]
pub enum ConfigCommand {
    /// Validate: every problem at once
    Check,
    /// The effective values with their sources
    Show,
    /// JSON schema of all keys
    Schema,
    /// One key, or all keys of a section
    Explain {
        /// Dotted, for example risk.max_position_pct
        key: String,
    },
    /// The text of docs/configuration.md
    Docs,
}

/// Runs a subcommand.
///
/// # Errors
/// Never; problems are part of the answer.
pub fn config(sources: &Sources, command: &ConfigCommand, json: bool) -> anyhow::Result<Exit> {
    let answer = match command {
        ConfigCommand::Check => check(sources),
        ConfigCommand::Show => show(sources, json),
        ConfigCommand::Schema => schema(),
        ConfigCommand::Explain { key } => explain(key),
        ConfigCommand::Docs => docs(),
    };
    if answer.code == 0 {
        terminal::out(format_args!("{}", answer.text));
    } else {
        terminal::aside(format_args!("{}", answer.text));
    }
    Ok(Exit::from_code(answer.code))
}
