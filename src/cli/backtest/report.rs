//! What a backtest says afterwards: figures for machines, a table for people.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

use crate::{
    agents::leaderboard::ModelCosts,
    execution::intent,
    llm::actor::{Misses, Recording},
    model::{Asset, ClosedPosition, PositionSide, Price, Qty, Score, State, Ts, state::VoterTally, time::DAY_MS},
};

/// The facts a backtest ends with; field names are those of `report.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Start of the simulated window.
    pub from: Ts,
    /// End of the simulated window.
    pub to: Ts,
    /// Length of the candles in the files.
    pub base_timeframe: crate::model::Timeframe,
    /// Symbols traded.
    pub symbols: Vec<crate::model::Symbol>,
    /// Configured symbols without a file in the folder, which were not traded.
    pub left_out: Vec<crate::model::Symbol>,
    /// What the input lacked, by symbol, warm-up included.
    pub feeds: Vec<FeedRow>,
    /// Base candles delivered inside the window.
    pub candles: u64,
    /// Wall time of the simulation, warm-up included.
    pub elapsed_seconds: f64,
    /// candles / elapsed_seconds.
    pub candles_per_second: f64,
    /// Peak resident memory of this process; absent where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// Runs started, by task.
    pub runs: BTreeMap<String, u64>,
    /// Slots skipped, by reason.
    pub skips: BTreeMap<String, u64>,
    /// Accepted signals.
    pub signals: u64,
    /// Ended decisions, by end.
    pub decisions: BTreeMap<String, u64>,
    /// Intents made.
    pub orders: u64,
    /// Fills booked.
    pub fills: u64,
    /// Positions closed.
    pub closed_trades: u64,
    /// Of these with a net gain.
    pub winning_trades: u64,
    /// Fees by asset.
    pub fees: BTreeMap<String, String>,
    /// Account currency.
    pub start_equity: String,
    /// Account currency.
    pub final_equity: String,
    /// Percent.
    pub return_pct: f64,
    /// Percent of the peak, positive.
    pub max_drawdown_pct: f64,
    /// Annualised over daily returns (365 days, no risk-free rate); absent below 2 days or without variance.
    pub sharpe: Option<f64>,
    /// SHA-256 over all journal bytes.
    pub journal_sha256: String,
    /// Journal records.
    pub journal_records: u64,
    /// Violated invariants in words; empty when all held.
    pub invariant_violations: Vec<String>,
    /// Questions to models the recording does not know; none without models.
    #[serde(skip_serializing_if = "Misses::is_empty")]
    pub not_recorded: Misses,
    /// Calls to models that were made and kept; only of a run that records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<Recording>,
    /// Rows of the input that were not used, by reason.
    pub data_issues: BTreeMap<String, u64>,
    /// Coordinator state at the end.
    pub state: String,
    /// What is held at the end beside positions and the account currency, by asset: no breaker sells it.
    pub holdings: BTreeMap<String, String>,
    /// Breakers latched at the end.
    pub latched_breakers: Vec<String>,
    /// Voters by name.
    pub per_voter: Vec<VoterRow>,
}

/// What the input of one symbol lacked.
#[derive(Clone, Debug, Serialize)]
pub struct FeedRow {
    /// Which symbol.
    pub symbol: crate::model::Symbol,
    /// Holes in the base frame.
    pub gaps: u64,
    /// Base candles missing in them.
    pub missing_candles: u64,
    /// Candles withheld because they were too far from the last accepted price.
    pub withheld: u64,
}

impl FeedRow {
    /// From what the market counted.
    pub fn new(status: &crate::market::FeedStatus) -> FeedRow {
        let counts = status.counts;
        FeedRow {
            symbol: status.symbol,
            gaps: counts.gaps,
            missing_candles: counts.missing_candles,
            withheld: counts.withheld,
        }
    }
}

/// One voter's record.
#[derive(Clone, Debug, Serialize)]
pub struct VoterRow {
    /// As configured.
    pub voter: String,
    /// Valid votes.
    pub votes: u64,
    /// By action.
    pub by_action: BTreeMap<String, u64>,
    /// Abstentions.
    pub abstentions: u64,
    /// Failures.
    pub failures: u64,
    /// Failures by kind.
    pub failures_by_kind: BTreeMap<String, u64>,
    /// What asking its models took and cost; absent for a voter by rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<ModelCosts>,
    /// Marked votes.
    pub marked: u64,
    /// correct / marked; absent when none is marked.
    pub share_correct: Option<f64>,
    /// Mean of BUY and SELL votes, basis points.
    pub mean_signed_return_bp: Option<f64>,
    /// 0..1
    pub mean_confidence: Option<f64>,
}

