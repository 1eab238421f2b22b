//! The wire side of execution: calls of the conversation as futures of the actor, their answers as values.

use std::rc::Rc;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};

use super::ExecutionActor;
use crate::{
    execution::remote::{self, CALL_TIMEOUT_MS, FillReport, Heard},
    model::Clock,
};

/// A fill the venue told without being asked.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct VenueFilled(pub FillReport);

impl ExecutionActor {
    /// Makes the calls the rules asked for. An answer that does not come in time is an answer too.
    pub(super) fn make_calls(&mut self, ctx: &mut Context<Self>) {
        let (Some(venue), Some(talks)) = (&self.parts.remote, self.venue.remote()) else { return };
        for ask in talks.take_calls() {
            let (key, attempt, silence) = (ask.key, ask.attempt, Heard::nothing(&ask.call));
            let patience = self.parts.clock.until(self.parts.clock.now().plus_ms(CALL_TIMEOUT_MS));
            let call = remote::call(Rc::clone(venue), ask);
            let bounded = async move { tokio::time::timeout(patience, call).await.unwrap_or(silence) };
            ctx.spawn(bounded.into_actor(self).map(move |heard, actor, ctx| {
                if let Some(talks) = actor.venue.remote() {
                    talks.heard(key, attempt, heard);
                }
                actor.drive(ctx);
            }));
        }
    }
}

impl Handler<VenueFilled> for ExecutionActor {
    type Result = ();
    fn handle(&mut self, filled: VenueFilled, ctx: &mut Context<Self>) {
        if let Some(talks) = self.venue.remote() {
            talks.streamed(filled.0);
            self.drive(ctx);
        }
    }
}
