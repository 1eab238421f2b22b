//! The operator of a simulation. Calm, somebody who resumes and resets a few times a day; with the fault `commands`,
//! anything at any time, wrong names and repeated keys included.

use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    monitor::Monitor,
    plan::{Fault, Plan},
};
use crate::{
    cli::system::System,
    coordinator::messages::{Operate, Operated},
    model::{
        Command, CoordinatorState, Decimal, State, TaskName, TradeState,
        command::ManualOutcome,
        time::{HOUR_MS, MINUTE_MS},
    },
    runtime::task,
    store::oracle::Ack,
};

/// Outlives processes: keys go on, and a command may be sent again to the next process.
pub struct Operator {
    rng: ChaCha8Rng,
    sent: u64,
    last: Option<(String, Command)>,
}

impl Operator {
    /// The operator of a plan.
    pub fn new(plan: &Plan) -> Operator {
        Operator { rng: plan.stream("operator", 0), sent: 0, last: None }
    }

    /// Looks at the status and does something, or nothing; milliseconds until the next time.
    pub fn act(&mut self, system: &System, plan: &Plan, monitor: &Monitor) -> u64 {
        let wild = plan.faults.has(Fault::Commands);
        let commands = {
            let state = system.view.read();
            monitor.shown(&state);
            if wild { self.anything(&state) } else { calm(&state) }
        };
        for command in commands {
            let repeated = self.last.take().filter(|_| wild && self.rng.random_bool(0.05));
            let (key, command) = repeated.unwrap_or_else(|| {
                self.sent += 1;
                (format!("simulated-{}", self.sent), command)
            });
            self.last = Some((key.clone(), command.clone()));
            let (desk, monitor) = (system.desk.clone(), monitor.clone());
            task::guarded("simulated operator", super::life::fatal, async move {
                let order = Operate { key: key.clone(), command, source: "simulated".to_owned() };
                // The answer may never come: the process may end first.
                if let Ok(Operated::Answered(answer)) = desk.send(order).await {
                    monitor.told(Ack::Command { key, answer });
                }
            });
        }
        let most = if wild { 3 * HOUR_MS } else { 6 * HOUR_MS };
        self.rng.random_range(MINUTE_MS..most).unsigned_abs()
    }

    fn anything(&mut self, state: &State) -> Vec<Command> {
        let rng = &mut self.rng;
        if state.coordinator.state != CoordinatorState::Running && rng.random_bool(0.6) {
            return calm(state);
        }
        let task = || TaskName::ALL.map(TaskName::name);
        let reason = String::new;
        let symbol =
            |rng: &mut ChaCha8Rng| ["BTC/USDT", "XRP/USDT", "ETH/USDT"].choose(rng).map_or("", |name| name).to_owned();
        vec![match rng.random_range(0..22) {
            0 | 1 => Command::Pause { reason: reason() },
            2 => Command::Halt { reason: reason() },
            3 => Command::Resume {},
            4 => Command::Reset { halt_id: "nobody-1".to_owned() },
            5 | 6 => Command::CloseAll { reason: reason() },
            7 => Command::CancelScheduled {
                id: state.plans.keys().next_back().map_or_else(|| "none".to_owned(), ToString::to_string),
            },
            8 => {
                let legs: Vec<_> = state.plans.values().flat_map(|plan| &plan.legs).map(|leg| leg.key).collect();
                Command::CancelScheduled { id: legs.choose(rng).map_or_else(|| "none".to_owned(), ToString::to_string) }
            }
            9 => Command::DisableTask { task: task().choose(rng).map_or("", |name| name).to_owned() },
            10 | 11 => Command::EnableTask { task: task().choose(rng).map_or("", |name| name).to_owned() },
            12 => Command::ClockAck {},
            13 | 14 => {
                Command::Release { task: task().choose(rng).map_or("", |name| name).to_owned(), symbol: symbol(rng) }
            }
            15 => Command::RunScheduled {
                id: state.plans.keys().next_back().map_or_else(|| "none".to_owned(), ToString::to_string),
            },
            16 | 17 => statement(state, rng),
            _ => Command::RunTask { task: task().choose(rng).map_or("", |name| name).to_owned(), symbol: symbol(rng) },
        }]
    }
}

/// What became of an order that waits for the operator; without one, of any order, which is none of their business.
fn statement(state: &State, rng: &mut ChaCha8Rng) -> Command {
    let waiting: Vec<_> = state.trades.values().filter(|trade| trade.state == TradeState::Manual).collect();
    let all: Vec<_> = state.trades.values().collect();
    let chosen = waiting.choose(rng).or_else(|| all.choose(rng)).copied();
    let filled = rng.random_bool(0.5);
    // Sometimes more than the order asked for, which must be refused.
    let share = Decimal::new(rng.random_range(1..=120), 2);
    let quantity = chosen.map(|trade| (trade.body.quantity * share).round_dp(2)).unwrap_or_default();
    Command::ResolveManual {
        trade: chosen.map_or_else(|| "none".to_owned(), |trade| trade.key.to_string()),
        outcome: if filled { ManualOutcome::Filled } else { ManualOutcome::Expired },
        quantity: filled.then_some(quantity),
        price: filled.then(|| Decimal::new(rng.random_range(1..5_000_000), 2)),
        fee: filled.then_some(Decimal::ONE),
        evidence: "simulated statement".to_owned(),
    }
}

/// What leads back to trading.
fn calm(state: &State) -> Vec<Command> {
    let mut commands = Vec::new();
    if let Some(halt) = &state.coordinator.halt {
        commands.push(Command::Reset { halt_id: halt.id.clone() });
    }
    if state.coordinator.state != CoordinatorState::Running {
        commands.push(Command::Resume {});
    }
    commands
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{cli::simulate::plan::Faults, model::time::DAY_MS};

    #[test]
    fn a_wild_operator_gives_every_command_but_the_one_of_a_moved_store() {
        let mut operator = Operator::new(&Plan { seed: 3, length_ms: DAY_MS, faults: Faults::all(), until: None });
        let state = State::default();
        let given: BTreeSet<&str> =
            (0..3_000).flat_map(|_| operator.anything(&state)).map(|command| command.name()).collect();
        let known = [
            "pause",
            "resume",
            "halt",
            "reset",
            "run_task",
            "close_all",
            "enable_task",
            "disable_task",
            "cancel_scheduled",
            "release",
            "clock_ack",
            "run_scheduled",
            "resolve_manual",
        ];
        assert_eq!(given, known.into());
    }
}
