//! The paper protocol (durability C4): nothing leaves the process, so a crash executes again; what a boot does with a
//! trade is asked of `work::next`, as after every commit.

use std::collections::BTreeMap;

use triplegain::{
    execution::{
        venue::{Venue, VenueAnswer},
        work::{self, Desk, Next, Ticks},
    },
    model::{DegradationLevel, Event, PriceTick, Trade, TradeState, Ts},
    risk::board::PriceBoard,
};

use super::{
    CRASHES,
    contents::{Contents, NOW, Step},
};

/// What the process is about to do after its last commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum At {
    Rest,
    /// Holds the venue's answer.
    Holds,
    /// Has written the fill and not what belongs to it (a mutation).
    Half,
}

/// Notes that it was asked; the answer is drawn where the model commits it.
struct Asked(bool);

impl Venue for Asked {
    fn execute(&mut self, _: &Trade, _: Option<&PriceTick>, now: Ts) -> VenueAnswer {
        self.0 = true;
        VenueAnswer::TooEarly { until: now.plus_ms(1) }
    }
}

#[derive(Clone, Copy)]
struct Paper {
    one_commit: bool,
    forgets: bool,
}

type World = (u16, u8, At);

struct Found {
    worlds: usize,
    /// Ends by epoch.
    ends: BTreeMap<u32, usize>,
    stuck: usize,
}

fn next(contents: &mut Contents, paper: Paper, (durable, crashes, at): World) -> Result<Vec<World>, String> {
    let stored = contents.stored[durable as usize][0];
    if stored.state == TradeState::Filled {
        return Err("ALONE: FILLED without SETTLED".into());
    }
    let mut out = Vec::new();
    let mut commit = |step, at, crashes| {
        contents
            .commit(durable, 0, step, false)
            .map(|next| out.push((next, crashes, at)))
            .map_err(|why| format!("FOLD: {why}"))
    };
    if crashes < CRASHES {
        commit(Step::Booted, At::Rest, crashes + 1)?;
    }
    match at {
        // Settled already, and the answer is still held: the end is committed once more.
        At::Holds if stored.state.is_terminal() => commit(Step::PaperRest, At::Rest, crashes)?,
        At::Holds if paper.one_commit => {
            commit(Step::Paper, if paper.forgets { At::Rest } else { At::Holds }, crashes)?
        }
        At::Holds => commit(Step::PaperFirst, At::Half, crashes)?,
        At::Half => commit(Step::PaperRest, At::Rest, crashes)?,
        At::Rest => {
            let state = &contents.states[durable as usize];
            if state.trades.is_empty() {
                return Ok(out);
            }
            let board = PriceBoard::new("USDT".parse().unwrap());
            let prices = board.reader();
            let board = prices.read();
            let (level, settings, rules) = (DegradationLevel::Normal, &contents.settings, &contents.rules);
            let desk = Desk { settings, rules, board: &board, level, now: NOW.plus_ms(1_000) };
            let mut asked = Asked(false);
            let next = work::next(state, &mut Ticks::default(), &mut asked, &desk).map_err(|why| why.0)?;
            match next {
                _ if asked.0 => out.push((durable, crashes, At::Holds)),
                Next::Commit(work) if matches!(work.events[..], [Event::TradeSubmitting { .. }]) => {
                    let next = contents.commit(durable, 0, Step::Submit, false)?;
                    out.push((next, crashes, At::Rest));
                }
                Next::Commit(work) => return Err(format!("unexpected: {:?}", work.events)),
                Next::Idle(_) => {}
            }
        }
    }
    Ok(out)
}

fn search(paper: Paper) -> Result<Found, String> {
    let mut contents = Contents::new(1);
    let (mut worlds, mut at) = (vec![(0, 0, At::Rest)], 0);
    let mut edges: Vec<(usize, usize)> = Vec::new();
    while at < worlds.len() {
        for world in next(&mut contents, paper, worlds[at])? {
            let known = worlds.iter().position(|held| *held == world);
            edges.push((at, known.unwrap_or(worlds.len())));
            if known.is_none() {
                worlds.push(world);
            }
        }
        at += 1;
    }
    let is_end = |world: &World| contents.stored[world.0 as usize][0].state.is_terminal();
    let mut reaches: Vec<bool> = worlds.iter().map(is_end).collect();
    for _ in 0..worlds.len() {
        for (from, to) in &edges {
            reaches[*from] |= reaches[*to];
        }
    }
    let mut ends = BTreeMap::new();
    for (number, state) in contents.states.iter().enumerate() {
        if contents.stored[number][0].state.is_terminal() {
            *ends.entry(state.meta.epoch).or_default() += 1;
        }
    }
    Ok(Found { worlds: worlds.len(), ends, stuck: reaches.iter().filter(|reaches| !**reaches).count() })
}

const OURS: Paper = Paper { one_commit: true, forgets: true };

#[test]
fn c4_a_paper_order_is_executed_once_and_always_the_same() {
    let found = search(OURS).unwrap();
    println!("paper: {} worlds, ends by epoch {:?}", found.worlds, found.ends);
    assert_eq!(found.stuck, 0);
    assert_eq!(found.ends.len(), usize::from(CRASHES) + 1, "it ends after any number of crashes");
    assert!(found.ends.values().all(|ends| *ends == 1), "balances depend on where it crashed: {:?}", found.ends);
}

#[test]
fn c4_fill_and_settled_in_two_commits_leave_filled_alone() {
    assert!(search(Paper { one_commit: false, ..OURS }).err().unwrap().starts_with("ALONE"));
}

#[test]
fn c4_settling_twice_is_refused_by_the_fold() {
    assert!(search(Paper { forgets: false, ..OURS }).err().unwrap().starts_with("FOLD"));
}
