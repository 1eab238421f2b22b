//! Which symbols a backtest trades, and which configured ones it leaves out because the folder has no file for them.

use std::path::Path;

use anyhow::Result;

use super::{
    super::{Global, load},
    BacktestArgs,
};
use crate::{
    market::{
        FeedError,
        feed::csv::{CsvFeed, CsvWindow},
    },
    model::Symbol,
    runtime::failure::{Exit, Failure},
};

/// What a backtest trades.
pub struct Chosen {
    /// Traded.
    pub symbols: Vec<Symbol>,
    /// Configured, without a file in the folder.
    pub left_out: Vec<Symbol>,
}

/// The symbols asked for, or every configured one that has a file in the folder.
///
/// # Errors
/// No symbol has a file, or one has a file that cannot be used: fewer symbols than the folder holds are another backtest.
pub fn choose(global: &Global, args: &BacktestArgs) -> Result<Chosen> {
    if !args.symbols.is_empty() {
        return Ok(Chosen { symbols: args.symbols.clone(), left_out: Vec::new() });
    }
    let mut chosen = Chosen { symbols: Vec::new(), left_out: Vec::new() };
    let mut first_error = None;
    for symbol in load(global, &[])?.settings.symbols {
        let window = CsvWindow { from: args.from, to: args.to, warm_up_ms: 0 };
        match CsvFeed::open(&args.data, &[symbol], window) {
            Ok(_) => chosen.symbols.push(symbol),
            Err(error @ FeedError::MissingSymbol { .. }) => {
                chosen.left_out.push(symbol);
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(unusable(&error).into()),
        }
    }
    match first_error {
        Some(error) if chosen.symbols.is_empty() => Err(unusable(&error).into()),
        _ => Ok(chosen),
    }
}

/// The symbols left out, in words; nothing when none was.
pub fn left_out_words(left_out: &[Symbol], data: &Path) -> Option<String> {
    let list = left_out.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    (!left_out.is_empty()).then(|| format!("left out, {} holds no file for them: {list}", data.display()))
}

/// What is wrong with the candle files, for somebody who named them with `--data`.
pub fn unusable(error: &FeedError) -> Failure {
    let text = match error {
        FeedError::Folder { dir, source } => {
            format!("--data {} cannot be read: {source}; give the folder that holds the candle files", dir.display())
        }
        error => error.to_string(),
    };
    Failure::new(Exit::Usage, text)
}
