//! Every behaviour of a small model of the trade protocol (durability §6): one or two trades, two attempts each, a venue
//! behind a network that loses, delays and repeats requests and answers and that refuses a client id only while its
//! order is open, and up to three crashes, one of which may leave a frozen process that wakes later.
//!
//! What is durable is the program's own: events come from `settle`, are folded by `State::apply` and judged by
//! `TradeState`; what a round of questions says is decided by the program's own `protocol::judge`. What the model adds is
//! the venue, its lists (of which fills may come late), the network and the crash.
//! The search is breadth-first and its own, because the last property ("an end can always be reached") is about all
//! ways out of every state, which the checkers at hand cannot say of a graph with circles.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::HashMap;

use triplegain::{execution::remote::protocol::Finding, model::TradeState};

use contents::{ATTEMPTS, Contents, Step, Stored};
use looking::{Look, look};

#[path = "trade_protocol/contents.rs"]
mod contents;
#[path = "trade_protocol/looking.rs"]
mod looking;
#[path = "trade_protocol/paper.rs"]
mod paper;

const CRASHES: u8 = 3;

/// The protocol; every mutation turns one of these off.
#[derive(Clone, Copy)]
struct Protocol {
    /// Nothing is concluded before the venue can no longer accept the request.
    deadline: bool,
    /// Closed orders are asked for as well as open ones.
    closed: bool,
    /// UNKNOWN becomes NOT_EXECUTED by proof only.
    proof: bool,
    /// SUBMITTING is durable before the request leaves.
    commit_first: bool,
    /// A fill that is booked is not booked again.
    fills_once: bool,
    /// A commit carries the epoch of the process that made it.
    epoch: bool,
    /// The venue refuses a request it has seen already, byte for byte (nonce). No client could guard against that.
    nonces: bool,
    /// The venue answers questions at all.
    asks: bool,
    /// A trade whose venue cannot be asked may be handed to the operator.
    manual: bool,
}

const OURS: Protocol = Protocol {
    deadline: true,
    closed: true,
    proof: true,
    commit_first: true,
    fills_once: true,
    epoch: true,
    nonces: true,
    asks: true,
    manual: true,
};

// ---- everything else

/// The venue's order of one client id, and what a message or a query says about it.
const NONE: u8 = 0;
const OPEN: u8 = 1;
const HALF: u8 = 2;
const CLOSED: u8 = 3;
/// No message.
const NOTHING: u8 = 9;

