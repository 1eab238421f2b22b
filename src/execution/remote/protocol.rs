//! The rules of an order at a venue that may not answer: sent once per announced attempt, of unknown fate without a
//! clear answer, settled by queries alone, and sent again only after proof that the venue does not have it.
//!
//! The proof: the venue refuses the order after its deadline, so what it does not list some time after that deadline
//! it will never have. Closed orders are asked for as well as open ones, because a client id is unique only among open
//! orders, and one that filled at once is never among those.

use std::collections::BTreeMap;

use super::{Ask, Call, FillReport, NUMBERS_OF_A_LOOK, NUMBERS_RESERVED, Order, OrderStatus, Round, Submitted, Talks};
use crate::{
    execution::{
        Violation, ledger,
        paper::{self, VenueFill},
        settle::{self, VENUE_DEADLINE_MS},
        venue::VenueAnswer,
        work::{self, Desk, Until},
    },
    model::{CoordinatorState, Decimal, Event, OrderType, Price, PriceTick, Remote, State, Trade, TradeState, Ts},
};

/// After the deadline, until absence is believed, milliseconds of the venue's clock.
pub const GRACE_MS: i64 = 5_000;
/// Between two rounds of queries, milliseconds.
pub const ROUND_GAP_MS: i64 = 5_000;
/// Rounds in a row without the order that prove its absence.
pub const ROUNDS: u32 = 3;
/// Fills are asked for from so long before the order left, milliseconds.
pub const TRADES_MARGIN_MS: i64 = 60_000;
/// An order of unknown fate is told to people after so long, milliseconds.
pub const ALERT_MS: i64 = 60_000;
/// And left to the operator after so long, milliseconds.
pub const MANUAL_MS: i64 = 900_000;
/// Attempts in all when one of them had no clear answer.
pub const MAX_ATTEMPTS_AMBIGUOUS: u32 = 2;
/// Oldest order that is sent again, milliseconds.
pub const RESUBMIT_MAX_AGE_MS: i64 = 120_000;

/// Most the price may have moved since the first attempt for another one: 0.5 %.
fn max_move() -> Decimal {
    Decimal::new(5, 3)
}

/// The next attempt of an order the gate lets go: announced, given up, or waiting for a price.
pub fn depart(state: &State, trade: &Trade, talks: &mut Talks, desk: &Desk<'_>) -> Option<Vec<Event>> {
    let trade_key = trade.key;
    let tick = desk.board.ticks.get(&trade.body.symbol);
    let fresh = tick.filter(|tick| paper::is_fresh(tick, desk.now, work::price_max_age_ms(desk)));
    if let Some(remote) = &trade.remote
        && let Some(reason) = never_again(trade, remote, fresh, desk.now)
    {
        return Some(vec![Event::TradeExpired { trade_key, reason }]);
    }
    let price = fresh?.price;
    if talks.numbers.left(state) < NUMBERS_OF_A_LOOK {
        return Some(vec![talks.numbers.reserve(state)]);
    }
    let attempt = trade.attempt + 1;
    talks.talks.insert(trade_key, super::Talk { cleared: Some(attempt), ..super::Talk::default() });
    let deadline = desk.now.plus_ms(VENUE_DEADLINE_MS);
    Some(vec![Event::TradeSubmitting { trade_key, attempt, deadline, reference: Some(price) }])
}

/// Why an order that was sent before is not sent again.
pub fn never_again(trade: &Trade, remote: &Remote, fresh: Option<&PriceTick>, now: Ts) -> Option<String> {
    let age_ms = now.since_ms(trade.created_at);
    if age_ms > RESUBMIT_MAX_AGE_MS {
        return Some(format!("the order is {} s old, the limit is {} s", age_ms / 1_000, RESUBMIT_MAX_AGE_MS / 1_000));
    }
    if remote.ambiguous > 0 && trade.attempt >= MAX_ATTEMPTS_AMBIGUOUS {
        return Some(format!("{} attempts were made and one of them had no clear answer", trade.attempt));
    }
    let Some(tick) = fresh else { return Some("no fresh price to send it again at".to_owned()) };
    moved_too_far(remote.reference, tick.price)
        .then(|| format!("the price moved from {} to {}, more than 0.5 %", remote.reference, tick.price))
}

fn moved_too_far(reference: Price, price: Price) -> bool {
    (price - reference).abs() > reference * max_move()
}

