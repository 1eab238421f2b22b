//! What a run of the harness counted, and how it is shown.

use std::time::Duration;

use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};

/// Counts of one cycle, or of all.
#[derive(Clone, Default, Debug)]
pub(super) struct Totals {
    /// Processes killed.
    pub(super) kills: u64,
    /// Of these before the process had answered anything: start-up and recovery.
    pub(super) early: u64,
    /// Starts on a store that was there already.
    pub(super) restarts: u64,
    /// Starts that found their port taken.
    pub(super) ports: u64,
    /// Stores made.
    pub(super) stores: u64,
    /// Commands answered.
    pub(super) commands: u64,
    /// Keys sent again after a restart whose answer was the same.
    pub(super) repeated: u64,
    /// Plans, trades and records seen in a status.
    pub(super) shown: u64,
    /// Records of all stores at their end.
    pub(super) records: u64,
    /// Records read by all checks.
    pub(super) judged: u64,
    /// Intents of all stores at their end.
    pub(super) intents: u64,
    /// Fills of all stores at their end.
    pub(super) fills: u64,
    /// Plans of all stores at their end.
    pub(super) plans: u64,
    /// Positions closed in all stores.
    pub(super) closed: u64,
    /// Torn tails met by a check.
    pub(super) torn: u64,
    /// Checks that found the embedded store unreadable; each was made anew from the journal and compared.
    pub(super) rebuilt: u64,
    /// Stores recovered twice and compared.
    pub(super) twice: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Totals) {
        let pairs = [
            (&mut self.kills, other.kills),
            (&mut self.early, other.early),
            (&mut self.restarts, other.restarts),
            (&mut self.ports, other.ports),
            (&mut self.stores, other.stores),
            (&mut self.commands, other.commands),
            (&mut self.repeated, other.repeated),
            (&mut self.shown, other.shown),
            (&mut self.records, other.records),
            (&mut self.judged, other.judged),
            (&mut self.intents, other.intents),
            (&mut self.fills, other.fills),
            (&mut self.plans, other.plans),
            (&mut self.closed, other.closed),
            (&mut self.torn, other.torn),
            (&mut self.rebuilt, other.rebuilt),
            (&mut self.twice, other.twice),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
    }

    /// One line of progress.
    pub(super) fn line(&self, cycles: u64, spent: Duration) -> String {
        let acknowledged = self.commands + self.shown;
        format!(
            "{} of {cycles} kills, {:.1}/s; {acknowledged} acknowledgements, {} records judged",
            self.kills,
            rate(self.kills, spent),
            self.judged
        )
    }

    /// The closing table.
    pub(super) fn table(&self, seed: u64, spent: Duration, violations: usize) -> String {
        let mut table = Table::new();
        table.load_preset(UTF8_BORDERS_ONLY).set_header(["figure", "value"]);
        let rows = [
            ("kills", self.kills),
            ("of these during start-up or recovery", self.early),
            ("restarts on a used store", self.restarts),
            ("stores", self.stores),
            ("commands acknowledged", self.commands),
            ("keys repeated with the same answer", self.repeated),
            ("trades, plans and records acknowledged", self.shown),
            ("records written", self.records),
            ("records judged over all checks", self.judged),
            ("intents", self.intents),
            ("fills", self.fills),
            ("plans", self.plans),
            ("positions closed", self.closed),
            ("torn tails", self.torn),
            ("embedded stores unreadable, made anew", self.rebuilt),
            ("stores recovered twice", self.twice),
            ("ports taken, tried again", self.ports),
            ("seed", seed),
            ("violations", violations as u64),
        ];
        for (name, value) in rows {
            table.add_row([name.to_owned(), value.to_string()]);
        }
        table.add_row(["seconds".to_owned(), format!("{:.1}", spent.as_secs_f64())]);
        table.add_row(["kills a second".to_owned(), format!("{:.2}", rate(self.kills, spent))]);
        format!("{table}\n")
    }
}

fn rate(count: u64, spent: Duration) -> f64 {
    count as f64 / spent.as_secs_f64().max(0.001)
}