/// Where the process is with a trade, apart from what is durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
    Rest,
    /// SUBMITTING is durable, the request is about to leave.
    Send,
    Wait,
    /// The request left, SUBMITTING is not durable yet (a mutation).
    Late,
    /// Holds what the venue said of its own accord.
    Told(u8),
    /// Holds a round of questions.
    Looked(Look),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Lane {
    at: At,
    /// Requests under way by attempt; a repeated one stays.
    under_way: [bool; 2],
    /// Requests the venue has worked on.
    used: [bool; 2],
    /// Attempts whose deadline is over.
    over: u8,
    order: u8,
    executions: u8,
    answer: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct World {
    durable: u16,
    crashes: u8,
    /// A frozen process of the epoch before that was about to submit the first trade.
    ghost: bool,
    sides: [Lane; 2],
}

const FRESH: Lane = Lane {
    at: At::Rest,
    under_way: [false; 2],
    used: [false; 2],
    over: 0,
    order: NONE,
    executions: 0,
    answer: NOTHING,
};

struct Search {
    protocol: Protocol,
    contents: Contents,
    trades: usize,
    crashes: u8,
    /// Messages stay under way once they are sent. What is lost is then what is never delivered, and what is delivered
    /// once is what is not delivered again: the same behaviours in fewer worlds.
    keep: bool,
    findings: HashMap<(u16, usize, Look), Option<Finding>>,
}

impl Search {
    fn stored(&self, world: &World, trade: usize) -> Stored {
        self.contents.stored[world.durable as usize][trade]
    }

    /// All successors, or the property that does not hold.
    fn next(&mut self, world: &World, out: &mut Vec<World>) -> Result<(), String> {
        out.clear();
        for trade in 0..self.trades {
            self.network(world, trade, out);
            self.process(world, trade, out)?;
        }
        if world.crashes < self.crashes {
            let mut after = *world;
            after.durable = self.contents.commit(world.durable, 0, Step::Booted, false)?;
            after.crashes += 1;
            after.sides.iter_mut().for_each(|side| side.at = At::Rest);
            out.push(World { ghost: false, ..after });
            if matches!(self.stored(world, 0).state, TradeState::Intent | TradeState::NotExecuted) {
                out.push(World { ghost: true, ..after });
            }
        }
        if world.ghost {
            let gone = World { ghost: false, ..*world };
            out.push(gone);
            // Its commit carries its own epoch and is refused by the fold; without epochs nobody knows it is old.
            if let Ok(durable) = self.contents.commit(world.durable, 0, Step::Submit, self.protocol.epoch) {
                let _ = durable;
                return Err("EPOCH: a process that was replaced has changed the journal".into());
            }
        }
        Ok(())
    }

    fn network(&self, world: &World, trade: usize, out: &mut Vec<World>) {
        let side = world.sides[trade];
        let mut to = |side: Lane| {
            let mut next = *world;
            next.sides[trade] = side;
            out.push(next);
        };
        for k in 0..2 {
            if !side.under_way[k] {
                continue;
            }
            let mut lost = side;
            lost.under_way[k] = false;
            if !self.keep {
                to(lost);
            }
            let refused = usize::from(side.over) > k || (self.protocol.nonces && side.used[k]);
            if !refused {
                // Delivered, and delivered while a repetition stays under way.
                for again in [true, false].into_iter().take(if self.keep { 1 } else { 2 }) {
                    let mut side = side;
                    side.under_way[k] = again;
                    side.used[k] = true;
                    if side.order == NONE || side.order == CLOSED {
                        side.order = OPEN;
                        side.executions += 1;
                    }
                    side.answer = side.order;
                    to(side);
                }
            }
        }
        if matches!(side.order, OPEN | HALF) {
            to(Lane { order: side.order + 1, answer: side.order + 1, ..side });
        }
        if side.answer != NOTHING && !self.keep {
            to(Lane { answer: NOTHING, ..side });
        }
        let stored = self.stored(world, trade);
        let sent = stored.attempt.min(ATTEMPTS) as u8;
        if side.over < sent && stored.state.rank() == 2 {
            to(Lane { over: side.over + 1, ..side });
        }
    }

    fn process(&mut self, world: &World, trade: usize, out: &mut Vec<World>) -> Result<(), String> {
        let side = world.sides[trade];
        let stored = self.stored(world, trade);
        let id = trade as u8;
        let protocol = self.protocol;
        let mut moves: Vec<(Option<Step>, Lane)> = Vec::new();
        let at = |at: At| Lane { at, ..side };
        match side.at {
            At::Rest => match stored.state {
                TradeState::Intent | TradeState::NotExecuted => {
                    moves.push((Some(Step::Expire), side));
                    if protocol.commit_first {
                        moves.push((Some(Step::Submit), at(At::Send)));
                    } else {
                        moves.push((None, sent(at(At::Late), stored.attempt)));
                    }
                }
                // Only a crash leaves SUBMITTING without anybody who waits.
                TradeState::Submitting => moves.push((Some(Step::Unknown), side)),
                TradeState::Unknown => {
                    if !protocol.proof {
                        moves.push((Some(Step::NotExecuted), side));
                    }
                    if protocol.manual {
                        moves.push((Some(Step::Manual), side));
                    }
                    if protocol.asks {
                        moves.extend(look(side, stored, protocol, !self.keep).map(|looked| (None, at(looked))));
                    }
                }
                TradeState::Acked | TradeState::Partial => {
                    moves.extend(look(side, stored, protocol, !self.keep).map(|looked| (None, at(looked))));
                }
                _ => {}
            },
            At::Send => {
                moves.push((None, sent(at(At::Wait), stored.attempt - 1)));
                // The connection was refused before a byte left.
                moves.push((Some(Step::NotExecuted), at(At::Rest)));
            }
            At::Late => moves.push((Some(Step::Submit), at(At::Wait))),
            At::Wait => moves.push((Some(Step::Unknown), at(At::Rest))),
            At::Told(said) => moves.push(self.conclude(side, stored, said)),
            At::Looked(look) => moves.push(self.judged(world.durable, trade, side, stored, look)),
        }
        let listens = matches!(side.at, At::Wait) || (side.at == At::Rest && stored.state.rank() >= 2);
        let lives = matches!(
            stored.state,
            TradeState::Submitting | TradeState::Unknown | TradeState::Acked | TradeState::Partial
        );
        if listens && lives && side.answer != NOTHING {
            let told = Lane { at: At::Told(side.answer), ..side };
            moves.push((None, told));
            if !self.keep {
                moves.push((None, Lane { answer: NOTHING, ..told }));
            }
        }
        for (step, side) in moves {
            let mut next = *world;
            next.sides[trade] = side;
            if let Some(step) = step {
                next.durable =
                    self.contents.commit(world.durable, id, step, false).map_err(|why| format!("FOLD: {why}"))?;
            }
            out.push(next);
        }
        Ok(())
    }

    /// The next commit after what the venue said of its own accord, which is that it has the order; the last one lets it
    /// go.
    fn conclude(&self, side: Lane, stored: Stored, said: u8) -> (Option<Step>, Lane) {
        let (rest, stay) = (Lane { at: At::Rest, ..side }, side);
        let parts = said.saturating_sub(OPEN);
        let unresolved = matches!(stored.state, TradeState::Submitting | TradeState::Unknown);
        match stored.state {
            state if state.rank() >= 5 => (None, rest),
            _ if stored.fills < parts => (Some(Step::Fill), stay),
            // A mutation: what a message reports is booked, whatever is booked already.
            _ if !self.protocol.fills_once && parts == 1 && stored.fills == 1 => (Some(Step::Fill), rest),
            _ if unresolved => (Some(Step::Acked), rest),
            _ => (None, rest),
        }
    }

    /// What must hold in every world.
    fn check(&self, world: &World) -> Result<(), String> {
        for trade in 0..self.trades {
            let (side, stored) = (world.sides[trade], self.stored(world, trade));
            if side.executions > 1 {
                return Err(format!("TWICE: trade {trade} was executed {} times at the venue", side.executions));
            }
            if stored.fills > side.order.saturating_sub(OPEN) {
                return Err(format!("FILLS: {} halves booked, the venue made {}", stored.fills, side.order));
            }
            let absent = matches!(
                stored.state,
                TradeState::NotExecuted | TradeState::Rejected | TradeState::Expired | TradeState::Intent
            );
            if absent && side.order != NONE && self.protocol.commit_first {
                return Err(format!("PROOF: {:?}, but the venue has the order", stored.state));
            }
            if stored.state == TradeState::Filled {
                return Err("ALONE: FILLED without SETTLED".into());
            }
        }
        Ok(())
    }

    fn is_end(&self, world: &World) -> bool {
        (0..self.trades).all(|trade| {
            let state = self.stored(world, trade).state;
            state.is_terminal() || state == TradeState::Manual
        })
    }
}

fn sent(mut side: Lane, attempt: u32) -> Lane {
    // A request of its own, with a nonce of its own, even when it repeats an attempt.
    side.used[attempt as usize] = false;
    side.under_way[attempt as usize] = true;
    side
}

/// What a search found.
struct Found {
    worlds: usize,
    moves: usize,
    contents: usize,
    violation: Option<(String, Vec<World>)>,
    /// Worlds from which no end can be reached any more.
    stuck: usize,
}

fn search(protocol: Protocol, trades: usize, crashes: u8, keep: bool) -> Found {
    let contents = Contents::new(trades);
    let mut search = Search { protocol, contents, trades, crashes, keep, findings: HashMap::new() };
    let first = World { durable: 0, crashes: 0, ghost: false, sides: [FRESH; 2] };
    let mut numbers: HashMap<World, u32> = HashMap::from([(first, 0)]);
    let (mut worlds, mut parents, mut edges) = (vec![first], vec![0_u32], Vec::<(u32, u32)>::new());
    let (mut out, mut violation, mut at) = (Vec::new(), None, 0);
    while at < worlds.len() && violation.is_none() {
        let world = worlds[at];
        let failed = search.check(&world).and_then(|()| search.next(&world, &mut out)).err();
        if let Some(why) = failed {
            let mut path = vec![world];
            let mut from = at;
            while from != 0 {
                from = parents[from] as usize;
                path.push(worlds[from]);
            }
            path.reverse();
            violation = Some((why, path));
        }
        for next in &out {
            let fresh = worlds.len() as u32;
            let number = *numbers.entry(*next).or_insert(fresh);
            if number == fresh {
                worlds.push(*next);
                parents.push(at as u32);
            }
            edges.push((number, at as u32));
        }
        at += 1;
    }
    let stuck = if violation.is_none() { stuck(&search, &worlds, &mut edges) } else { 0 };
    Found { worlds: worlds.len(), moves: edges.len(), contents: search.contents.states.len(), violation, stuck }
}

/// Goes backwards from every end; what is not met cannot end.
fn stuck(search: &Search, worlds: &[World], edges: &mut [(u32, u32)]) -> usize {
    edges.sort_unstable();
    let mut ends: Vec<bool> = worlds.iter().map(|world| search.is_end(world)).collect();
    let mut open: Vec<u32> = (0..worlds.len() as u32).filter(|n| ends[*n as usize]).collect();
    while let Some(to) = open.pop() {
        let from = edges.partition_point(|edge| edge.0 < to);
        for (_, before) in edges[from..].iter().take_while(|edge| edge.0 == to) {
            if !std::mem::replace(&mut ends[*before as usize], true) {
                open.push(*before);
            }
        }
    }
    ends.iter().filter(|end| !**end).count()
}

#[track_caller]
fn holds(trades: usize, crashes: u8, keep: bool) {
    let found = search(OURS, trades, crashes, keep);
    println!(
        "{trades} trades, {crashes} crashes: {} worlds, {} moves, {} durable contents",
        found.worlds, found.moves, found.contents
    );
    if let Some((why, path)) = found.violation {
        panic!("{why}\n{}", path.iter().map(|world| format!("{world:?}\n")).collect::<String>());
    }
    assert_eq!(found.stuck, 0, "worlds from which neither a terminal state nor MANUAL can be reached");
}

#[test]
fn c2_c5_one_trade_three_crashes() {
    holds(1, CRASHES, false);
    holds(1, CRASHES, true);
}

#[test]
fn c2_c5_two_trades() {
    holds(2, CRASHES, true);
}

#[track_caller]
fn breaks(protocol: Protocol, property: &str) {
    let found = search(protocol, 1, CRASHES, false);
    let (why, path) = found.violation.unwrap_or_else(|| panic!("{property} holds in {} worlds", found.worlds));
    println!("{why}: after {} moves, {} worlds seen", path.len() - 1, found.worlds);
    assert!(why.starts_with(property), "{why}, not {property}");
}

#[test]
fn without_waiting_for_the_deadline_an_order_is_executed_though_proven_absent() {
    breaks(Protocol { deadline: false, ..OURS }, "PROOF");
}

#[test]
fn without_asking_for_closed_orders_a_filled_order_counts_as_absent() {
    breaks(Protocol { closed: false, ..OURS }, "PROOF");
}

#[test]
fn without_proof_an_order_is_sent_again() {
    breaks(Protocol { proof: false, ..OURS }, "PROOF");
}

#[test]
fn with_the_request_before_its_record_an_order_is_executed_twice() {
    breaks(Protocol { commit_first: false, ..OURS }, "TWICE");
}

#[test]
fn a_fill_that_is_booked_at_every_report_is_booked_too_often() {
    breaks(Protocol { fills_once: false, ..OURS }, "FILLS");
}

#[test]
fn without_epochs_a_process_that_was_replaced_changes_the_journal() {
    breaks(Protocol { epoch: false, ..OURS }, "EPOCH");
}

#[test]
fn the_venue_must_refuse_a_request_it_has_seen() {
    breaks(Protocol { nonces: false, ..OURS }, "TWICE");
}

#[test]
fn a_venue_that_answers_no_question_needs_the_operator() {
    let mute = Protocol { asks: false, ..OURS };
    let without = search(Protocol { manual: false, ..mute }, 1, CRASHES, false);
    assert!(without.violation.is_none() && without.stuck > 0, "nothing is stuck in {} worlds", without.worlds);
    println!("{} of {} worlds are stuck without MANUAL", without.stuck, without.worlds);
    assert_eq!(search(mute, 1, CRASHES, false).stuck, 0);
}
