//! Changes of state one at a time: each is prepared from the state in which the one before it is durable.
//!
//! Pauses, halts, resets and emergencies all read who may trade and write who may trade. Two of them prepared from the
//! same view would overwrite each other: an acknowledged halt could be lost to a pause that was prepared before it.

use std::collections::VecDeque;

use actix::{ActorFutureExt, AsyncContext, Context, MailboxError, WrapFuture};

use super::Coordinator;
use crate::{
    model::Event,
    runtime::failpoint,
    store::{Batch, Commit, CommitResult},
};

type Prepare = Box<dyn FnOnce(&mut Coordinator, &mut Context<Coordinator>) -> Batch>;
type Done = Box<dyn FnOnce(&mut Coordinator, Result<CommitResult, MailboxError>, &mut Context<Coordinator>)>;

/// Changes that wait for their turn.
#[derive(Default)]
pub(super) struct Lane {
    waiting: VecDeque<(Prepare, Done)>,
    busy: bool,
}

impl Coordinator {
    /// Prepares and commits a change when every earlier one is durable, then calls `done` with the store's answer.
    pub(super) fn in_turn(
        &mut self,
        prepare: impl FnOnce(&mut Coordinator, &mut Context<Coordinator>) -> Batch + 'static,
        done: impl FnOnce(&mut Coordinator, Result<CommitResult, MailboxError>, &mut Context<Coordinator>) + 'static,
        ctx: &mut Context<Self>,
    ) {
        self.lane.waiting.push_back((Box::new(prepare), Box::new(done)));
        self.next_in_lane(ctx);
    }

    /// A change nobody waits for; no events, no commit.
    pub(super) fn change_state(
        &mut self,
        corr: String,
        make: impl FnOnce(&mut Coordinator) -> Vec<Event> + 'static,
        ctx: &mut Context<Self>,
    ) {
        let prepare = move |actor: &mut Coordinator, _: &mut Context<Coordinator>| {
            let events = make(actor);
            actor.batch("coordinator", corr, events)
        };
        // A store that does not answer has ended the process already.
        self.in_turn(prepare, |_, _, _| (), ctx);
    }

    fn next_in_lane(&mut self, ctx: &mut Context<Self>) {
        while !self.lane.busy {
            let Some((prepare, done)) = self.lane.waiting.pop_front() else { return };
            // Busy while preparing too: what it does may ask for another turn.
            self.lane.busy = true;
            let batch = prepare(self, ctx);
            if batch.events.is_empty() {
                self.lane.busy = false;
                continue;
            }
            failpoint::effect("commit.lane", "");
            let request = self.links.store.send(Commit(batch));
            ctx.spawn(request.into_actor(self).map(move |answer, actor, ctx| {
                actor.lane.busy = false;
                done(actor, answer, ctx);
                actor.next_in_lane(ctx);
            }));
        }
    }
}
