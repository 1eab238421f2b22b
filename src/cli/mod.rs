//! The command line: one file per family of subcommands.

pub mod backtest;
pub mod client;
pub mod config;
pub mod doctor;
mod feeds;
pub mod import;
pub mod journal;
pub mod live_feed;
pub mod logging;
mod models;
mod new_store_only;
mod restored;
pub mod run;
pub mod simulate;
pub mod system;
pub mod torture;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::{
    model::{Command, CommandAnswer, ManualOutcome, Ts},
    runtime::{
        failure::{Exit, Failure},
        terminal::{self, note, tell},
    },
    settings::{Loaded, Sources},
};

/// Model-assisted agents that watch crypto markets, argue, and trade on paper. Without a command it runs.
#[derive(Parser, Debug)]
#[command(name = "triplegain", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    /// Program clock against real time, as in `run --speed N`
    #[arg(long, value_name = "N")]
    speed: Option<u32>,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

/// Flags every command takes.
#[derive(Args, Debug, Clone)]
pub struct Global {
    /// Settings file (TOML); without it the embedded defaults hold
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Store directory [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Address of the HTTP surface [default: 127.0.0.1:8710]
    #[arg(long, global = true, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Print facts as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand, Debug)]
enum Subcommands {
    /// The long-running process (the default): recover, ingest, schedule, decide, trade on paper
    Run {
        /// Program clock against real time; a live source requires 1 [default: 60 with the simulated market]
        #[arg(long, value_name = "N")]
        speed: Option<u32>,
    },
    /// The same actors over historic candles in virtual time
    Backtest(backtest::BacktestArgs),
    /// The whole program in virtual time with crashes and faults of every kind, checked after every event
    Simulate(simulate::SimulateArgs),
    /// State, schedule, account, positions, orders of the running process
    Status,
    /// No new entries until `resume`; exits and supervision go on
    Pause {
        /// Why, for the journal
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take operator, breaker and boot pauses back
    Resume,
    /// Stop trading until `reset`; cancels resting entries, supervision of positions goes on
    Halt {
        /// Why, for the journal
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// HALTED to PAUSED; name the halt id that `status` shows
    Reset {
        /// As shown by `status`
        halt_id: String,
    },
    /// Run one task for one symbol now, through normal admission
    RunTask {
        /// For example technical_analysis
        task: String,
        /// For example BTC/USDT
        symbol: String,
    },
    /// Close every position at the market
    CloseAll {
        /// Why, for the journal
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Switch a task on
    Enable {
        /// Task name
        task: String,
    },
    /// Switch a task off
    Disable {
        /// Task name
        task: String,
    },
    /// Cancel planned legs
    CancelScheduled {
        /// Plan id or leg key
        id: String,
    },
    /// End the quarantine of a task's symbol
    Release {
        /// For example technical_analysis
        task: String,
        /// For example BTC/USDT
        symbol: String,
    },
    /// Trust the clock as it is: ends the pause reason `clock`
    ClockAck,
    /// Let a late plan go on from now
    RunScheduled {
        /// Plan id or leg key
        id: String,
    },
    /// Say what became of an order that is left to the operator (MANUAL); look at the venue first
    ResolveManual {
        /// Trade key as `status` shows it, or its beginning
        trade: String,
        /// What you found out
        #[arg(long = "as", value_enum)]
        outcome: Outcome,
        /// With `filled`: base units executed beyond the fills that are booked
        #[arg(long)]
        quantity: Option<rust_decimal::Decimal>,
        /// With `filled`: quote units per base unit
        #[arg(long)]
        price: Option<rust_decimal::Decimal>,
        /// With `filled`: quote units
        #[arg(long)]
        fee: Option<rust_decimal::Decimal>,
        /// Where you know it from; kept with the trade
        #[arg(long)]
        evidence: String,
    },
    /// Accept a copied, moved or restored store as the original; only where HALTED says store_moved, and only after the
    /// original is stopped for good
    AdoptStore {
        /// Identity of the store, as the halt names it
        id: String,
    },
    /// Read-only work on the journal, also while the process is down
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Check, show and explain settings
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Historic candles for the live feed
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Check settings, store, journal, feed and clock; says what to do, changes nothing
    Doctor,
    /// Prove on this machine that a killed program loses nothing
    #[command(subcommand)]
    Torture(torture::TortureCommand),
}

/// What an operator found out about an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Outcome {
    /// So much was executed
    Filled,
    /// Nothing more was executed
    Expired,
}

/// Parses the command line, does what it says, and turns an error into one message and an exit code.
pub fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    if let Err(wrong) = crate::runtime::failpoint::setup() {
        note!("error: {wrong}");
        return Exit::Usage.into();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let help = !error.use_stderr();
            // A closed pipe behind --help is nobody's problem.
            drop(error.print());
            return if help { Exit::Done.into() } else { Exit::Usage.into() };
        }
    };
    let exit = dispatch(cli).unwrap_or_else(|error| {
        note!("error: {error:#}");
        error.downcast_ref::<Failure>().map_or(Exit::Failed, |failure| failure.exit)
    });
    match terminal::finish() {
        Err(why) if exit == Exit::Done => {
            note!("error: {why}");
            Exit::Failed.into()
        }
        _ => exit.into(),
    }
}

fn dispatch(cli: Cli) -> Result<Exit> {
    let Cli { global, speed: default_speed, command } = cli;
    match command.unwrap_or(Subcommands::Run { speed: None }) {
        Subcommands::Run { speed } => run::run(&global, speed.or(default_speed)),
        Subcommands::Simulate(args) => simulate::run(&global, &args),
        Subcommands::Backtest(args) => backtest::backtest(&global, &args),
        Subcommands::Status => status(&global),
        Subcommands::Pause { reason } => command_to_peer(&global, &Command::Pause { reason }),
        Subcommands::Resume => command_to_peer(&global, &Command::Resume {}),
        Subcommands::Halt { reason } => command_to_peer(&global, &Command::Halt { reason }),
        Subcommands::Reset { halt_id } => command_to_peer(&global, &Command::Reset { halt_id }),
        Subcommands::RunTask { task, symbol } => command_to_peer(&global, &Command::RunTask { task, symbol }),
        Subcommands::CloseAll { reason } => command_to_peer(&global, &Command::CloseAll { reason }),
        Subcommands::Enable { task } => command_to_peer(&global, &Command::EnableTask { task }),
        Subcommands::Disable { task } => command_to_peer(&global, &Command::DisableTask { task }),
        Subcommands::CancelScheduled { id } => command_to_peer(&global, &Command::CancelScheduled { id }),
        Subcommands::RunScheduled { id } => command_to_peer(&global, &Command::RunScheduled { id }),
        Subcommands::ResolveManual { trade, outcome, quantity, price, fee, evidence } => {
            let outcome = match outcome {
                Outcome::Filled => ManualOutcome::Filled,
                Outcome::Expired => ManualOutcome::Expired,
            };
            command_to_peer(&global, &Command::ResolveManual { trade, outcome, quantity, price, fee, evidence })
        }
        Subcommands::AdoptStore { id } => command_to_peer(&global, &Command::AdoptStore { store: id }),
        Subcommands::Release { task, symbol } => command_to_peer(&global, &Command::Release { task, symbol }),
        Subcommands::ClockAck => command_to_peer(&global, &Command::ClockAck {}),
        Subcommands::Journal(command) => journal::journal(&load(&global, &[])?.settings, &command, global.json),
        Subcommands::Import(command) => import::import(&global, &command),
        Subcommands::Doctor => doctor::doctor(&global),
        Subcommands::Torture(command) => torture::torture(&global, &command),
        Subcommands::Config(command) => config::config(&sources(&global, &[]), &command, global.json),
    }
}

/// Where settings come from, with the flags on top.
pub fn sources(global: &Global, more: &[(&str, String)]) -> Sources {
    let mut overrides: Vec<(String, String)> = Vec::new();
    if let Some(dir) = &global.store {
        overrides.push(("data_dir".to_owned(), dir.display().to_string()));
    }
    if let Some(address) = &global.listen {
        overrides.push(("api.bind".to_owned(), address.clone()));
    }
    overrides.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Sources { file: global.config.clone(), env: std::env::vars().collect(), overrides }
}

/// Loads the settings.
///
/// # Errors
/// All problems in one report, as wrong usage (exit 2).
pub fn load(global: &Global, more: &[(&str, String)]) -> Result<Loaded> {
    crate::settings::load(&sources(global, more))
        .map_err(|problems| Failure::new(Exit::Usage, problems.to_string()).into())
}

fn peer(global: &Global) -> Result<client::Peer> {
    let settings = load(global, &[])?.settings;
    client::Peer::new(&settings.api.bind, &run::token_file(&settings))
}

fn status(global: &Global) -> Result<Exit> {
    let status = peer(global)?.status()?;
    if global.json {
        tell!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        terminal::out(format_args!("{}", client::render(&status)));
    }
    Ok(Exit::Done)
}

fn command_to_peer(global: &Global, command: &Command) -> Result<Exit> {
    let answer = peer(global)?.command(command)?;
    if global.json {
        tell!("{}", serde_json::to_string_pretty(&answer)?);
    }
    match answer {
        CommandAnswer::Ok { result } => {
            if !global.json {
                tell!("{}: done", command.name());
                for (name, value) in result.as_object().into_iter().flatten() {
                    // What names several things gives each a line.
                    match value.as_object() {
                        Some(things) => {
                            tell!("  {name}:");
                            things.iter().for_each(|(thing, words)| tell!("    {thing}: {}", in_words(words)));
                        }
                        None => tell!("  {name}: {}", in_words(value)),
                    }
                }
            }
            Ok(Exit::Done)
        }
        CommandAnswer::Refused { code, reason } => {
            if !global.json {
                note!("{}: refused ({code}): {reason}", command.name());
            }
            Ok(Exit::Failed)
        }
    }
}

/// Text as it is, everything else as JSON.
fn in_words(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An instant on the command line.
fn parse_instant(text: &str) -> Result<Ts, String> {
    Ts::parse(text).ok_or_else(|| format!("`{text}` is no date; write 2021-04-21 or 2021-04-21T08:00:00Z"))
}

#[cfg(test)]
mod restart_tests;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    fn document(path: &str) -> String {
        std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    /// `pause`, `journal verify`: everything that does something.
    fn leaves(command: &clap::Command, before: &str, found: &mut BTreeSet<String>) {
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let name = format!("{before}{}", inner.get_name());
            if inner.has_subcommands() {
                leaves(inner, &format!("{name} "), found);
            } else {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_command_has_its_row_in_the_operations_document_and_every_row_its_command() {
        let mut known = BTreeSet::new();
        leaves(&Cli::command(), "", &mut known);
        let text = document("docs/operations.md");
        let table = text.split("\n## ").find(|section| section.starts_with("Commands\n")).unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        // Arguments are capitals.
        let name =
            |row: &str| row.split(' ').take_while(|word| *word != word.to_uppercase()).collect::<Vec<_>>().join(" ");
        let told: BTreeSet<String> = rows.map(|(row, _)| name(row)).collect();
        assert_eq!(told, known);
    }

    #[test]
    fn every_command_line_of_the_readme_is_understood() {
        let (mut fenced, mut seen) = (false, 0);
        for line in document("README.md").lines() {
            fenced ^= line.starts_with("```");
            let line = line.strip_prefix("$ ").unwrap_or(line);
            if !fenced || !line.starts_with("triplegain ") {
                continue;
            }
            seen += 1;
            // Quotes only ever hold one word with spaces.
            let words = line.split('"').enumerate().flat_map(|(place, part)| match place % 2 {
                0 => part.split_whitespace().collect::<Vec<_>>(),
                _ => vec![part],
            });
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("README.md: `{line}`: {error}");
            }
        }
        assert!(seen > 5, "{seen} command lines");
    }
}
