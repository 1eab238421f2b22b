//! Historic candles from a folder of Kraken OHLCVT files, several symbols merged in time order, read as streams. A candle
//! is available at its close, never earlier.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    path::{Path, PathBuf},
};

use super::{Feed, FeedError, FeedIssues, FeedItem, FeedKind, csv_reader::CsvReader};
use crate::model::{Candle, Symbol, Timeframe, Ts};

/// Candle lengths that may be the base of everything else, shortest first.
const BASES: [Timeframe; 3] = [Timeframe::M1, Timeframe::M5, Timeframe::H1];

/// Which part of the files is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CsvWindow {
    /// First instant of the run; absent = from the first candle.
    pub from: Option<Ts>,
    /// Candles that close after it are left out; absent = to the last candle.
    pub to: Option<Ts>,
    /// How much before `from` is read as history, milliseconds.
    pub warm_up_ms: i64,
}

struct Source {
    symbol: Symbol,
    reader: CsvReader,
    next: Option<Candle>,
}

/// A replay of candle files.
pub struct CsvFeed {
    base: Timeframe,
    read_from: Ts,
    to: Ts,
    sources: Vec<Source>,
    /// (available at, index of the source): the symbol's order breaks ties.
    queue: BinaryHeap<Reverse<(Ts, usize)>>,
    failed: Option<FeedError>,
}

impl CsvFeed {
    /// Opens one file per symbol. When the folder holds several candle lengths, the shortest that every symbol has is used.
    ///
    /// # Errors
    /// [`FeedError`] when the folder or a file cannot be used; the text says what to do.
    pub fn open(dir: &Path, symbols: &[Symbol], window: CsvWindow) -> Result<CsvFeed, FeedError> {
        let (base, files) = choose_files(dir, symbols)?;
        let mut feed = CsvFeed {
            base,
            read_from: window.from.map_or(Ts(0), |from| from.plus_ms(-window.warm_up_ms)),
            to: window.to.unwrap_or(Ts(i64::MAX)),
            sources: Vec::with_capacity(symbols.len()),
            queue: BinaryHeap::with_capacity(symbols.len()),
            failed: None,
        };
        for (symbol, path) in symbols.iter().zip(files) {
            let mut reader = CsvReader::open(&path, base)?;
            let next = reader.next_from(feed.read_from).transpose()?;
            if let Some(error) = reader.none_usable() {
                return Err(error);
            }
            if let Some(at) = next.map(|candle| candle.close_time(base)).filter(|at| *at <= feed.to) {
                feed.queue.push(Reverse((at, feed.sources.len())));
            }
            feed.sources.push(Source { symbol: *symbol, reader, next });
        }
        Ok(feed)
    }

    fn take(&mut self) -> Option<Result<FeedItem, FeedError>> {
        let mut top = self.queue.peek_mut()?;
        let Reverse((available_at, index)) = *top;
        let source = self.sources.get_mut(index)?;
        let candle = source.next.take()?;
        let following = match source.reader.next_from(self.read_from) {
            Some(Ok(candle)) => Some(candle),
            None => None,
            Some(Err(error)) => {
                // This candle was read whole; the error is reported after it.
                self.failed = Some(error);
                None
            }
        };
        source.next = following.filter(|candle| candle.close_time(self.base) <= self.to);
        match source.next {
            Some(candle) => *top = Reverse((candle.close_time(self.base), index)),
            None => drop(std::collections::binary_heap::PeekMut::pop(top)),
        }
        Some(Ok(FeedItem { symbol: source.symbol, available_at, kind: FeedKind::Candle(candle) }))
    }
}

impl Feed for CsvFeed {
    fn base(&self) -> Timeframe {
        self.base
    }