/// Moves an order on that has left, or may have.
///
/// # Errors
/// The venue reports what the account contradicts.
pub fn advance(
    state: &State,
    trade: &Trade,
    talks: &mut Talks,
    desk: &Desk<'_>,
    until: &mut Until,
) -> Result<Option<Vec<Event>>, Violation> {
    let Some(remote) = &trade.remote else {
        return Err(Violation(format!("trade {} was sent without a note of it", trade.key.short())));
    };
    let Some(settle) = work::settle_desk(desk, trade.body.symbol) else { return Ok(None) };
    if let Some(reason) = unwanted(state, trade, remote, desk.now) {
        return Ok(Some(vec![Event::TradeCancelRequested { trade_key: trade.key, reason }]));
    }
    if let Some(fill) = talks.unbooked(trade, remote) {
        return book(state, trade, &fill, &settle).map(Some);
    }
    let events = match trade.state {
        TradeState::Submitting => submitting(state, trade, remote, talks, &settle)?,
        _ => sent(state, trade, remote, talks, &settle, until)?,
    };
    if !events.is_empty() {
        return Ok(Some(events));
    }
    if talks.numbers.short {
        talks.numbers.short = false;
        return Ok(Some(vec![talks.numbers.reserve(state)]));
    }
    Ok(None)
}

/// Why the venue is to cancel it, told once.
fn unwanted(state: &State, trade: &Trade, remote: &Remote, now: Ts) -> Option<String> {
    if remote.cancel.is_some() || !matches!(trade.state, TradeState::Acked | TradeState::Partial) {
        return None;
    }
    if trade.is_entry() && state.coordinator.state == CoordinatorState::Halted {
        return Some("halted".to_owned());
    }
    paper::is_expired(trade, now).then(|| "not filled within its time".to_owned())
}

/// SUBMITTING: sent once by the process that announced it; found by another one it may have been sent.
fn submitting(
    state: &State,
    trade: &Trade,
    remote: &Remote,
    talks: &mut Talks,
    settle: &settle::Desk<'_>,
) -> Result<Vec<Event>, Violation> {
    let talk = talks.talks.entry(trade.key).or_default();
    if talk.cleared != Some(trade.attempt) {
        let reason = "the process ended while the order was on its way".to_owned();
        return settle::answer(state, trade, VenueAnswer::Unknown { reason }, settle);
    }
    if !talk.sent {
        let sent = talks.ask(state, trade, 1, Call::Submit(Box::new(order(trade, remote))));
        talks.talks.entry(trade.key).or_default().sent = sent;
        return Ok(Vec::new());
    }
    let Some(submitted) = talk.submitted.take() else { return Ok(Vec::new()) };
    let answer = match submitted {
        Submitted::Accepted => VenueAnswer::Resting { expires_at: expiry(trade, settle) },
        Submitted::Refused(reason) => VenueAnswer::Rejected { reason },
        Submitted::NotSent(reason) => VenueAnswer::NotExecuted { reason },
        Submitted::Ambiguous(reason) => VenueAnswer::Unknown { reason },
    };
    settle::answer(state, trade, answer, settle)
}

fn order(trade: &Trade, remote: &Remote) -> Order {
    Order {
        client_id: trade.key.client_order_id(),
        symbol: trade.body.symbol,
        side: trade.body.side,
        quantity: trade.body.quantity,
        order_type: trade.body.order_type,
        time_in_force: trade.body.time_in_force,
        deadline: remote.deadline,
    }
}

fn expiry(trade: &Trade, settle: &settle::Desk<'_>) -> Option<Ts> {
    matches!(trade.body.order_type, OrderType::Limit { .. }).then(|| paper::expiry(trade, settle.execution))
}