impl VoterRow {
    /// From the state's tally.
    pub fn new(voter: &str, tally: &VoterTally) -> VoterRow {
        let share = |part: f64, whole: u64| (whole > 0).then(|| part / whole as f64);
        let returns: f64 = tally.return_bp_sum.to_string().parse().unwrap_or(0.0);
        VoterRow {
            voter: voter.to_owned(),
            votes: tally.votes,
            by_action: tally.by_action.iter().map(|(action, count)| (action.name().to_owned(), *count)).collect(),
            abstentions: tally.abstentions,
            failures: tally.failures,
            failures_by_kind: tally.failures_by_kind.clone(),
            models: tally.models.as_ref().and_then(ModelCosts::of),
            marked: tally.marked,
            share_correct: share(tally.correct as f64, tally.marked),
            mean_signed_return_bp: share(returns, tally.return_count),
            mean_confidence: share(tally.confidence_sum as f64 / f64::from(Score::ONE.0), tally.votes),
        }
    }
}

/// What is held of each asset beside positions; the account currency is not at risk.
pub fn holdings(state: &State, currency: Asset) -> BTreeMap<String, String> {
    let mut held: BTreeMap<Asset, Qty> = BTreeMap::new();
    let assets = state.account.ledger.keys().copied().filter(|asset| *asset != currency);
    held.extend(assets.map(|asset| (asset, state.account.free(asset) + state.account.locked(asset))));
    for position in state.positions.values().filter(|position| position.side == PositionSide::Long) {
        *held.entry(position.symbol.base).or_default() -= position.quantity;
    }
    let held = held.into_iter().filter(|(_, quantity)| *quantity > Qty::ZERO);
    held.map(|(asset, quantity)| (asset.to_string(), quantity.normalize().to_string())).collect()
}

/// What a halt leaves to the market, in words.
fn exposed(holdings: &BTreeMap<String, String>) -> String {
    if holdings.is_empty() {
        return "no holdings of the allocation".to_owned();
    }
    let held = holdings.iter().map(|(asset, quantity)| format!("{quantity} {asset}")).collect::<Vec<_>>().join(", ");
    format!("{held}: holdings of the allocation; a halt closes positions, it sells no holdings")
}

/// `trades.csv`: one row per closed position. Mean prices have ten significant digits; the journal has them exactly.
pub fn trades(closed: &[ClosedPosition]) -> String {
    let mut text = String::from("position,symbol,quantity,entry,exit,gross,fees,net,opened_at,closed_at,cause\n");
    for c in closed {
        let price = |exact: Price| exact.round_sf(10).unwrap_or(exact).normalize();
        text += &format!(
            "{},{},{},{},{},{},{},{},{},{},{}\n",
            c.id,
            c.symbol,
            c.quantity,
            price(c.entry),
            price(c.exit),
            c.gross,
            c.fees,
            c.net,
            c.opened_at,
            c.closed_at,
            intent::cause_name(c.cause)
        );
    }
    text
}

/// Largest fall from a running peak, percent, positive.
pub fn max_drawdown_pct(curve: &[(Ts, f64)]) -> f64 {
    let mut peak = f64::MIN;
    let mut worst: f64 = 0.0;
    for (_, equity) in curve {
        peak = peak.max(*equity);
        if peak > 0.0 {
            worst = worst.max((peak - equity) / peak * 100.0);
        }
    }
    worst
}

/// Annualised Sharpe ratio of daily returns: mean / standard deviation (n − 1) × √365, without a risk-free rate.
pub fn sharpe(curve: &[(Ts, f64)]) -> Option<f64> {
    let mut days: Vec<f64> = Vec::new();
    let mut day = None;
    for (at, equity) in curve {
        let this = at.0.div_euclid(DAY_MS);
        match (day == Some(this), days.last_mut()) {
            (true, Some(last)) => *last = *equity,
            _ => days.push(*equity),
        }
        day = Some(this);
    }
    let returns: Vec<f64> = days.windows(2).filter(|pair| pair[0] > 0.0).map(|pair| pair[1] / pair[0] - 1.0).collect();
    if returns.len() < 2 {
        return None;
    }
    let mean = returns.iter().sum::<f64>() / returns.len() as f64;
    let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (returns.len() - 1) as f64;
    (variance > 0.0).then(|| mean / variance.sqrt() * 365f64.sqrt())
}

