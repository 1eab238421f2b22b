//! `journal tail|verify|export`: readers of a store another process may own. They change nothing.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use crate::{
    model::{Record, Ts},
    runtime::{
        failure::{Exit, Failure},
        terminal,
    },
    settings::{Settings, sections::StoreSettings},
    store::{
        error::StoreError,
        frame,
        journal::segment_name,
        oracle::{Ack, acks},
        reader::{self, ReadError, Start},
        twice, verify,
    },
};

/// What a subcommand answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// 0 done, 1 failed.
    pub code: u8,
}

impl Answer {
    fn done(text: String) -> Answer {
        Answer { text, code: 0 }
    }

    fn failed(text: impl std::fmt::Display) -> Answer {
        Answer { text: format!("{text}\n"), code: 1 }
    }
}

/// Form of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One record per line, without `prev` and `crc`.
    Jsonl,
    /// A table with the body as JSON in its last column.
    Csv,
}

/// Which records an export holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Not before this logical time.
    pub from: Option<Ts>,
    /// Before this logical time.
    pub to: Option<Ts>,
    /// Only these kinds; empty = all.
    pub kinds: Vec<String>,
    /// Only records of this root.
    pub corr: Option<String>,
}

impl Selection {
    fn holds(&self, record: &Record) -> bool {
        self.from.is_none_or(|from| record.ts >= from)
            && self.to.is_none_or(|to| record.ts < to)
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == record.event.kind()))
            && self.corr.as_ref().is_none_or(|corr| record.corr == *corr)
    }
}

/// The last `lines` lines of the journal in `data`, as written; with `after` only those with a higher number, so that a
/// caller can follow by asking again.
pub fn tail(data: &Path, lines: usize, after: Option<u64>) -> Answer {
    match last_lines(&data.join("journal"), lines, after) {
        Ok(found) if found.is_empty() && after.is_none() => {
            Answer::failed(format!("there is no journal in {}", data.display()))
        }
        Ok(found) => Answer::done(found.into_iter().rev().map(|line| line + "\n").collect()),
        Err(error) => Answer::failed(error),
    }
}

/// Newest first. Only whole lines with a right checksum: the last one may be in the middle of being written.
fn last_lines(dir: &Path, lines: usize, after: Option<u64>) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let mut scratch = Vec::new();
    for first in reader::segments(dir)?.into_iter().rev() {
        let path = dir.join(segment_name(first));
        let bytes = std::fs::read(&path).map_err(|error| StoreError::io("read", &path, error))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end);
        for line in bytes[..whole].rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if found.len() >= lines || frame::peek_seq(line).is_some_and(|seq| after.is_some_and(|after| seq <= after))
            {
                return Ok(found);
            }
            let defect = frame::decode(line, &mut scratch).err();
            let text = String::from_utf8_lossy(line);
            found.push(defect.map_or_else(|| text.to_string(), |why| format!("# damaged: {why}: {text}")));
        }
    }
    Ok(found)
}

/// Checks everything; 0 when the store is sound.
pub fn verify(data: &Path) -> Answer {
    verify_with(data, &Verification::default())
}

/// What a verification does beyond reading the store.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// File of acknowledgements that must hold.
    pub acks: Option<PathBuf>,
    /// Recover a copy once and twice with these settings, and compare.
    pub recover_twice: Option<StoreSettings>,
    /// The report as JSON.
    pub json: bool,
}

/// As [`verify()`]: 0 sound, 65 not sound, 1 when there is nothing to check or it cannot be read.
pub fn verify_with(data: &Path, how: &Verification) -> Answer {
    if !data.join("journal").is_dir() {
        return Answer::failed(format!("there is no journal in {}", data.display()));
    }
    let acks = match how.acks.as_deref().map(read_acks).transpose() {
        Ok(acks) => acks.unwrap_or_default(),
        Err(why) => return Answer::failed(why),
    };
    let mut report = verify::check_with(data, &acks);
    if let Some(settings) = &how.recover_twice {
        report.add(twice::recover_twice(data, settings));
    }
    let code = if report.is_sound() { Exit::Done } else { Exit::Unsound }.code();
    let text = if how.json {
        serde_json::to_string_pretty(&report).map_or_else(|error| error.to_string(), |text| text + "\n")
    } else {
        report.text()
    };
    Answer { text, code }
}

fn read_acks(path: &Path) -> Result<Vec<Ack>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("--acks {}: {error}", path.display()))?;
    acks::parse(&text).map_err(|why| format!("--acks {}: {why}", path.display()))
}

