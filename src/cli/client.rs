//! Commands that talk to the running process through its HTTP surface and token file.

use std::{path::Path, time::Duration};

use anyhow::{Result, anyhow, bail};
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use reqwest::blocking::{Client, Response};

use crate::{
    agents::leaderboard::{BoardRow, ModelCosts},
    api::auth,
    coordinator::status::{BudgetStatus, FeedLine, NotificationStatus, OpinionStatus, Status},
    model::{Command, CommandAnswer},
};

/// The process must answer within.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where the running process answers and which token it takes.
pub struct Peer {
    base: String,
    token: String,
    client: Client,
}

impl Peer {
    /// Reads the token file of the store.
    ///
    /// # Errors
    /// When the token file cannot be read.
    pub fn new(listen: &str, token_file: &Path) -> Result<Peer> {
        let client = Client::builder().timeout(PATIENCE).no_proxy().build()?;
        Ok(Peer { base: format!("http://{listen}"), token: auth::read(token_file)?, client })
    }

    /// Asks for the status.
    ///
    /// # Errors
    /// When nobody answers or the answer is an error.
    pub fn status(&self) -> Result<Status> {
        let answer = self.client.get(format!("{}/v1/status", self.base)).bearer_auth(&self.token).send();
        Ok(self.checked(answer)?.json()?)
    }

    /// Sends a command under a fresh idempotency key.
    ///
    /// # Errors
    /// When nobody answers or the request itself is refused; a refused command is an answer.
    pub fn command(&self, command: &Command) -> Result<CommandAnswer> {
        let answer = self
            .client
            .post(format!("{}/v1/commands", self.base))
            .bearer_auth(&self.token)
            .header("X-Triplegain", "1")
            .header("Idempotency-Key", fresh_key())
            .json(command)
            .send();
        let response = answer.map_err(|error| self.no_answer(&error))?;
        let conflict = response.status() == reqwest::StatusCode::CONFLICT;
        let response = if conflict { response } else { self.checked(Ok(response))? };
        Ok(response.json()?)
    }

    fn no_answer(&self, error: &reqwest::Error) -> anyhow::Error {
        if error.is_timeout() {
            let seconds = PATIENCE.as_secs();
            return anyhow!("{} did not answer within {seconds} s; its log says what it is doing", self.base);
        }
        if error.is_connect() {
            return anyhow!(
                "nobody answers at {}; start the program with `triplegain run`, or name the one that runs with --listen ADDR",
                self.base
            );
        }
        // Somebody is there and speaks another language, or broke off.
        anyhow!("no usable answer from {}: is it this program? ({error})", self.base)
    }

    fn checked(&self, answer: reqwest::Result<Response>) -> Result<Response> {
        let response = answer.map_err(|error| self.no_answer(&error))?;
        let status = response.status();
        if !status.is_success() {
            bail!("{} answered {status}: {}", self.base, response.text().unwrap_or_default());
        }
        Ok(response)
    }
}

/// Unique per call: process, wall time and a counter are enough for a key that lives 24 h.
fn fresh_key() -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("cli-{}-{nanos}", std::process::id())
}

