//! Rounds of questions to the venue, and what the program's own judge makes of them.

use triplegain::{
    execution::remote::{
        FillReport, OrderReport, OrderStatus, Round, VenueTime,
        protocol::{self, Finding, GRACE_MS},
    },
    model::{Decimal, Liquidity, Remote, TradeState},
};

use super::{
    At, CLOSED, HALF, Lane, OPEN, Protocol, Search,
    contents::{NOW, Step, Stored},
};

/// What a round of questions found: the order, whether the list of fills is as new as that of orders, and whether the
/// deadline of the newest attempt was over before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Look {
    order: u8,
    fills: bool,
    late: bool,
}

/// The rounds of questions possible now: fills may be listed later than the order they belong to. One asked before the
/// deadline is over says nothing new of an order that is not there; `all` asks for it nevertheless.
pub fn look(side: Lane, stored: Stored, protocol: Protocol, all: bool) -> impl Iterator<Item = At> {
    // A mutation: nobody waits for the deadline.
    let late = !protocol.deadline || u32::from(side.over) >= stored.attempt;
    let lists: &[bool] = if matches!(side.order, HALF | CLOSED) { &[true, false] } else { &[true] };
    let lists: &[bool] = if all || late || stored.state != TradeState::Unknown { lists } else { &[] };
    lists.iter().map(move |fills| At::Looked(Look { order: side.order, fills: *fills, late }))
}

impl Search {
    /// The next commit after a round of questions: listed fills first, then what the program's judge makes of the rest.
    pub fn judged(
        &mut self,
        durable: u16,
        trade: usize,
        side: Lane,
        stored: Stored,
        look: Look,
    ) -> (Option<Step>, Lane) {
        let (rest, stay) = (Lane { at: At::Rest, ..side }, side);
        let lives = matches!(stored.state, TradeState::Unknown | TradeState::Acked | TradeState::Partial);
        if lives && look.fills && stored.fills < look.order.saturating_sub(OPEN) {
            return (Some(Step::Fill), stay);
        }
        let finding = if lives { self.finding(durable, trade, look) } else { None };
        match finding {
            // One round stands for the three in a row the program asks for.
            Some(Finding::Absent) => (Some(Step::NotExecuted), rest),
            Some(Finding::Open) if stored.state == TradeState::Unknown => (Some(Step::Acked), rest),
            _ => (None, rest),
        }
    }

    /// What `protocol::judge` says of the round.
    fn finding(&mut self, durable: u16, trade: usize, look: Look) -> Option<Finding> {
        if let Some(known) = self.findings.get(&(durable, trade, look)) {
            return *known;
        }
        let key = self.contents.keys[trade];
        let client_id = key.client_order_id();
        let half = Decimal::from(50);
        let parts = look.order.saturating_sub(OPEN);
        let status = if look.order == CLOSED { OrderStatus::Filled } else { OrderStatus::Open };
        let report = OrderReport { client_id, status, filled: half * Decimal::from(parts) };
        let listed = |wanted: bool| if wanted { vec![report.clone()] } else { Vec::new() };
        let fill = |number: u8| FillReport {
            id: format!("F{number}"),
            client_id,
            quantity: half,
            price: Decimal::from(10),
            fee: Decimal::ZERO,
            liquidity: Liquidity::Maker,
        };
        let past = if look.late { 1 } else { 0 };
        let round = Round {
            time: VenueTime { now: NOW.plus_ms(GRACE_MS + past), online: true },
            open: listed(matches!(look.order, OPEN | HALF)),
            closed: listed(look.order == CLOSED && self.protocol.closed),
            trades: if look.fills { (0..parts).map(fill).collect() } else { Vec::new() },
        };
        let remote = Remote {
            sent_at: NOW,
            deadline: NOW,
            reference: Decimal::from(10),
            unknown_since: None,
            ambiguous: 0,
            cancel: None,
            fills: Default::default(),
        };
        let held = self.contents.states[durable as usize].trades.get(&key);
        let found = held.map(|trade| protocol::judge(trade, &remote, &round));
        self.findings.insert((durable, trade, look), found);
        found
    }
}
