//! Reads one file of Kraken's OHLCVT layout as a stream of clean candles. Bad rows are skipped, counted and located.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use csv::ByteRecord;

use super::{DataIssue, FeedError, FeedIssues};
use crate::model::{Candle, Timeframe, Ts, time::DAY_MS};

/// Issues kept with their place, per file.
const ISSUES_KEPT: usize = 5;
const COLUMNS: usize = 7;
/// A row this much later than the next one has a wrong time itself.
const FAR_AHEAD_MS: i64 = DAY_MS;
/// Powers of ten that are exact as `f64`.
const POWERS: [f64; 20] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19];
/// Integers up to 2^53 are exact as `f64`.
const MANTISSA_MAX: u64 = 1 << 53;

pub(super) struct CsvReader {
    name: String,
    frame: Timeframe,
    rows: csv::Reader<Box<dyn Read + Send>>,
    record: ByteRecord,
    /// Read but not yet given: its time is judged by the row after it.
    held: Option<(Candle, u64)>,
    /// Start of the last candle given.
    given: Option<Ts>,
    ended: bool,
    any: bool,
    issues: FeedIssues,
}

impl CsvReader {
    pub(super) fn open(path: &Path, frame: Timeframe) -> Result<CsvReader, FeedError> {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let file = File::open(path).map_err(|source| FeedError::Read { file: name.clone(), line: 0, source })?;
        let gzip = path.extension().is_some_and(|ext| ext == "gz");
        let input: Box<dyn Read + Send> = if gzip {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file)))
        } else {
            Box::new(file)
        };
        // Without quoting a stray quote spoils one row, not the rest of the file.
        let rows = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .quoting(false)
            .buffer_capacity(1 << 16)
            .from_reader(input);
        Ok(CsvReader {
            name,
            frame,
            rows,
            record: ByteRecord::new(),
            held: None,
            given: None,
            ended: false,
            any: false,
            issues: FeedIssues::default(),
        })
    }

    pub(super) fn issues(&self) -> &FeedIssues {
        &self.issues
    }

    /// The error of a file that gave no candle at all.
    pub(super) fn none_usable(&self) -> Option<FeedError> {
        let first = self.issues.first.first().cloned();
        (!self.any).then(|| FeedError::NoCandles { file: self.name.clone(), first })
    }

    /// The next candle that starts at or after `from`.
    pub(super) fn next_from(&mut self, from: Ts) -> Option<Result<Candle, FeedError>> {
        loop {
            match self.read_row(from) {
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Some(Ok((candle, line))) => {
                    if let Some(ready) = self.order(candle, line) {
                        return Some(Ok(ready));
                    }
                }
                None => {
                    let (candle, _) = self.held.take()?;
                    self.given = Some(candle.open_time);
                    return Some(Ok(candle));
                }
            }
        }
    }

    /// Holds `candle` back and gives the one held before it, unless one of the two has an impossible time.
    fn order(&mut self, candle: Candle, line: u64) -> Option<Candle> {
        let (held, held_line) = self.held.replace((candle, line))?;
        if candle.open_time > held.open_time {
            self.given = Some(held.open_time);
            return Some(held);
        }
        // A single time far ahead must not make every row after it late: such a row goes, not the ones after it.
        let far_ahead = held.open_time.since_ms(candle.open_time) > FAR_AHEAD_MS;
        let fits = self.given.is_none_or(|given| candle.open_time > given);
        if candle.open_time == held.open_time {
            self.held = Some((held, held_line));
            self.issues.duplicates += 1;
            self.note(line, "the same time as the row before; the first one is used");
        } else if far_ahead && fits {
            self.issues.out_of_order += 1;
            self.note(held_line, "its time lies more than a day after that of the next row");
        } else {
            self.held = Some((held, held_line));
            self.issues.out_of_order += 1;
            self.note(line, "its time is earlier than that of the row before");
        }
        None
    }

    fn read_row(&mut self, from: Ts) -> Option<Result<(Candle, u64), FeedError>> {
        while !self.ended {
            match self.rows.read_byte_record(&mut self.record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Some(Err(self.broken(error))),
            }
            let line = self.record.position().map_or(0, csv::Position::line);
            match parse(&self.record, self.frame, from) {
                Ok(Some(candle)) => {
                    self.any = true;
                    return Some(Ok((candle, line)));
                }
                Ok(None) => self.any = true,
                Err(problem) => {
                    self.issues.defective += 1;
                    self.note(line, &problem);
                }
            }
        }
        self.ended = true;
        None
    }

    fn broken(&self, error: csv::Error) -> FeedError {
        let line = self.rows.position().line();
        let source = match error.into_kind() {
            csv::ErrorKind::Io(source) => source,
            other => std::io::Error::other(format!("{other:?}")),
        };
        FeedError::Read { file: self.name.clone(), line, source }
    }

    fn note(&mut self, line: u64, problem: &str) {
        if self.issues.first.len() < ISSUES_KEPT {
            self.issues.first.push(DataIssue { file: self.name.clone(), line, problem: problem.to_owned() });
        }
    }
}