/// The status for a terminal.
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let why =
        if status.pause_reasons.is_empty() { String::new() } else { format!(" ({})", status.pause_reasons.join(", ")) };
    line(format!("{}{why}, {}, level {}, boot {}", status.state, status.mode, status.degradation, status.boot_epoch));
    if let Some(id) = &status.halt_id {
        line(format!("HALTED as {id}: {}", status.halt_reason.as_deref().unwrap_or("no reason given")));
    }
    if !status.given_up.is_empty() {
        let gone = status.given_up.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        line(format!("given up until the next start after too many panics: {gone}"));
    }
    if !status.latched_breakers.is_empty() {
        line(format!("latched, refusing entries: {}", status.latched_breakers.join(", ")));
    }
    line(format!("program time {} at {}x, up {} s", status.now, status.speed, status.uptime_seconds));
    line(format!(
        "recovered: {} records, {} interrupted runs, {} resting orders, {} positions, {} planned legs",
        status.recovered.records,
        status.recovered.interrupted_runs,
        status.recovered.resting_orders,
        status.recovered.positions,
        status.recovered.planned_legs
    ));
    let equity = status.account.equity.map_or("unknown (a price is missing)".to_owned(), |e| format!("{e:.2}"));
    line(format!("equity {equity}; journal seq {} hash {}", status.journal.seq, status.journal.hash));
    line(format!(
        "start lateness ms p50 {:.1} p99 {:.1} max {:.1}; missed slots {}",
        status.lateness_ms.p50, status.lateness_ms.p99, status.lateness_ms.max, status.missed_slots
    ));
    let mut balances = table(["asset", "free", "locked"]);
    for (asset, balance) in &status.account.balances {
        balances.add_row([asset.clone(), balance.free.to_string(), balance.locked.to_string()]);
    }
    if let Some(offset_ms) = status.clock.offset_ms {
        line(format!("the venue's clock is {offset_ms} ms ahead of this machine's (± 500 ms)"));
    }
    if let Some(link) = status.feeds.iter().find_map(|feed| feed.link.as_ref()).filter(|link| link.system != "online") {
        line(format!("the venue's engine is `{}`", link.system));
    }
    let feeds = feed_table(&status.feeds);
    let mut tasks =
        table(["task", "symbol", "running", "last success", "next due", "last outcome", "last skip", "opinion by"]);
    for task in &status.tasks {
        tasks.add_row([
            task.task.to_string(),
            task.symbol.to_string(),
            yes_no(task.running),
            task.last_success_at.map_or("-".to_owned(), |at| at.to_string()),
            task.next_due_at.map_or("-".to_owned(), |at| at.to_string()),
            task.last_outcome.clone().unwrap_or_else(|| "-".to_owned()),
            task.last_skip_reason.clone().unwrap_or_else(|| "-".to_owned()),
            task.opinion.as_ref().map_or("-".to_owned(), opinion_words),
        ]);
    }
    if !status.skips.is_empty() {
        let skips: Vec<String> = status.skips.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        line(format!("skipped slots: {}", skips.join(", ")));
    }
    if let Some(budget) = &status.budget {
        line(budget_words(budget));
    }
    if let Some(notifications) = &status.notifications {
        line(notification_words(notifications));
    }
    let mut shown = vec![balances, feeds, tasks];
    if !status.voters.is_empty() {
        shown.push(voter_table(&status.voters));
    }
    if !status.positions.is_empty() {
        let mut positions = table(["position", "symbol", "quantity", "entry", "stop", "target", "unrealised"]);
        for held in &status.positions {
            positions.add_row([
                held.id.clone(),
                held.symbol.to_string(),
                held.quantity.to_string(),
                held.entry.round_dp(8).to_string(),
                or_dash(held.stop),
                or_dash(held.target),
                held.unrealised.map_or("-".to_owned(), |gain| format!("{gain:.4}")),
            ]);
        }
        shown.push(positions);
    }
    if !status.orders.is_empty() {
        let mut orders = table(["order", "kind", "symbol", "side", "quantity", "filled", "limit", "state"]);
        for order in &status.orders {
            let short: String = order.trade_key.chars().take(12).collect();
            orders.add_row([
                short,
                order.kind.clone(),
                order.symbol.to_string(),
                order.side.clone(),
                order.quantity.to_string(),
                order.filled.to_string(),
                or_dash(order.limit),
                order.state.clone(),
            ]);
        }
        shown.push(orders);
    }
    if !status.scheduled.is_empty() {
        let mut legs = table(["leg", "batch", "symbol", "side", "amount", "due"]);
        for leg in &status.scheduled {
            let short: String = leg.trade_key.chars().take(12).collect();
            let cells = [leg.batch.to_string(), leg.symbol.to_string(), leg.side.clone(), leg.amount.to_string()];
            legs.add_row([vec![short], cells.to_vec(), vec![leg.due_at.to_string()]].concat());
        }
        if status.scheduled.iter().any(|leg| leg.asks_operator) {
            line(
                "a late plan waits for you: `run-scheduled LEG` lets it go on, `cancel-scheduled LEG` drops it"
                    .to_owned(),
            );
        }
        shown.push(legs);
    }
    for table in shown {
        line(table.to_string());
    }
    out
}

