//! `torture`: what a store must withstand, tried on stores of its own. It never touches the configured store.

pub mod corrupt;

use anyhow::Result;

use crate::runtime::failure::Exit;

/// Subcommands of `torture`.
#[derive(clap::Subcommand, Debug, Clone)]
pub enum TortureCommand {
    /// Damage copies of a store in one way each and open them: every damage is found and nothing is lost silently
    Corrupt(corrupt::CorruptArgs),
}

/// Runs a subcommand.
///
/// # Errors
/// No place to work in, or a store that cannot be built.
pub fn torture(command: &TortureCommand) -> Result<Exit> {
    match command {
        TortureCommand::Corrupt(args) => corrupt::corrupt(args),
    }
}