    fn name(&self) -> &'static str {
        "csv"
    }

    fn history(&mut self, until: Ts, sink: &mut dyn FnMut(FeedItem)) -> Result<(), FeedError> {
        while self.failed.is_some() || self.peek_at().is_some_and(|at| at <= until) {
            match self.next() {
                Some(item) => sink(item?),
                None => break,
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Result<FeedItem, FeedError>> {
        if let Some(error) = self.failed.take() {
            // A broken file ends the whole replay: going on without one symbol would be another market.
            self.queue.clear();
            return Some(Err(error));
        }
        self.take()
    }

    fn peek_at(&mut self) -> Option<Ts> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    fn issues(&self) -> FeedIssues {
        self.sources.iter().fold(FeedIssues::default(), |mut all, source| {
            let issues = source.reader.issues();
            all.defective += issues.defective;
            all.duplicates += issues.duplicates;
            all.out_of_order += issues.out_of_order;
            all.first.extend(issues.first.iter().cloned());
            all
        })
    }
}

/// One candle file, read as a stream.
pub struct CandleFile {
    reader: CsvReader,
}

impl CandleFile {
    /// The symbol a file's name stands for, one of `known`.
    ///
    /// # Errors
    /// What the name should be, for people.
    pub fn symbol_of(path: &Path, known: &[Symbol], frame: Timeframe) -> Result<Symbol, String> {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let minutes = frame.minutes();
        let (pair, found) = split_name(&name)
            .ok_or_else(|| format!("`{name}` is not named like XBTUSDT_{minutes}.csv or XBTUSDT_{minutes}.csv.gz"))?;
        if found != frame {
            return Err(format!(
                "{name} holds candles of {found}; market.kraken.candle_minutes asks for {minutes}: take \
                 {pair}_{minutes}.csv, or change the setting"
            ));
        }
        let mut matching = known.iter().filter(|symbol| pair_names(symbol).iter().any(|known| known == pair));
        matching.next().copied().ok_or_else(|| {
            let names: Vec<String> = known.iter().filter_map(|symbol| pair_names(symbol).into_iter().next()).collect();
            format!("{name}: `{pair}` is no symbol of [market.symbol]; known are {}", names.join(", "))
        })
    }

    /// Opens a file, compressed or not.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, frame: Timeframe) -> Result<CandleFile, FeedError> {
        Ok(CandleFile { reader: CsvReader::open(path, frame)? })
    }

    /// What is wrong with the rows read so far; rows delivered twice are no problem.
    pub fn problem(&self) -> Option<String> {
        if let Some(error) = self.reader.none_usable() {
            return Some(error.to_string());
        }
        let issues = self.reader.issues();
        let first = issues.first.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let wrong = issues.defective + issues.out_of_order;
        (wrong > 0).then(|| format!("{wrong} rows are wrong: {first}"))
    }
}

impl Iterator for CandleFile {
    type Item = Result<Candle, FeedError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.reader.next_from(Ts(0))
    }
}

/// The base frame and one file per symbol, in the symbols' order.
fn choose_files(dir: &Path, symbols: &[Symbol]) -> Result<(Timeframe, Vec<PathBuf>), FeedError> {
    let folder = |source| FeedError::Folder { dir: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(folder)? {
        let name = entry.map_err(folder)?.file_name().to_string_lossy().into_owned();
        if let Some((pair, frame)) = split_name(&name) {
            names.push((pair.to_owned(), frame, name.clone()));
        }
    }
    // A folder's order is the file system's; everything after this line is the same everywhere.
    names.sort();
    if names.is_empty() {
        return Err(FeedError::Empty { dir: dir.to_owned() });
    }
    let mut found: Vec<BTreeMap<Timeframe, String>> = Vec::with_capacity(symbols.len());
    for symbol in symbols {
        let pairs = pair_names(symbol);
        let mut files: BTreeMap<Timeframe, String> = BTreeMap::new();
        for (_, frame, name) in names.iter().filter(|(pair, ..)| pairs.contains(pair)) {
            if let Some(first) = files.insert(*frame, name.clone()) {
                return Err(FeedError::Ambiguous { symbol: *symbol, first, second: name.clone() });
            }
        }
        if files.is_empty() {
            let example = format!("{}_1.csv", pairs.first().cloned().unwrap_or_default());
            return Err(FeedError::MissingSymbol { dir: dir.to_owned(), symbol: *symbol, example });
        }
        found.push(files);
    }
    for base in BASES {
        let paths: Option<Vec<PathBuf>> = found.iter().map(|files| files.get(&base).map(|n| dir.join(n))).collect();
        if let Some(paths) = paths {
            return Ok((base, paths));
        }
    }
    let lengths = symbols.iter().zip(&found).map(|(symbol, files)| {
        let frames: Vec<&str> = files.keys().map(|frame| frame.name()).collect();
        format!("{symbol}: {}", frames.join(" "))
    });
    Err(FeedError::MixedTimeframes { dir: dir.to_owned(), found: lengths.collect::<Vec<_>>().join(", ") })
}

/// `XBTUSDT_1.csv.gz` → (`XBTUSDT`, 1m); nothing for other names.
fn split_name(name: &str) -> Option<(&str, Timeframe)> {
    let stem = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".csv")?;
    let (pair, minutes) = stem.rsplit_once('_')?;
    let minutes: i64 = minutes.parse().ok()?;
    Some((pair, Timeframe::ALL.into_iter().find(|frame| frame.minutes() == minutes)?))
}

/// The names a symbol's files may carry, Kraken's own (`XBT` for BTC) first.
pub(super) fn pair_names(symbol: &Symbol) -> Vec<String> {
    let kraken = |asset: &str| if asset == "BTC" { "XBT".to_owned() } else { asset.to_owned() };
    let (base, quote) = (symbol.base.as_str(), symbol.quote.as_str());
    let mut names = vec![kraken(base) + &kraken(quote), format!("{base}{quote}")];
    names.dedup();
    names
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;