/// UNKNOWN, ACKED, PARTIAL: what the last round says, and when the next one is.
fn sent(
    state: &State,
    trade: &Trade,
    remote: &Remote,
    talks: &mut Talks,
    settle: &settle::Desk<'_>,
    until: &mut Until,
) -> Result<Vec<Event>, Violation> {
    let now = settle.now;
    let talk = talks.talks.entry(trade.key).or_default();
    if let Some(round) = talk.round.take() {
        talk.next_look = Some(now.plus_ms(ROUND_GAP_MS));
        let finding = round.map_or(Finding::NotKnown, |round| judge(trade, remote, &round));
        talk.absent = if finding == Finding::Absent { talk.absent + 1 } else { 0 };
        match finding {
            Finding::Contradicted => _ = talk.lost.get_or_insert(now),
            Finding::Open => (talk.lost, talk.alerted) = (None, false),
            // A question nobody answered says nothing either way.
            Finding::Ended | Finding::Absent | Finding::NotKnown => {}
        }
        match finding {
            Finding::Ended => return ended(state, trade, settle),
            Finding::Open if trade.state == TradeState::Unknown => {
                let rest = VenueAnswer::Resting { expires_at: expiry(trade, settle) };
                return settle::answer(state, trade, rest, settle);
            }
            // The query came first: it rests, so the cancel may go.
            Finding::Open if remote.cancel.is_some() => {
                talks.ask(state, trade, 1, Call::Cancel);
                return Ok(Vec::new());
            }
            Finding::Absent if talk.absent >= ROUNDS => {
                let reason = format!("absent in {ROUNDS} rounds after its deadline {}", remote.deadline);
                return Ok(vec![Event::TradeNotExecuted { trade_key: trade.key, reason, retry_at: None }]);
            }
            Finding::Open | Finding::Absent | Finding::Contradicted | Finding::NotKnown => {}
        }
    }
    if let Some(since) = remote.unknown_since.or(talk.lost)
        && let Some(event) = overdue(trade, talk, since, now, until)
    {
        return Ok(vec![event]);
    }
    if remote.cancel.is_some() && !talk.cancel_seen {
        (talk.cancel_seen, talk.next_look) = (true, Some(now));
    }
    let at = match trade.state {
        TradeState::Unknown => {
            let proof = remote.deadline.plus_ms(GRACE_MS + 1);
            talk.next_look.map_or(proof, |next| next.max(proof))
        }
        _ => talk.next_look.unwrap_or(now),
    };
    if talk.busy.is_some() {
        return Ok(Vec::new());
    }
    if at > now {
        until.at(at);
        return Ok(Vec::new());
    }
    talks.ask(state, trade, NUMBERS_OF_A_LOOK, Call::Look { since: remote.sent_at.plus_ms(-TRADES_MARGIN_MS) });
    Ok(Vec::new())
}

/// Alert and MANUAL of an order whose fate stays unknown, or that the venue took and knows nothing of any more.
fn overdue(trade: &Trade, talk: &mut super::Talk, since: Ts, now: Ts, until: &mut Until) -> Option<Event> {
    let (alert, manual) = (since.plus_ms(ALERT_MS), since.plus_ms(MANUAL_MS));
    if now >= manual {
        let minutes = MANUAL_MS / 60_000;
        let reason = match trade.state {
            TradeState::Unknown => format!("its fate could not be found out within {minutes} min"),
            _ => format!("the venue took it, and what it lists has contradicted that for {minutes} min"),
        };
        return Some(Event::TradeManual { trade_key: trade.key, reason });
    }
    until.at(if talk.alerted { manual } else { alert });
    if talk.alerted || now < alert {
        return None;
    }
    talk.alerted = true;
    until.at(manual);
    let facts = BTreeMap::from([
        ("trade_key".to_owned(), trade.key.to_string()),
        ("client_order_id".to_owned(), trade.key.client_order_id().to_string()),
        ("symbol".to_owned(), trade.body.symbol.to_string()),
        ("unknown_since".to_owned(), since.to_string()),
    ]);
    let what = if trade.state == TradeState::Unknown { "order_unknown" } else { "order_lost" };
    Some(Event::Noted { what: what.into(), facts })
}

/// What one round says of an order whose reported fills are all booked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// It rests.
    Open,
    /// It ended before all of it was filled, and every fill is booked.
    Ended,
    /// The venue does not have it and can no longer take it.
    Absent,
    /// The venue answered everything, and it contradicts what it said before or what it says elsewhere.
    Contradicted,
    /// Nothing to go by: too early, or maintenance.
    NotKnown,
}

/// Judges a round. A closed order outweighs an open one: lists are read one after another.
pub fn judge(trade: &Trade, remote: &Remote, round: &Round) -> Finding {
    let client_id = trade.key.client_order_id();
    let own = |list: &'_ [super::OrderReport]| list.iter().find(|order| order.client_id == client_id).cloned();
    match own(&round.closed).or_else(|| own(&round.open)) {
        Some(order) if order.filled > trade.filled => Finding::Contradicted,
        Some(order) => match order.status {
            OrderStatus::Open => Finding::Open,
            OrderStatus::Ended => Finding::Ended,
            OrderStatus::Filled => Finding::Contradicted,
        },
        None if !round.time.online => Finding::NotKnown,
        None if !round.trades.is_empty() || trade.state != TradeState::Unknown => Finding::Contradicted,
        None if round.time.now > remote.deadline.plus_ms(GRACE_MS) => Finding::Absent,
        None => Finding::NotKnown,
    }
}

