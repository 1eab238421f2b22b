//! The online checks of what must always hold: orders as they leave, the account at every tick after it changed. What is
//! broken halts trading, leaves a bundle for the person who looks into it, and ends the process when it is the account.

use std::path::PathBuf;

use actix::Context;

use super::{
    Coordinator,
    invariants::{self, Broken, Gate, Object},
    states,
};
use crate::{
    model::{Clock, CoordinatorState, Record},
    store::bundle,
};

/// The coordinator's part.
pub(super) struct Guard {
    gate: Gate,
    /// The account changed since it was checked.
    unchecked: bool,
    /// Something was found already; what follows from it is not told again.
    broken: bool,
    on_fatal: fn(&str),
}

impl Guard {
    pub(super) const fn new(state: CoordinatorState, on_fatal: fn(&str)) -> Guard {
        // What recovery returned is checked at the first tick.
        Guard { gate: Gate::new(state), unchecked: true, broken: false, on_fatal }
    }
}

impl Coordinator {
    /// Looks at what became durable.
    pub(super) fn guard_records(&mut self, records: &[Record], ctx: &mut Context<Self>) {
        for record in records {
            self.guard.unchecked |= invariants::concerns(&record.event);
            if !Gate::concerns(&record.event) {
                continue;
            }
            let taken = self.guard.gate.take(&record.event, &self.view.read());
            if let Err(broken) = taken {
                self.broke(&broken, ctx);
            }
        }
    }

    /// Looks at the account, when it changed since the last tick.
    pub(super) fn guard_state(&mut self, ctx: &mut Context<Self>) {
        if std::mem::take(&mut self.guard.unchecked) {
            let checked = invariants::check(&self.view.read());
            if let Err(broken) = checked {
                self.broke(&broken, ctx);
            }
        }
    }

    fn broke(&mut self, broken: &Broken, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.guard.broken, true) {
            return;
        }
        let reason = format!("invariant: {broken}");
        let seq = self.view.read().meta.seq;
        if !self.volatile {
            let data = PathBuf::from(&self.settings.data_dir);
            match bundle::write(&data, seq, &reason) {
                Ok(path) => tracing::error!("{reason}; the last events are in {}", path.display()),
                Err(error) => tracing::error!("{reason}; the last events could not be set aside: {error}"),
            }
        }
        let (halted, end) = (reason.clone(), (broken.object == Object::Account).then_some(self.guard.on_fatal));
        let prepare = move |actor: &mut Coordinator, _: &mut Context<Coordinator>| {
            let event = states::halt(&actor.view.read().coordinator, &halted, "coordinator", actor.clock.now());
            actor.batch("coordinator", "invariant".to_owned(), vec![event])
        };
        // HALTED is durable before the process ends, so that the next start does not trade on a wrong account.
        self.in_turn(prepare, move |_, _, _| end.into_iter().for_each(|end| end(&reason)), ctx);
    }
}