/// The summary for a terminal.
pub fn summary(report: &Report) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY);
    let mut row = |name: &str, value: String| {
        table.add_row(vec![name.to_owned(), value]);
    };
    let counts = |map: &BTreeMap<String, u64>| {
        if map.is_empty() {
            return "none".to_owned();
        }
        map.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join("\n")
    };
    row("window", format!("{} .. {}", report.from, report.to));
    row(
        "candles",
        format!("{} in {:.2} s ({:.0}/s)", report.candles, report.elapsed_seconds, report.candles_per_second),
    );
    if let Some(bytes) = report.peak_rss_bytes {
        row("peak memory", format!("{:.1} MiB", bytes as f64 / 1_048_576.0));
    }
    row("runs", counts(&report.runs));
    row("skips", counts(&report.skips));
    row("signals", report.signals.to_string());
    row("decisions", counts(&report.decisions));
    row("orders / fills", format!("{} / {}", report.orders, report.fills));
    row("closed trades", format!("{} ({} with a gain)", report.closed_trades, report.winning_trades));
    let fees = report.fees.iter().map(|(asset, fee)| format!("{fee} {asset}")).collect::<Vec<_>>().join(", ");
    row("fees", if fees.is_empty() { "none".to_owned() } else { fees });
    row("equity", format!("{} -> {} ({:+.2} %)", report.start_equity, report.final_equity, report.return_pct));
    row("max drawdown", format!("{:.2} %", report.max_drawdown_pct));
    row("sharpe", report.sharpe.map_or("too few days".to_owned(), |value| format!("{value:.2}")));
    let latched = report.latched_breakers.join(", ");
    row(
        "state at the end",
        if latched.is_empty() { report.state.clone() } else { format!("{} (latched: {latched})", report.state) },
    );
    if !report.left_out.is_empty() {
        let symbols: Vec<String> = report.left_out.iter().map(ToString::to_string).collect();
        row("left out, no file", symbols.join("\n"));
    }
    let holes = report.feeds.iter().filter(|feed| feed.gaps + feed.withheld > 0).map(|feed| {
        let withheld = if feed.withheld > 0 { format!(", {} withheld", feed.withheld) } else { String::new() };
        format!("{}: {} gaps, {} candles missing{withheld}", feed.symbol, feed.gaps, feed.missing_candles)
    });
    let holes: Vec<String> = holes.collect();
    if !holes.is_empty() {
        row("holes in the data", holes.join("\n"));
    }
    if report.state == "HALTED" {
        row("still exposed", exposed(&report.holdings));
    }
    if !report.data_issues.is_empty() {
        row("data issues", counts(&report.data_issues));
    }
    if let Some(Recording { asked, known, cost_usd, .. }) = &report.recording {
        row("recording", format!("{asked} calls made for {cost_usd} USD, {known} known before"));
    }
    row("journal", format!("{} records, sha256 {}", report.journal_records, report.journal_sha256));
    let held = report.invariant_violations.is_empty();
    row("invariants", if held { "all held".to_owned() } else { report.invariant_violations.join("\n") });

    format!("{table}\n{}", voters(&report.per_voter))
}

