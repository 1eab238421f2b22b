//! Where operator commands enter the bus and where their answers come back (F13). One command, one answer: done,
//! refused, or unavailable; never silence. It decides nothing and knows no command.
// tidy: allow(pure) an actor file; what it decides is in pure files beside it

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use actix::{Actor, Context, Handler, Message, ResponseFuture, Supervised};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::messages::{Operate, Operated};
use crate::{
    bus::{
        ChainId, CommandRequest, Draft, Payload, Topic,
        actor::{Publisher, Stats},
    },
    model::CommandAnswer,
    runtime::{clock::LogicalClock, supervisor::Worker},
};

/// The answer to a command that came over the bus.
#[derive(Message, Clone, PartialEq, Debug)]
#[rtype(result = "()")]
pub struct CommandAnswered {
    /// Root of the chain: the command's key.
    pub correlation: ChainId,
    /// Which message it answers.
    pub request: Uuid,
    /// What became of it.
    pub operated: Operated,
}

/// How long an answer is waited for under an accelerated clock, real seconds.
const PATIENCE_SECONDS: i64 = 10;

/// Questions under way, by message and correlation.
type Waiting = Rc<RefCell<BTreeMap<(Uuid, ChainId), oneshot::Sender<Operated>>>>;

/// The desk: takes `Operate`, publishes it on `coordinator_commands`, waits for its answer as long as the message lives.
#[derive(Clone)]
pub struct CommandDesk {
    bus: Publisher,
    clock: LogicalClock,
    waiting: Waiting,
}

impl CommandDesk {
    /// A desk that publishes there.
    pub fn new(bus: Publisher, clock: LogicalClock) -> CommandDesk {
        CommandDesk { bus, clock, waiting: Waiting::default() }
    }
}

impl Actor for CommandDesk {
    type Context = Context<Self>;
}
impl Supervised for CommandDesk {}
impl Worker for CommandDesk {}

async fn ask(bus: Publisher, clock: LogicalClock, waiting: Waiting, operate: Operate) -> Operated {
    let heard = bus.bus().send(Stats).await;
    let heard = heard.is_ok_and(|s| s.subscriptions.iter().any(|s| s.topic == Topic::CoordinatorCommands));
    if !heard {
        let (code, reason) = ("nobody".to_owned(), "nobody takes commands now; nothing happened".to_owned());
        return Operated::Answered(CommandAnswer::Refused { code, reason });
    }
    let key: Arc<str> = operate.key.into();
    let root = ChainId::Named(Arc::clone(&key));
    let request = CommandRequest { key, operator: operate.source.as_str().into(), command: operate.command };
    let draft = Draft::new(operate.source, Payload::Command(Arc::new(request))).caused_by(root.clone(), root.clone());
    // A person waits in real seconds: under an accelerated clock the topic's own ttl would be over before anyone looks.
    let speed = clock.speed().max(1);
    let draft = if speed > 1 { draft.ttl_seconds(PATIENCE_SECONDS * i64::from(speed)) } else { draft };
    let envelope = match bus.build(draft) {
        Ok(envelope) => envelope,
        Err(error) => return Operated::Unavailable(error.to_string()),
    };
    let (answered, answer) = oneshot::channel();
    let question = (envelope.id(), root);
    waiting.borrow_mut().insert(question.clone(), answered);
    let ttl = envelope.ttl_seconds();
    // One millisecond after its last visible instant: whoever sees it in time may still answer.
    let until = envelope.timestamp().plus_ms(i64::from(ttl) * 1_000 + 1);
    bus.publish_built(envelope);
    let answer = tokio::time::timeout(clock.until(until), answer).await;
    waiting.borrow_mut().remove(&question);
    match answer {
        Ok(Ok(operated)) => operated,
        _ => Operated::Unavailable(format!(
            "no answer within {} s; ask again with the same idempotency key",
            ttl / speed
        )),
    }
}

impl Handler<Operate> for CommandDesk {
    type Result = ResponseFuture<Operated>;
    fn handle(&mut self, operate: Operate, _: &mut Context<Self>) -> Self::Result {
        Box::pin(ask(self.bus.clone(), self.clock.clone(), Rc::clone(&self.waiting), operate))
    }
}

impl Handler<CommandAnswered> for CommandDesk {
    type Result = ();
    fn handle(&mut self, answer: CommandAnswered, _: &mut Context<Self>) {
        if let Some(asked) = self.waiting.borrow_mut().remove(&(answer.request, answer.correlation)) {
            // Whoever asked may have gone; the answer is stored under the key.
            let _ = asked.send(answer.operated);
        }
    }
}
