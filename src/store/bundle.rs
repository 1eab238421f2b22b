//! What is set aside when an invariant broke: the reason and the newest lines of the journal, in one file for a person.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::recover::JOURNAL;

/// Directory of the bundles.
pub const BUNDLES: &str = "bundles";
/// Newest events in a bundle.
pub const EVENTS: usize = 1_000;

/// Writes `bundles/invariant-SEQ.jsonl` below the data directory: a line with the reason, then the newest [`EVENTS`] lines
/// of the journal as they are.
///
/// # Errors
/// Any failure of the operating system.
pub fn write(data: &Path, seq: u64, reason: &str) -> io::Result<PathBuf> {
    let mut segments: Vec<PathBuf> =
        fs::read_dir(data.join(JOURNAL))?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    segments.sort();
    let mut newest: Vec<String> = Vec::new();
    for segment in segments.iter().rev() {
        let text = fs::read(segment)?;
        let text = String::from_utf8_lossy(&text);
        newest.extend(text.lines().rev().take(EVENTS - newest.len()).map(str::to_owned));
        if newest.len() >= EVENTS {
            break;
        }
    }
    newest.push(serde_json::json!({"bundle": reason, "seq": seq, "events": newest.len()}).to_string());
    newest.reverse();
    let folder = data.join(BUNDLES);
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("invariant-{seq}.jsonl"));
    fs::write(&path, newest.join("\n") + "\n")?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_holds_the_reason_and_the_newest_thousand_lines_across_segments() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join(JOURNAL);
        fs::create_dir(&journal).unwrap();
        let lines = |from: u32, to: u32| (from..=to).map(|n| format!("{{\"seq\":{n}}}\n")).collect::<String>();
        fs::write(journal.join("000001.jsonl"), lines(1, 700)).unwrap();
        fs::write(journal.join("000002.jsonl"), lines(701, 1_500)).unwrap();
        let path = write(folder.path(), 1_500, "account: wrong").unwrap();
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + EVENTS);
        assert!(lines[0].contains("account: wrong"), "{}", lines[0]);
        assert_eq!((lines[1], lines[EVENTS]), ("{\"seq\":501}", "{\"seq\":1500}"));
    }
}