/// The leaderboard; what asking took and cost when some voter is a model.
fn voters(rows: &[VoterRow]) -> Table {
    let has_models = rows.iter().any(|voter| voter.models.is_some());
    let mut header = vec![
        "voter",
        "votes",
        "BUY",
        "SELL",
        "HOLD",
        "abstained",
        "failed",
        "marked",
        "right",
        "mean bp",
        "confidence",
    ];
    if has_models {
        header.extend(["calls", "mean ms", "median ms", "USD"]);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let or_dash = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    for voter in rows {
        let count = |name: &str| voter.by_action.get(name).copied().unwrap_or(0).to_string();
        let mut row = vec![
            voter.voter.clone(),
            voter.votes.to_string(),
            count("BUY"),
            count("SELL"),
            count("HOLD"),
            voter.abstentions.to_string(),
            voter.failures.to_string(),
            voter.marked.to_string(),
            voter.share_correct.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
            or_dash(voter.mean_signed_return_bp, 2),
            or_dash(voter.mean_confidence, 3),
        ];
        if has_models {
            row.extend(ModelCosts::cells(voter.models.as_ref()));
        }
        table.add_row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(values: &[f64]) -> Vec<(Ts, f64)> {
        values.iter().enumerate().map(|(day, v)| (Ts(day as i64 * DAY_MS), *v)).collect()
    }

    #[test]
    fn trades_have_readable_prices_and_exact_money() {
        let closed = ClosedPosition {
            id: crate::model::PositionId(2),
            symbol: "XRP/USDT".parse().unwrap(),
            side: PositionSide::Long,
            quantity: "1416".parse().unwrap(),
            entry: "1.5272474576271186440677966102".parse().unwrap(),
            exit: "1.47824000".parse().unwrap(),
            gross: "-69.39456".parse().unwrap(),
            fees: "11.065002624".parse().unwrap(),
            net: "-80.459562624".parse().unwrap(),
            net_usd: "-80.459562624".parse().unwrap(),
            opened_at: Ts(0),
            closed_at: Ts(DAY_MS),
            cause: crate::model::ExitCause::Stop,
        };
        let rows = trades(&[closed]);
        let row = "P2,XRP/USDT,1416,1.527247458,1.47824,-69.39456,11.065002624,-80.459562624,\
                   1970-01-01T00:00:00.000Z,1970-01-02T00:00:00.000Z,stop";
        assert_eq!(rows.lines().nth(1), Some(row));
    }

    #[test]
    fn the_table_of_voters_shows_what_models_took_and_cost() {
        let mut tally = VoterTally { votes: 3, ..VoterTally::default() };
        let by_rules = VoterRow::new("ema_cross", &tally);
        let header = |rows: &[VoterRow]| voters(rows).to_string().lines().nth(1).map(str::to_owned).unwrap();
        assert!(!header(std::slice::from_ref(&by_rules)).contains("USD"), "no model, no columns about models");
        let asked = crate::model::state::ModelTally {
            calls: 4,
            cost_usd: "0.0123".parse().unwrap(),
            latency_ms_sum: 8_000,
            latencies_ms: [1_000, 1_500, 2_500, 3_000].into(),
            ..Default::default()
        };
        tally.models = Some(asked);
        let rows = [by_rules, VoterRow::new("thinker", &tally)];
        let table = voters(&rows).to_string();
        assert!(["calls", "mean ms", "median ms", "USD"].iter().all(|name| header(&rows).contains(name)), "{table}");
        let row: Vec<&str> = table.lines().find(|line| line.contains("thinker")).unwrap().split_whitespace().collect();
        assert_eq!(row[row.len() - 5..row.len() - 1], ["4", "2000", "1500", "0.0123"], "{table}");
    }

    #[test]
    fn a_halt_names_what_it_leaves_to_the_market() {
        let held = BTreeMap::from([("BTC".to_owned(), "0.05".to_owned()), ("XRP".to_owned(), "2280".to_owned())]);
        let words = exposed(&held);
        assert!(words.starts_with("0.05 BTC, 2280 XRP: ") && words.contains("sells no holdings"), "{words}");
        assert!(exposed(&BTreeMap::new()).starts_with("no holdings"));
    }

    #[test]
    fn holdings_are_balances_without_the_currency_and_without_positions() {
        use crate::model::{Event, Record};
        let usdt: Asset = "USDT".parse().unwrap();
        let mut state = State::default();
        for (number, (asset, amount)) in [("USDT", "100"), ("BTC", "0.50")].into_iter().enumerate() {
            let deposit = Event::Deposit { asset: asset.parse().unwrap(), amount: amount.parse().unwrap() };
            let record = Record {
                v: crate::model::event::SCHEMA_VERSION,
                seq: number as u64 + 1,
                epoch: 1,
                ts: Ts(0),
                n: None,
                actor: "test".into(),
                corr: "test".into(),
                cause: "test".into(),
                event: deposit,
            };
            state.apply(&record).unwrap();
        }
        let of = |state: &State| holdings(state, usdt).into_iter().collect::<Vec<_>>();
        assert_eq!(of(&state), [("BTC".to_owned(), "0.5".to_owned())]);
        let held = serde_json::json!({"id": 1, "symbol": "BTC/USDT", "side": "long", "quantity": "0.5", "cost": "1",
            "leverage": 1, "stop": null, "target": null, "trailing": {"active": false, "extreme": null}, "opened_at": Ts(0),
            "fees": "0", "realised": "0", "trades": [], "exit_seq": 0});
        let position: crate::model::Position = serde_json::from_value(held).unwrap();
        state.positions.insert(position.id, position);
        assert_eq!(of(&state), [], "a position is sold by the halt");
    }

    #[test]
    fn drawdown_is_measured_from_the_running_peak() {
        let worst = max_drawdown_pct(&curve(&[100.0, 120.0, 90.0, 110.0, 105.0]));
        assert!((worst - 25.0).abs() < 1e-12);
        assert_eq!(max_drawdown_pct(&curve(&[1.0, 2.0, 3.0])), 0.0);
    }

    #[test]
    fn sharpe_of_known_returns() {
        // Daily returns +1 %, −1 %, +2 %: mean 0.02/3, sample deviation 0.0152752...
        let sharpe = sharpe(&curve(&[100.0, 101.0, 99.99, 101.9898])).unwrap();
        assert!((sharpe - 0.006_666_666_7 / 0.015_275_252_3 * 365f64.sqrt()).abs() < 1e-6, "{sharpe}");
    }

    #[test]
    fn sharpe_needs_days_and_variance() {
        assert_eq!(sharpe(&curve(&[100.0, 101.0])), None);
        assert_eq!(sharpe(&curve(&[100.0, 100.0, 100.0, 100.0])), None);
    }
}