/// The candle of a row; nothing when it starts before `from`.
fn parse(record: &ByteRecord, frame: Timeframe, from: Ts) -> Result<Option<Candle>, String> {
    if record.len() != COLUMNS {
        return Err(format!("{} columns instead of {COLUMNS}", record.len()));
    }
    let column = |i: usize| record.get(i).unwrap_or_default();
    let seconds = column(0);
    let open_time = whole(seconds)
        .map(Ts::from_secs)
        .ok_or_else(|| format!("`{}` is no time in Unix seconds", String::from_utf8_lossy(seconds)))?;
    if open_time < from {
        return Ok(None);
    }
    let value =
        |i: usize| decimal(column(i)).ok_or_else(|| format!("`{}` is no number", String::from_utf8_lossy(column(i))));
    let candle =
        Candle { open_time, open: value(1)?, high: value(2)?, low: value(3)?, close: value(4)?, volume: value(5)? };
    if open_time != open_time.floor_to(frame.ms()) {
        return Err(format!("its time {open_time} is not on a {frame} boundary"));
    }
    candle.defect().map_or(Ok(Some(candle)), |defect| Err(defect.to_owned()))
}

/// Unix seconds of the years 1970 to 2286; anything longer is no time.
fn whole(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    text.iter().try_fold(0_i64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// A decimal number, correctly rounded: digits and power of ten are both exact, so one division rounds once. Everything
/// else (signs, exponents, long numbers) goes through the standard parser.
fn decimal(text: &[u8]) -> Option<f64> {
    let mut mantissa = 0_u64;
    let mut point = None;
    for (i, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' if i < 19 => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(i),
            _ => return std::str::from_utf8(text).ok()?.trim().parse().ok(),
        }
    }
    let digits = text.len() - usize::from(point.is_some());
    if digits == 0 {
        return None;
    }
    let decimals = point.map_or(0, |at| text.len() - at - 1);
    match POWERS.get(decimals) {
        Some(power) if mantissa <= MANTISSA_MAX => Some(mantissa as f64 / power),
        _ => std::str::from_utf8(text).ok()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{decimal, whole};

    #[test]
    fn numbers_are_those_of_the_standard_parser() {
        for text in [
            "0.00002208",
            "56738.76",
            "1555104.2",
            "7140.0",
            "1e5",
            "-3.5",
            "0",
            ".5",
            "5.",
            "9007199254740993",
            "12345678901234567.8",
            "NaN",
        ] {
            let expected: f64 = text.parse().unwrap();
            assert_eq!(decimal(text.as_bytes()).unwrap().to_bits(), expected.to_bits(), "{text}");
        }
        for text in ["", ".", "abc", "1.2.3", "1,2", "0x10", "\u{fe}"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn times_are_whole_seconds() {
        assert_eq!(whole(b"1618951320"), Some(1_618_951_320));
        for text in ["", "-1", "1.5", "16189513200", " 16"] {
            assert_eq!(whole(text.as_bytes()), None, "{text}");
        }
    }
}
