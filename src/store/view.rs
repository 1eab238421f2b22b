//! The read side of the state: every actor reads the newest durable state, none can change it.
//!
//! The store appends each durable batch to a [`CommitLog`] before it answers the committer. A [`StateView`] folds what
//! is new with the same `apply` whenever it is read, so a reader never sees less than what it was told is durable,
//! whatever order mailboxes are served in.

use std::{
    cell::{Ref, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::model::{Record, State, apply::Misfit};

/// Durable batches not folded into the view yet. Written by the store alone.
#[derive(Clone, Default)]
pub struct CommitLog(Arc<Log>);

#[derive(Default)]
struct Log {
    batches: Mutex<VecDeque<Arc<[Record]>>>,
    /// How many: readers look often and find nothing, so looking costs no lock.
    waiting: AtomicUsize,
}

impl CommitLog {
    /// Adds a durable batch.
    pub fn push(&self, batch: Arc<[Record]>) {
        let mut batches = self.0.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.push_back(batch);
        self.0.waiting.store(batches.len(), Ordering::Release);
    }

    fn drain_into(&self, state: &mut State) -> Result<(), Misfit> {
        let mut log = self.0.batches.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(batch) = log.pop_front() {
            self.0.waiting.store(log.len(), Ordering::Release);
            for record in batch.iter() {
                state.apply(record)?;
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.0.waiting.load(Ordering::Acquire) == 0
    }
}

/// A shared, read-only handle on the newest durable state, for actors of one thread.
#[derive(Clone)]
pub struct StateView {
    log: CommitLog,
    state: Rc<RefCell<State>>,
    on_misfit: Rc<dyn Fn(Misfit)>,
}

impl StateView {
    /// A view that starts at `state` (what recovery returned) and follows `log`. `on_misfit` is called when a durable
    /// record does not fit the view: a broken invariant that must end the process.
    pub fn new(state: State, log: CommitLog, on_misfit: Rc<dyn Fn(Misfit)>) -> StateView {
        StateView { log, state: Rc::new(RefCell::new(state)), on_misfit }
    }

    /// The newest durable state. Keep the borrow short: never across an await.
    pub fn read(&self) -> Ref<'_, State> {
        if !self.log.is_empty()
            && let Ok(mut state) = self.state.try_borrow_mut()
            && let Err(misfit) = self.log.drain_into(&mut state)
        {
            drop(state);
            (self.on_misfit)(misfit);
        }
        self.state.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, Ts};

    fn record(seq: u64, event: Event) -> Record {
        Record {
            v: 1,
            seq,
            epoch: 1,
            ts: Ts(seq as i64),
            n: None,
            actor: "test".into(),
            corr: String::new(),
            cause: String::new(),
            event,
        }
    }

    #[test]
    fn a_reader_sees_every_batch_pushed_before_the_read() {
        let log = CommitLog::default();
        let view = StateView::new(State::default(), log.clone(), Rc::new(|misfit| panic!("{misfit}")));
        let reason = |seq: u64| record(seq, Event::PauseReasonAdded { reason: format!("r{seq}") });
        log.push(Arc::from(vec![reason(1), reason(2)]));
        log.push(Arc::from(vec![reason(3)]));
        assert_eq!(view.read().coordinator.pause_reasons.len(), 3);
        assert_eq!(view.clone().read().meta.seq, 3);
    }

    #[test]
    fn a_record_that_does_not_fit_is_reported() {
        let log = CommitLog::default();
        let seen = Rc::new(RefCell::new(0));
        let seen_in = Rc::clone(&seen);
        let view = StateView::new(State::default(), log.clone(), Rc::new(move |_| *seen_in.borrow_mut() += 1));
        log.push(Arc::from(vec![record(7, Event::CleanStop {})]));
        drop(view.read());
        assert_eq!(*seen.borrow(), 1);
    }
}
