//! Builds the status: scheduler, state, prices and feeds of one moment.

use actix::{Handler, MessageResult, ResponseFuture};

use super::{
    Coordinator,
    announce::Notifier,
    messages::{CheckedStats, GetStats, GetStatus},
    schedule::Stats,
    status::{
        AccountStatus, BalanceStatus, ClockStatus, FeedLine, FeedLink, JournalHead, Lateness, NotificationStatus,
        OrderStatus, PositionStatus, ScheduledStatus, Status, TaskStatus,
    },
};
use crate::{
    agents::leaderboard,
    execution::legs,
    llm::actor::ReadModels,
    market::{FeedStatus, actor::ReadFeeds, feed::kraken::view::LinkView},
    model::{Clock, OrderType, PlanState, PositionSide, SkipReason, State, Symbol, TradeState, Ts},
    risk::{AccountMode, board::Board, view},
    runtime::webhook::Counts,
    store::JournalHead as AskHead,
};

impl Handler<GetStatus> for Coordinator {
    type Result = ResponseFuture<Status>;

    fn handle(&mut self, _: GetStatus, _: &mut actix::Context<Self>) -> Self::Result {
        let mut status = self.status();
        let feeds = self.links.market.send(ReadFeeds);
        let head = self.links.store.send(AskHead);
        let prices = self.prices.clone();
        let (link, now) = (self.time.link(), self.clock.now());
        let models = self.models.as_ref().map(|models| models.send(ReadModels));
        Box::pin(async move {
            let feeds = feeds.await.unwrap_or_default();
            status.feeds = feeds
                .iter()
                .map(|feed| FeedLine {
                    link: link.as_ref().map(|l| feed_link(l, feed.symbol, now)),
                    ..feed_line(feed, &prices.read())
                })
                .collect();
            if let Ok(head) = head.await {
                status.journal = JournalHead { seq: head.seq, hash: head.hash };
            }
            if let Some(models) = models {
                status.models = models.await.unwrap_or_default();
            }
            status
        })
    }
}

impl Coordinator {
    fn status(&self) -> Status {
        let now = self.clock.now();
        let state = self.view.read();
        let board = self.prices.read();
        let stats = self.scheduler.stats();
        Status {
            state: state.coordinator.state.name().to_owned(),
            pause_reasons: state.coordinator.pause_reasons.iter().cloned().collect(),
            halt_id: state.coordinator.halt.as_ref().map(|halt| halt.id.clone()),
            halt_reason: state.coordinator.halt.as_ref().map(|halt| halt.reason.clone()),
            degradation: self.level().name().to_owned(),
            given_up: self.given_up.iter().map(|actor| (*actor).to_owned()).collect(),
            latched_breakers: state.risk.latched.keys().map(|kind| kind.name().to_owned()).collect(),
            mode: self.settings.mode.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_epoch: state.meta.epoch,
            now,
            speed: self.clock.speed(),
            uptime_seconds: self.started_real.elapsed().as_secs(),
            recovered: self.recovered.clone(),
            clock: ClockStatus { offset_ms: self.time.link().and_then(|link| link.offset_ms(now)) },
            tasks: self.tasks(&stats),
            lateness_ms: Lateness {
                p50: stats.totals.start_lateness.quantile(0.50),
                p99: stats.totals.start_lateness.quantile(0.99),
                max: stats.totals.start_lateness.max_ms as f64,
            },
            missed_slots: stats.sums.missed,
            skips: SkipReason::ALL
                .into_iter()
                .filter(|reason| stats.skipped(*reason) > 0)
                .map(|reason| (reason.name().to_owned(), stats.skipped(reason)))
                .collect(),
            budget: self.budget_status(&state.models),
            notifications: self.time.outside.notifier.as_ref().map(notifications),
            account: account(&state, &board),
            positions: positions(&state, &board),
            orders: orders(&state),
            scheduled: self.scheduled(&state, now),
            feeds: Vec::new(),
            journal: JournalHead::default(),
            models: Vec::new(),
            voters: leaderboard::board(&state.leaderboard),
            totals: [
                ("signals", state.totals.signals),
                ("orders", state.totals.orders),
                ("fills", state.totals.fills),
                ("closed_trades", state.totals.closed_trades),
                ("winning_trades", state.totals.winning_trades),
            ]
            .map(|(name, count)| (name.to_owned(), count))
            .into(),
        }
    }

