//! The command line: one file per family of subcommands.

pub mod config;
pub mod journal;