/// What models have cost today, and what the rest of the day does not pay.
fn budget_words(budget: &BudgetStatus) -> String {
    let BudgetStatus { spent_usd, reserved_usd, limit_usd, opinions_spent_usd, opinions_limit_usd, .. } = budget;
    let mut words = format!(
        "models today: {spent_usd} of {limit_usd} USD ({reserved_usd} held), opinions {opinions_spent_usd} of \
         {opinions_limit_usd}"
    );
    if budget.warned {
        words.push_str("; warned");
    }
    if !budget.exhausted.is_empty() {
        words.push_str(&format!("; exhausted: {}", budget.exhausted.join(", ")));
    }
    if !budget.unpaid.is_empty() {
        let unpaid: Vec<&str> = budget.unpaid.iter().map(|task| task.name()).collect();
        words.push_str(&format!("; without a model until midnight UTC: {}", unpaid.join(", ")));
    }
    words
}

/// What became of notifications.
fn notification_words(notifications: &NotificationStatus) -> String {
    let NotificationStatus { sent, dropped, waiting, failing } = notifications;
    let failing = failing.as_ref().map(|why| format!("; the newest was not taken: {why}")).unwrap_or_default();
    format!("notifications: {sent} sent, {dropped} dropped, {waiting} waiting{failing}")
}

/// Who gave an opinion, and that it is the rules' in place of a model's.
fn opinion_words(opinion: &OpinionStatus) -> String {
    match (opinion.degraded, opinion.warnings.join(", ")) {
        (false, _) => opinion.path.clone(),
        (true, why) if why.is_empty() => format!("{} (degraded)", opinion.path),
        (true, why) => format!("{} (degraded: {why})", opinion.path),
    }
}

/// Feeds, with what the connection to a live venue shows of itself.
fn feed_table(feeds: &[FeedLine]) -> Table {
    let live = feeds.iter().any(|feed| feed.link.is_some());
    let mut header = vec!["feed", "price", "age s", "spread bp", "healthy", "gaps", "withheld"];
    if live {
        header.extend(["socket", "data age s", "reconnects", "silences", "last gap", "unfilled"]);
    }
    let mut shown = Table::new();
    shown.load_preset(UTF8_BORDERS_ONLY).set_header(header);
    let seconds = |age: Option<f64>| age.map_or("-".to_owned(), |age| format!("{age:.1}"));
    for feed in feeds {
        let price = feed.price.map_or("-".to_owned(), |price| price.to_string());
        let age = seconds(feed.data_age_seconds);
        let spread = feed.spread_bps.map_or("-".to_owned(), |spread| format!("{spread:.1}"));
        let frozen = feed.link.as_ref().is_some_and(|link| link.candles_frozen);
        let healthy = match (frozen, feed.silent) {
            (true, _) => "no candles: no entries".to_owned(),
            (false, true) => "silent: no entries".to_owned(),
            (false, false) => yes_no(feed.healthy),
        };
        let mut row = vec![feed.symbol.to_string(), price, age, spread, healthy, feed.gaps.to_string()];
        row.push(if feed.in_doubt { format!("{} (in doubt)", feed.withheld) } else { feed.withheld.to_string() });
        if let Some(link) = &feed.link {
            let socket = match (&link.refused, link.connected, link.subscribed) {
                (Some(words), ..) => format!("refused: {words}"),
                (None, false, _) => "down".to_owned(),
                (None, true, false) => "up, not subscribed".to_owned(),
                (None, true, true) => "up".to_owned(),
            };
            row.extend([socket, seconds(link.last_message_age_seconds), link.reconnects.to_string()]);
            row.push(link.silences.to_string());
            row.push(link.last_gap.map_or("-".to_owned(), |(from, to)| format!("{from} to {to}")));
            row.push(link.unfilled_candles.to_string());
        }
        shown.add_row(row);
    }
    shown
}

