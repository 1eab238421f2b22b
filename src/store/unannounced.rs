//! What became durable and was perhaps never told: the records behind the newest one the announcer has noted. It reads
//! the journal once more, beside recovery, which has verified it; nothing is decided by it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use super::{
    frame,
    journal::segment_name,
    reader,
    segments::{Folder, Segments},
};
use crate::model::{Event, Record};

/// The newest so many are told again at most.
const MOST: usize = 1_000;

/// Records after `after` and after the newest clean stop, oldest first. What cannot be read is left out: the reader of
/// the truth has said what is wrong with it.
pub fn since(journal: &Path, after: u64) -> Vec<Record> {
    let Ok(firsts) = reader::segments(journal) else { return Vec::new() };
    // The segment that holds the first wanted record, and all behind it.
    let begin = firsts.iter().rposition(|first| *first <= after + 1).unwrap_or(0);
    let files = Folder(journal);
    let (mut found, mut scratch) = (Vec::new(), Vec::new());
    for first in firsts.iter().skip(begin) {
        let Ok((file, _)) = files.open(&segment_name(*first)) else { continue };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            if frame::peek_seq(&line).is_none_or(|seq| seq <= after) {
                continue;
            }
            let Ok((record, _)) = frame::decode(&line, &mut scratch) else { continue };
            if matches!(record.event, Event::CleanStop {}) {
                found.clear();
            } else {
                found.push(record);
            }
        }
    }
    found.drain(..found.len().saturating_sub(MOST));
    found
}