/// Writes the selected records to `out`; the text says how many.
pub fn export(data: &Path, format: Format, selection: &Selection, out: &mut dyn Write) -> Answer {
    if !data.join("journal").is_dir() {
        return Answer::failed(format!("there is no journal in {}", data.display()));
    }
    let mut count = 0u64;
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut written = Ok(());
    if format == Format::Csv {
        written =
            row(&mut table, out, ["seq", "epoch", "ts", "actor", "corr", "cause", "kind", "data"].map(str::to_owned));
    }
    let read = reader::read(&data.join("journal"), Start::BEGINNING, &mut |batch| {
        for record in batch.drain(..).filter(|record| selection.holds(record)) {
            if written.is_ok() {
                written = match format {
                    Format::Csv => row(&mut table, out, columns(&record)),
                    Format::Jsonl => serde_json::to_string(&record)
                        .map_err(std::io::Error::from)
                        .and_then(|text| writeln!(out, "{text}")),
                };
                count += 1;
            }
        }
        // Nobody reads on for a reader that has gone.
        written.as_ref().map_or_else(|error| Err(error.to_string()), |()| Ok(()))
    });
    match (read, written.and_then(|()| out.flush())) {
        (_, Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Answer::done(String::new()),
        (_, Err(error)) => Answer::failed(format!("the export cannot be written: {error}")),
        (Err(ReadError::Damage(damage)), _) => Answer::failed(format!("{count} records exported, then: {damage}")),
        (Err(ReadError::Refused(error)), _) => Answer::failed(format!("{count} records exported, then: {error}")),
        (Ok(_), Ok(())) => Answer::done(format!("{count} records exported\n")),
    }
}

fn columns(record: &Record) -> [String; 8] {
    let data = serde_json::to_value(&record.event).unwrap_or_default();
    [
        record.seq.to_string(),
        record.epoch.to_string(),
        record.ts.to_string(),
        record.actor.to_string(),
        record.corr.clone(),
        record.cause.clone(),
        record.event.kind().to_owned(),
        data.get("data").map(ToString::to_string).unwrap_or_default(),
    ]
}

fn row(table: &mut csv::Writer<Vec<u8>>, out: &mut dyn Write, cells: [String; 8]) -> std::io::Result<()> {
    table.write_record(&cells)?;
    table.flush()?;
    let finished = std::mem::replace(table, csv::Writer::from_writer(Vec::new()));
    let bytes = finished.into_inner().map_err(|error| std::io::Error::other(error.to_string()))?;
    out.write_all(&bytes)
}

/// Subcommands of `journal`.
#[derive(clap::Subcommand, Debug, Clone)]
pub enum JournalCommand {
    /// The newest records
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Only records after this sequence number
        #[arg(long)]
        after: Option<u64>,
    },
    /// Seven checks from the first record on, with figures; 0 = sound, 65 = not sound
    Verify {
        /// JSON lines of what was acknowledged (commands, plans, trades, records); all of it must be there
        #[arg(long, value_name = "FILE")]
        acks: Option<PathBuf>,
        /// Also recover a copy once and twice, and compare the states
        #[arg(long)]
        recover_twice: bool,
    },
    /// All records, or those of a window
    Export {
        /// jsonl or csv
        #[arg(long, default_value = "jsonl")]
        format: String,
        /// Not before this instant
        #[arg(long, value_parser = super::parse_instant)]
        from: Option<Ts>,
        /// Before this instant
        #[arg(long, value_parser = super::parse_instant)]
        to: Option<Ts>,
        /// Only records of this kind; may be repeated
        #[arg(long)]
        kind: Vec<String>,
        /// Only records of this decision, plan, command or run
        #[arg(long)]
        corr: Option<String>,
    },
}

/// Runs a subcommand on the store the settings name.
///
/// # Errors
/// A format that does not exist.
pub fn journal(settings: &Settings, command: &JournalCommand, json: bool) -> anyhow::Result<Exit> {
    let data = Path::new(&settings.data_dir);
    let answer = match command {
        JournalCommand::Tail { lines, after } => tail(data, *lines, *after),
        JournalCommand::Verify { acks, recover_twice } => {
            let recover_twice = recover_twice.then(|| settings.store.clone());
            let how = Verification { acks: acks.clone(), recover_twice, json };
            verify_with(data, &how)
        }
        JournalCommand::Export { format, from, to, kind, corr } => {
            let format = match format.as_str() {
                "jsonl" => Format::Jsonl,
                "csv" => Format::Csv,
                other => {
                    let text = format!("--format {other}: it is jsonl or csv");
                    return Err(Failure::new(Exit::Usage, text).into());
                }
            };
            let selection = Selection { from: *from, to: *to, kinds: kind.clone(), corr: corr.clone() };
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            let answer = export(data, format, &selection, &mut out);
            // Records alone go to standard output, so that they can be piped.
            terminal::aside(format_args!("{}", answer.text));
            return Ok(Exit::from_code(answer.code));
        }
    };
    if answer.code == 0 || json {
        terminal::out(format_args!("{}", answer.text));
    } else {
        terminal::aside(format_args!("{}", answer.text));
    }
    Ok(Exit::from_code(answer.code))
}