    fn scheduled(&self, state: &State, now: Ts) -> Vec<ScheduledStatus> {
        let mut lines = Vec::new();
        for plan in state.plans.values().filter(|plan| plan.state == PlanState::Active) {
            let judged = legs::step(plan, now, &self.settings.legs, legs::Gate::Open);
            let asks = matches!(judged, legs::LegAction::AskOperator(_));
            let planned = plan.legs.iter().filter(|leg| leg.state == TradeState::Planned);
            lines.extend(planned.map(|leg| ScheduledStatus {
                plan: plan.id.to_string(),
                trade_key: leg.key.to_string(),
                batch: leg.batch,
                symbol: leg.symbol,
                side: leg.side.name().to_owned(),
                amount: leg.amount,
                due_at: leg.due_at,
                asks_operator: asks && leg.due_at <= now,
            }));
        }
        lines
    }

    fn tasks(&self, stats: &Stats) -> Vec<TaskStatus> {
        let task = |key: &super::schedule::KeyStats| TaskStatus {
            task: key.key.task,
            symbol: key.key.symbol,
            running: key.running,
            last_success_at: key.last_succeeded,
            last_outcome: self.last_outcome.get(&key.key).map(|word| (*word).to_owned()),
            next_due_at: key.next_due,
            last_skip_reason: self.last_skip.get(&key.key).map(|reason| reason.name().to_owned()),
            opinion: self.opinion_status(key.key),
        };
        stats.keys.iter().map(task).collect()
    }
}

fn notifications(notifier: &Notifier) -> NotificationStatus {
    let Counts { sent, dropped, waiting, failing } = notifier.hook.counts();
    NotificationStatus { sent, dropped, waiting, failing }
}

fn account(state: &State, board: &Board) -> AccountStatus {
    let balance = |asset| BalanceStatus { free: state.account.free(asset), locked: state.account.locked(asset) };
    AccountStatus {
        equity: view::equity(state, &board.book, AccountMode::Spot).map(|(equity, _)| equity.normalize()),
        balances: state.account.ledger.keys().map(|asset| (asset.to_string(), balance(*asset))).collect(),
    }
}

fn positions(state: &State, board: &Board) -> Vec<PositionStatus> {
    let line = |held: &crate::model::Position| PositionStatus {
        id: held.id.to_string(),
        symbol: held.symbol,
        side: if held.side == PositionSide::Long { "long" } else { "short" }.to_owned(),
        quantity: held.quantity,
        entry: held.average_entry(),
        stop: held.stop,
        target: held.target,
        unrealised: board.book.get(held.symbol).map(|price| held.unrealised(price.price)),
        opened_at: held.opened_at,
    };
    state.positions.values().map(line).collect()
}

fn orders(state: &State) -> Vec<OrderStatus> {
    let line = |trade: &crate::model::Trade| OrderStatus {
        trade_key: trade.key.to_string(),
        kind: trade.kind.name().to_owned(),
        symbol: trade.body.symbol,
        side: trade.body.side.name().to_owned(),
        quantity: trade.body.quantity,
        filled: trade.filled,
        limit: match trade.body.order_type {
            OrderType::Limit { limit } => Some(limit),
            OrderType::Market => None,
        },
        state: format!("{:?}", trade.state).to_lowercase(),
        created_at: trade.created_at,
        expires_at: trade.expires_at,
    };
    state.trades.values().map(line).collect()
}

fn feed_line(feed: &FeedStatus, board: &Board) -> FeedLine {
    FeedLine {
        symbol: feed.symbol,
        data_age_seconds: feed.age_ms.map(|ms| ms as f64 / 1_000.0),
        healthy: feed.healthy,
        price: board.book.get(feed.symbol).map(|price| price.price),
        gaps: feed.counts.gaps,
        withheld: feed.counts.withheld,
        in_doubt: feed.in_doubt,
        silent: board.silent.contains(&feed.symbol),
        spread_bps: feed.spread_bps,
        link: None,
    }
}

fn feed_link(link: &LinkView, symbol: Symbol, now: Ts) -> FeedLink {
    let line = link.symbols.get(&symbol).cloned().unwrap_or_default();
    FeedLink {
        connected: link.connected,
        subscribed: line.subscribed,
        refused: line.refused,
        last_message_age_seconds: line.last_message_at.map(|at| now.since_ms(at) as f64 / 1_000.0),
        reconnects: link.reconnects,
        frames: link.frames,
        odd_frames: link.odd_frames,
        late_rows: link.late_rows,
        future_rows: link.future_rows,
        broken_books: line.broken_books,
        silences: line.silences,
        candles_frozen: line.candles_frozen,
        candle_freezes: line.candle_freezes,
        unfilled_candles: line.unfilled_candles,
        last_gap: line.last_gap,
        system: link.system.clone(),
    }
}

impl Handler<GetStats> for Coordinator {
    type Result = MessageResult<GetStats>;

    fn handle(&mut self, _: GetStats, _: &mut actix::Context<Self>) -> Self::Result {
        MessageResult(CheckedStats { stats: self.scheduler.stats(), checked: self.scheduler.check() })
    }
}
