//! Where prices come from: one trait, every item stamped with the instant it may be known.

pub mod candle_store;
pub mod csv;
mod csv_reader;
pub mod hours;
pub mod kraken;
pub mod live;
pub mod simulated;
mod simulated_chain;

use std::path::PathBuf;

use crate::model::{Book, Candle, Symbol, Timeframe, Ts};

/// What a feed delivers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum FeedKind {
    /// A closed candle of the feed's base frame.
    Candle(Candle),
    /// A closed candle of a longer frame, from history that reaches further back than the base candles.
    Longer(Timeframe, Candle),
    /// A price between candles.
    Price(f64),
    /// The middle of a proven book, where it is fresher than any trade.
    Mid(f64),
    /// Depth and spread.
    Book(Book),
    /// The book of the symbol is not known any more.
    NoBook,
    /// Every base candle that ended by this instant was delivered: one that is not there never was. From a live venue,
    /// for minutes nobody traded in.
    Settled(Ts),
}

/// One delivery.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FeedItem {
    /// Which symbol.
    pub symbol: Symbol,
    /// The instant it may be known: a candle's close, a price's own instant.
    pub available_at: Ts,
    /// What is known.
    pub kind: FeedKind,
}

/// A source of market data. Items come in non-decreasing `available_at`, ties in the order the symbols were given.
pub trait Feed {
    /// Frame of the candles it delivers.
    fn base(&self) -> Timeframe;

    /// `csv` or `simulated`; part of every price id.
    fn name(&self) -> &'static str;

    /// Hands everything from the start of the feed's history up to and including `until` to `sink`; [`Feed::next`] goes on
    /// after it. Call it once, before `next`; a later call has only what is left before `until`.
    ///
    /// # Errors
    /// [`FeedError`] when the source breaks.
    fn history(&mut self, until: Ts, sink: &mut dyn FnMut(FeedItem)) -> Result<(), FeedError>;

    /// The next item; nothing when the feed has ended.
    fn next(&mut self) -> Option<Result<FeedItem, FeedError>>;

    /// When the next item will be available, without taking it.
    fn peek_at(&mut self) -> Option<Ts>;

    /// What [`Feed::history`] would hand out of one symbol by now, once more: history that came late is in it then. A feed
    /// whose history is whole from the start has nothing to say.
    ///
    /// # Errors
    /// [`FeedError`] when the source breaks.
    fn again(&self, _: Symbol, _until: Ts) -> Result<Vec<FeedItem>, FeedError> {
        Ok(Vec::new())
    }

    /// Rows or values that were skipped, with their place.
    fn issues(&self) -> FeedIssues;

    /// Items are brought from outside as they happen: nothing waiting does not mean that it has ended.
    fn is_live(&self) -> bool {
        false
    }

    /// Takes an item from outside; only a live feed does anything with it.
    fn bring(&mut self, _: FeedItem) {}
}

/// A skipped row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataIssue {
    /// File name.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

impl std::fmt::Display for DataIssue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

/// What a feed skipped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FeedIssues {
    /// Rows with wrong columns, text that is no number, or impossible values.
    pub defective: u64,
    /// Rows with the time of the row before.
    pub duplicates: u64,
    /// Rows whose time does not fit between their neighbours.
    pub out_of_order: u64,
    /// The first few of each file.
    pub first: Vec<DataIssue>,
}

/// A feed that cannot be used, or broke.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The folder cannot be listed.
    #[error("cannot read the folder {}: {source}; check `market.csv.dir`", dir.display())]
    Folder {
        /// Folder.
        dir: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The folder holds no candle file at all.
    #[error(
        "{} holds no candle file; put files named like XBTUSDT_1.csv or XBTUSDT_1.csv.gz (pair, underscore, minutes) there",
        dir.display()
    )]
    Empty {
        /// Folder.
        dir: PathBuf,
    },
    /// A symbol has no file.
    #[error("{} holds no file for {symbol}; add {example} or remove {symbol} from `symbols`", dir.display())]
    MissingSymbol {
        /// Folder.
        dir: PathBuf,
        /// Symbol.
        symbol: Symbol,
        /// A name that would be accepted.
        example: String,
    },
    /// No candle length is common to all symbols.
    #[error(
        "{} has no candle length that every symbol has ({found}); give every symbol a file of the same length, 1, 5 or 60 minutes",
        dir.display()
    )]
    MixedTimeframes {
        /// Folder.
        dir: PathBuf,
        /// Symbols and their lengths.
        found: String,
    },
    /// Two files claim the same symbol and length.
    #[error("{first} and {second} both hold {symbol}; keep one of them")]
    Ambiguous {
        /// Symbol.
        symbol: Symbol,
        /// File name.
        first: String,
        /// File name.
        second: String,
    },
    /// A file cannot be opened or read on, or its compression is damaged.
    #[error("{file} is damaged or unreadable after line {line}: {source}; replace the file")]
    Read {
        /// File name.
        file: String,
        /// Last line that was read.
        line: u64,
        /// Cause.
        source: std::io::Error,
    },
    /// A file of the candle store cannot be written.
    #[error(
        "{file} in the candle store cannot be written: {source}; check the free space and the rights of the folder"
    )]
    Write {
        /// File name.
        file: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A file has rows but no candle, or nothing at all.
    #[error("{file} holds no usable candle{}; expected rows of `unix_seconds,open,high,low,close,volume,trades`", first.as_ref().map_or(String::new(), |issue| format!(" (line {}: {})", issue.line, issue.problem)))]
    NoCandles {
        /// File name.
        file: String,
        /// The first thing wrong.
        first: Option<DataIssue>,
    },
    /// The simulated market cannot price a symbol.
    #[error(
        "the simulated market has no price for {symbol}; add it to `[market.simulated.start_prices]`, or add {base} and {quote} against one common quote",
        base = symbol.base,
        quote = symbol.quote
    )]
    NoStartPrice {
        /// Symbol.
        symbol: Symbol,
    },
}
