//! Candles kept beside the journal, one file per symbol and length in Kraken's OHLCVT layout. Append-only while running;
//! an import writes a whole new file and renames it. Nothing of the truth depends on it: losing it costs history only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{FeedError, csv::pair_names, csv_reader::CsvReader};
use crate::model::{Candle, Symbol, Timeframe, Ts};

/// Holes kept with their place in a report.
const HOLES_KEPT: usize = 5;
/// Enough for the last rows of a file.
const TAIL: u64 = 4_096;

/// The folder of one candle length.
#[derive(Clone, Debug)]
pub struct CandleStore {
    dir: PathBuf,
    frame: Timeframe,
}

/// What became of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Candles that were not there before.
    pub added: u64,
    /// Candles whose values were replaced.
    pub changed: u64,
    /// Candles in the file now.
    pub total: u64,
    /// First and last start.
    pub span: Option<(Ts, Ts)>,
    /// Holes in the file now, and the candles missing in them.
    pub holes: u64,
    /// Candles missing in the holes.
    pub missing: u64,
    /// The longest holes, as first missing start and first start after it, longest first.
    pub longest: Vec<(Ts, Ts)>,
}

/// Candles for an import, in order of time.
pub type Rows<'a> = &'a mut dyn Iterator<Item = Result<Candle, FeedError>>;

impl CandleStore {
    /// The folder, made when absent.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(dir: &Path, frame: Timeframe) -> io::Result<CandleStore> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(CandleStore { dir: dir.to_owned(), frame })
    }

    /// Length of the candles.
    pub fn frame(&self) -> Timeframe {
        self.frame
    }

    /// The file of a symbol.
    pub fn path(&self, symbol: Symbol) -> PathBuf {
        let pair = pair_names(&symbol).into_iter().next().unwrap_or_default();
        self.dir.join(format!("{pair}_{}.csv", self.frame.minutes()))
    }

    /// Cuts a row that a crash left half written.
    ///
    /// # Errors
    /// The file cannot be read or cut.
    pub fn repair(&self, symbol: Symbol) -> io::Result<()> {
        let Some((tail, length)) = self.tail(symbol)? else { return Ok(()) };
        let torn = tail.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
        if torn > 0 {
            OpenOptions::new().write(true).open(self.path(symbol))?.set_len(length - torn)?;
        }
        Ok(())
    }

    /// Start of the newest candle; nothing when there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn newest(&self, symbol: Symbol) -> io::Result<Option<Ts>> {
        let Some((tail, _)) = self.tail(symbol)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&tail);
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let seconds = whole.lines().rev().find_map(|line| line.split(',').next()?.parse::<i64>().ok());
        Ok(seconds.filter(|seconds| (0..=9_999_999_999).contains(seconds)).map(Ts::from_secs))
    }

    /// Start of the oldest candle; nothing when there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn oldest(&self, symbol: Symbol) -> io::Result<Option<Ts>> {
        let file = match File::open(self.path(symbol)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut head = Vec::new();
        file.take(TAIL).read_to_end(&mut head)?;
        let text = String::from_utf8_lossy(&head);
        let seconds = text.lines().find_map(|line| line.split(',').next()?.parse::<i64>().ok());
        Ok(seconds.filter(|seconds| (0..=9_999_999_999).contains(seconds)).map(Ts::from_secs))
    }

    /// The last bytes of a file and its length.
    fn tail(&self, symbol: Symbol) -> io::Result<Option<(Vec<u8>, u64)>> {
        let mut file = match File::open(self.path(symbol)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        Ok(Some((tail, length)))
    }

    /// Adds the candles that are newer than the newest one; answers how many.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, symbol: Symbol, candles: &[Candle]) -> io::Result<u64> {
        self.repair(symbol)?;
        let mut newest = self.newest(symbol)?;
        let (mut text, mut added) = (String::new(), 0);
        for candle in candles {
            if newest.is_none_or(|newest| candle.open_time > newest) {
                newest = Some(candle.open_time);
                text.push_str(&row(candle));
                added += 1;
            }
        }
        if added > 0 {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.path(symbol))?;
            file.write_all(text.as_bytes())?;
        }
        Ok(added)
    }

    /// Hands the candles that start at or after `from` to `sink`; a row that is no candle is left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, symbol: Symbol, from: Ts, sink: &mut dyn FnMut(Candle)) -> Result<(), FeedError> {
        let path = self.path(symbol);
        if !path.exists() {
            return Ok(());
        }
        let mut reader = CsvReader::open(&path, self.frame)?;
        while let Some(candle) = reader.next_from(from) {
            sink(candle?);
        }
        Ok(())
    }

    /// Merges candles into the file of a symbol: a new file is written whole and takes the place of the old one. Where
    /// both have a candle, the new one is used.
    ///
    /// # Errors
    /// Either side cannot be read, or the file cannot be written; the old file stands then.
    pub fn merge(&self, symbol: Symbol, rows: Rows<'_>) -> Result<Merged, FeedError> {
        let path = self.path(symbol);
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let broken = |source| FeedError::Write { file: name.clone(), source };
        self.repair(symbol).map_err(broken)?;
        let temporary = path.with_extension("csv.new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let mut out = BufWriter::new(file.map_err(broken)?);
        let mut old = path.exists().then(|| CsvReader::open(&path, self.frame)).transpose()?;
        let mut next_old = move || old.as_mut().and_then(|old| old.next_from(Ts(0))).transpose();
        let (mut left, mut right) = (next_old()?, rows.next().transpose()?);
        let mut merged = Merged::default();
        loop {
            let candle = match (left, right) {
                (None, None) => break,
                (Some(kept), None) => {
                    left = next_old()?;
                    kept
                }
                (Some(kept), Some(new)) if kept.open_time < new.open_time => {
                    left = next_old()?;
                    kept
                }
                (kept, Some(new)) => {
                    match kept.filter(|kept| kept.open_time == new.open_time) {
                        Some(kept) => {
                            merged.changed += u64::from(kept != new);
                            left = next_old()?;
                        }
                        None => merged.added += 1,
                    }
                    right = rows.next().transpose()?;
                    new
                }
            };
            merged.note(&candle, self.frame);
            out.write_all(row(&candle).as_bytes()).map_err(broken)?;
        }
        let file = out.into_inner().map_err(|error| broken(error.into_error()))?;
        file.sync_all().map_err(broken)?;
        fs::rename(&temporary, &path).map_err(broken)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(broken)?;
        Ok(merged)
    }
}

impl Merged {
    fn note(&mut self, candle: &Candle, frame: Timeframe) {
        if let Some((_, last)) = self.span {
            let expected = last.plus_ms(frame.ms());
            if candle.open_time > expected {
                self.holes += 1;
                self.missing += (candle.open_time.since_ms(expected) / frame.ms()).unsigned_abs();
                self.longest.push((expected, candle.open_time));
                self.longest.sort_by_key(|(from, to)| std::cmp::Reverse(to.since_ms(*from)));
                self.longest.truncate(HOLES_KEPT);
            }
        }
        self.total += 1;
        self.span = Some((self.span.map_or(candle.open_time, |(first, _)| first), candle.open_time));
    }
}

/// The feed does not tell the number of trades; 0 stands for it.
fn row(candle: &Candle) -> String {
    let Candle { open_time, open, high, low, close, volume } = candle;
    format!("{},{open},{high},{low},{close},{volume},0\n", open_time.0 / 1_000)
}

#[cfg(test)]
#[path = "candle_store_tests.rs"]
mod tests;