/// The end of an order the venue closed unfilled in whole or part. From UNKNOWN it was accepted first.
fn ended(state: &State, trade: &Trade, settle: &settle::Desk<'_>) -> Result<Vec<Event>, Violation> {
    let mut events = Vec::new();
    if trade.state == TradeState::Unknown {
        let rest = VenueAnswer::Resting { expires_at: expiry(trade, settle) };
        events = settle::answer(state, trade, rest, settle)?;
    }
    let wanted = trade.remote.as_ref().and_then(|remote| remote.cancel.clone());
    let reason = wanted.unwrap_or_else(|| "the venue ended it".to_owned());
    events.push(Event::TradeCancelled { trade_key: trade.key, reason });
    Ok(events)
}

/// A fill as a fact of the account, under the venue's id.
fn book(state: &State, trade: &Trade, fill: &FillReport, settle: &settle::Desk<'_>) -> Result<Vec<Event>, Violation> {
    let value = ledger::value_of(fill.quantity, fill.price)
        .ok_or_else(|| Violation(format!("the venue's fill {} is too large", fill.id)))?;
    let fill = VenueFill {
        quantity: fill.quantity,
        price: fill.price,
        value,
        fee: fill.fee,
        liquidity: fill.liquidity,
        price_id: format!("venue:{}", fill.id),
        evidence: None,
        venue_fill: Some(fill.id.as_str().into()),
    };
    settle::answer(state, trade, VenueAnswer::Filled(fill), settle)
}

impl Talks {
    /// The next reported fill that is not booked; those of the stream first, because they come first.
    fn unbooked(&self, trade: &Trade, remote: &Remote) -> Option<FillReport> {
        let client_id = trade.key.client_order_id();
        let streamed = self.streamed.get(&client_id).into_iter().flatten();
        let round = self.talks.get(&trade.key).and_then(|talk| talk.round.as_ref()?.as_ref().ok());
        let listed = round.into_iter().flat_map(|round| &round.trades).filter(|fill| fill.client_id == client_id);
        streamed.chain(listed).find(|fill| !remote.fills.contains(&fill.id)).cloned()
    }

    /// Puts a call out; false when request numbers have to be reserved first.
    fn ask(&mut self, state: &State, trade: &Trade, numbers: u64, call: Call) -> bool {
        let Some(number) = self.numbers.take(state, numbers) else { return false };
        self.calls.push(Ask { key: trade.key, attempt: trade.attempt, number, call });
        self.talks.entry(trade.key).or_default().busy = Some(trade.attempt);
        true
    }

    /// Forgets what belongs to trades that are over.
    pub fn forget_ended(&mut self, state: &State) {
        self.talks.retain(|key, _| state.trades.contains_key(key));
        if !self.streamed.is_empty() {
            let living: Vec<uuid::Uuid> = state.trades.keys().map(|key| key.client_order_id()).collect();
            self.streamed.retain(|id, _| living.contains(id));
        }
    }
}

impl super::Numbers {
    fn left(&mut self, state: &State) -> u64 {
        if let Some((from, end)) = self.asked
            && state.meta.nonces == end
        {
            (self.next, self.end, self.asked) = (from, end, None);
        }
        self.end - self.next
    }

    fn take(&mut self, state: &State, count: u64) -> Option<u64> {
        if self.left(state) < count {
            self.short = true;
            return None;
        }
        let first = self.next;
        self.next += count;
        Some(first)
    }