/// The leaderboard, best first; what asking took and cost when some voter is a model.
fn voter_table(rows: &[BoardRow]) -> Table {
    let has_models = rows.iter().any(|row| row.models.is_some());
    let mut header = vec!["voter", "votes", "abstained", "failed", "right", "marked", "mean bp", "confidence"];
    if has_models {
        header.extend(["calls", "mean ms", "median ms", "USD"]);
    }
    let mut shown = Table::new();
    shown.load_preset(UTF8_BORDERS_ONLY).set_header(header);
    for row in rows {
        let kinds: Vec<String> = row.failures_by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let failed = if kinds.is_empty() {
            row.failures.to_string()
        } else {
            format!("{} ({})", row.failures, kinds.join(", "))
        };
        let right = row.share_correct.map_or("-".to_owned(), |share| format!("{:.1} %", share.as_f64() * 100.0));
        let mut cells = vec![row.voter.clone(), row.votes.to_string(), row.abstentions.to_string(), failed, right];
        cells.extend([
            row.marked.to_string(),
            or_dash(row.mean_signed_return_bp.map(|mean| mean.round_dp(2))),
            row.mean_confidence.map_or("-".to_owned(), |mean| mean.to_string()),
        ]);
        if has_models {
            cells.extend(ModelCosts::cells(row.models.as_ref()));
        }
        shown.add_row(cells);
    }
    shown
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header(header);
    table
}

fn yes_no(value: bool) -> String {
    if value { "yes".to_owned() } else { "no".to_owned() }
}

fn or_dash(value: Option<rust_decimal::Decimal>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskName;

    #[test]
    fn the_leaderboard_shows_failures_by_kind_and_what_models_took_and_cost() {
        let by_rules = serde_json::json!({
            "voter": "ema_cross", "votes": 5, "abstentions": 1, "failures": 0, "marked": 4, "correct": 3, "unmarked": 0,
            "share_correct": 0.75, "mean_signed_return_bp": "12.345", "mean_confidence": 0.65, "calibration": [],
        });
        let by_rules: BoardRow = serde_json::from_value(by_rules).unwrap();
        assert!(!voter_table(std::slice::from_ref(&by_rules)).to_string().contains("USD"));
        let costs = ModelCosts {
            calls: 7,
            unasked: 0,
            cost_usd: crate::model::Money::new(210, 4),
            mean_latency_ms: 2_100,
            p50_latency_ms: 1_900,
        };
        let thinker = BoardRow {
            voter: "thinker".to_owned(),
            models: Some(costs),
            failures: 2,
            failures_by_kind: [("timeout".to_owned(), 2)].into(),
            ..by_rules.clone()
        };
        let table = voter_table(&[by_rules, thinker]).to_string();
        let row = |name: &str| table.lines().find(|line| line.contains(name)).unwrap().to_owned();
        let parts = ["2 (timeout 2)", "75.0 %", "12.34", "0.65", "2100", "1900", "0.021"];
        assert!(parts.iter().all(|part| row("thinker").contains(part)), "{table}");
        assert_eq!(row("ema_cross").matches(" - ").count(), 4, "{table}");
    }

    #[test]
    fn the_budget_and_degraded_opinions_are_told_in_words() {
        let usd = |cents| crate::model::Money::new(cents, 2);
        let mut budget = BudgetStatus {
            spent_usd: usd(295),
            reserved_usd: usd(5),
            limit_usd: usd(500),
            opinions_spent_usd: usd(290),
            opinions_limit_usd: usd(300),
            ..BudgetStatus::default()
        };
        assert_eq!(budget_words(&budget), "models today: 2.95 of 5.00 USD (0.05 held), opinions 2.90 of 3.00");
        budget.exhausted = vec!["opinions".to_owned()];
        budget.unpaid = vec![TaskName::RegimeDetection, TaskName::SentimentAnalysis];
        let end = "; exhausted: opinions; without a model until midnight UTC: regime_detection, sentiment_analysis";
        assert!(budget_words(&budget).ends_with(end), "{}", budget_words(&budget));
        let mut opinion = OpinionStatus { path: "p/m".to_owned(), degraded: false, warnings: vec![] };
        assert_eq!(opinion_words(&opinion), "p/m");
        (opinion.path, opinion.degraded, opinion.warnings) =
            ("rules".to_owned(), true, vec!["model: budget".to_owned()]);
        assert_eq!(opinion_words(&opinion), "rules (degraded: model: budget)");
    }
}
