//! Settings and a store for the loopback venue, and what the tests ask of the status.
#![allow(dead_code)] // every test file uses a part
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{fmt::Write, fs, path::Path};

use serde_json::Value;

use super::{
    kraken_venue::{self, Venue},
    process_support::*,
};

/// A folder with settings for the venue, and the place of the store.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new(venue: &Venue) -> Home {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("live.toml"), venue.settings()).unwrap();
        Home(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn config(&self) -> String {
        self.0.path().join("live.toml").to_str().unwrap().to_owned()
    }

    pub fn store(&self) -> std::path::PathBuf {
        self.0.path().join("store")
    }

    /// Settings of the venue and more.
    pub fn with(venue: &Venue, more: &str) -> Home {
        let home = Home::new(venue);
        fs::write(home.config(), venue.settings() + more).unwrap();
        home
    }

    /// Settings of the venue with three symbols, and more.
    pub fn of_three(venue: &Venue, more: &str) -> Home {
        let home = Home::new(venue);
        fs::write(home.config(), venue.settings_of_three() + more).unwrap();
        home
    }

    /// As [`Home::import`], for three symbols.
    pub fn import_three(&self) -> std::process::Output {
        let mut files = self.history_files();
        files.push(self.history_file("XRPXBT_1.csv", "XRP/BTC"));
        self.run(&["--json", "import", "kraken-csv", &files[0], &files[1], &files[2]])
    }

    /// Imports 270 hours of both symbols, up to seven minutes ago.
    pub fn import(&self) -> std::process::Output {
        let files = self.history_files();
        self.run(&["--json", "import", "kraken-csv", &files[0], &files[1]])
    }

    /// 270 hours of both symbols in Kraken's layout, up to seven minutes ago.
    pub fn history_files(&self) -> Vec<String> {
        [("XBTUSDT_1.csv", "BTC/USDT"), ("XRPUSDT_1.csv", "XRP/USDT")]
            .map(|(name, symbol)| self.history_file(name, symbol))
            .to_vec()
    }

    fn history_file(&self, name: &str, symbol: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, history(symbol, 270 * 60, 7)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn start(&self) -> Program {
        Program::start(&self.store(), &["--config", &self.config()])
    }

    /// A command that needs no running process.
    pub fn run(&self, args: &[&str]) -> std::process::Output {
        let (config, store) = (self.config(), self.store());
        run_to_end(&[&["--config", &config, "--store", store.to_str().unwrap()], args].concat())
    }
}

pub fn feed(status: &Value, symbol: &str) -> Value {
    status["feeds"].as_array().unwrap().iter().find(|feed| feed["symbol"] == symbol).unwrap().clone()
}

pub fn alive(status: &Value, symbol: &str) -> bool {
    let feed = feed(status, symbol);
    feed["connected"] == true && feed["subscribed"] == true && feed["healthy"] == true
}

/// Kraken's layout: one-minute candles of the last `minutes`, up to `until` minutes ago.
pub fn history(symbol: &str, minutes: i64, until: i64) -> String {
    let last = chrono::Utc::now().timestamp() / 60 - until;
    let mut text = String::new();
    for minute in last - minutes..last {
        let [open, high, low, close, volume] = kraken_venue::candle(symbol, minute);
        writeln!(text, "{},{open},{high},{low},{close},{volume},3", minute * 60).unwrap();
    }
    text
}