    /// What is left of the block before is given up: gaps do no harm, a number used twice does.
    fn reserve(&mut self, state: &State) -> Event {
        let until = state.meta.nonces + NUMBERS_RESERVED;
        self.asked = Some((state.meta.nonces, until));
        Event::NoncesReserved { until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        execution::{
            remote::{OrderReport, VenueTime},
            testkit::*,
        },
        model::TradeKey,
    };

    /// An order of unknown fate, sent at `T0`.
    fn unknown() -> (Book, TradeKey) {
        let mut book = Book::usdt(dec!(10_000));
        let order = book.entry_order(btc(), dec!(1200), dec!(40_000));
        let rules = rules()[&btc()];
        let store = book.state.meta.store;
        let trade = crate::execution::intent::entry(store, &order, &rules, &book.execution, book.now).unwrap();
        let trade_key = trade.key;
        let deadline = T0.plus_ms(VENUE_DEADLINE_MS);
        book.commit(vec![
            Event::TradeIntent { trade: Box::new(trade) },
            Event::TradeSubmitting { trade_key, attempt: 1, deadline, reference: Some(dec!(40_000)) },
            Event::TradeUnknown { trade_key, reason: "no answer".into() },
        ]);
        (book, trade_key)
    }

    fn round(at_ms: i64) -> Round {
        let time = VenueTime { now: T0.plus_ms(at_ms), online: true };
        Round { time, open: Vec::new(), closed: Vec::new(), trades: Vec::new() }
    }

    #[test]
    fn c5_absence_counts_only_past_the_deadline_of_a_venue_that_is_online() {
        let (book, key) = unknown();
        let trade = &book.state.trades[&key];
        let remote = trade.remote.as_ref().unwrap();
        assert_eq!(judge(trade, remote, &round(15_000)), Finding::NotKnown);
        assert_eq!(judge(trade, remote, &round(15_001)), Finding::Absent);
        let mut offline = round(15_001);
        offline.time.online = false;
        assert_eq!(judge(trade, remote, &offline), Finding::NotKnown);
    }

    #[test]
    fn c5_a_closed_order_outweighs_an_open_one_and_waits_for_its_fills() {
        let (book, key) = unknown();
        let trade = &book.state.trades[&key];
        let remote = trade.remote.as_ref().unwrap();
        let report = |status, filled| OrderReport { client_id: key.client_order_id(), status, filled };
        let mut seen = round(20_000);
        seen.open = vec![report(OrderStatus::Open, dec!(0))];
        assert_eq!(judge(trade, remote, &seen), Finding::Open);
        seen.closed = vec![report(OrderStatus::Ended, dec!(0))];
        assert_eq!(judge(trade, remote, &seen), Finding::Ended);
        seen.closed = vec![report(OrderStatus::Ended, dec!(0.01))];
        assert_eq!(judge(trade, remote, &seen), Finding::Contradicted);
        let other = OrderReport { client_id: uuid::Uuid::nil(), ..report(OrderStatus::Open, dec!(0)) };
        assert_eq!(judge(trade, remote, &Round { open: vec![other], ..round(20_000) }), Finding::Absent);
    }

    #[test]
    fn c5_sent_again_only_while_young_near_its_price_and_for_the_second_time() {
        let (book, key) = unknown();
        let trade = book.state.trades[&key].clone();
        let remote = trade.remote.clone().unwrap();
        let at = |price| tick(btc(), price, T0);
        let reason = |price, ms| never_again(&trade, &remote, Some(&at(price)), T0.plus_ms(ms));
        for price in [dec!(39_800), dec!(40_000), dec!(40_200)] {
            assert_eq!(reason(price, 120_000), None, "{price}");
        }
        assert!(reason(dec!(40_200.01), 0).unwrap().contains("more than 0.5 %"));
        assert!(reason(dec!(39_799.99), 0).is_some());
        assert!(reason(dec!(40_000), 120_001).unwrap().contains("120 s old"));
        assert!(never_again(&trade, &remote, None, T0).unwrap().contains("no fresh price"));
        let second = Trade { attempt: 2, ..trade.clone() };
        assert!(never_again(&second, &remote, Some(&at(dec!(40_000))), T0).unwrap().contains("2 attempts"));
        let clear = Remote { ambiguous: 0, ..remote };
        assert_eq!(never_again(&second, &clear, Some(&at(dec!(40_000))), T0), None, "definite failures have their own");
    }

    #[test]
    fn k14_every_attempt_goes_by_the_same_client_id() {
        let (book, key) = unknown();
        let trade = book.state.trades[&key].clone();
        let remote = trade.remote.clone().unwrap();
        for attempt in 1..=2 {
            let sent = order(&Trade { attempt, ..trade.clone() }, &remote);
            assert_eq!(sent.client_id, key.client_order_id(), "attempt {attempt}");
        }
    }

    #[test]
    fn k22_apply_refuses_a_venue_fill_it_has_booked() {
        let (mut book, key) = unknown();
        let fill = |book: &Book, id: &str| {
            let fill = FillReport {
                id: id.into(),
                client_id: key.client_order_id(),
                quantity: dec!(0.01),
                price: dec!(40_000),
                fee: dec!(1),
                liquidity: crate::model::Liquidity::Taker,
            };
            super::book(&book.state, &book.state.trades[&key], &fill, &book.desk()).unwrap()
        };
        let first = fill(&book, "F1");
        book.commit(first);
        assert_eq!(book.trade_state(key), TradeState::Partial);
        let again = fill(&book, "F1");
        assert!(book.try_commit(again).unwrap_err().contains("booked already"));
    }
}
