//! The bus as an actor: publishers send and go on, subscribers get one message at a time and the next when they have
//! handled it, so a slow, failing or dead one delays nobody.
//!
//! Run it with `runtime::supervisor::run_fatal`: a restart in place would forget every subscription.

use std::{collections::BTreeMap, sync::Arc};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, Message, MessageResult, Recipient, WrapFuture,
};

use super::{
    core::{Bus, Filter, SubscriberId, Ticket},
    envelope::{Draft, Envelope, EnvelopeFactory},
    payload::Payload,
    stats::BusStats,
    topic::{BusLimits, Topic},
};
use crate::{
    model::{Clock, Symbol},
    runtime::{clock::LogicalClock, failpoint, post::post},
};

/// A message for a subscriber. Answering it, at once or by a future, asks for the next one.
#[derive(Debug, Clone)]
pub struct Deliver(pub Arc<Envelope>);

/// A subscriber could not handle a message; it is counted and the next one follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the subscriber failed: {0}")]
pub struct HandlingFailed(pub String);

impl Message for Deliver {
    type Result = Result<(), HandlingFailed>;
}

/// Publishes a message; answered as soon as it is queued.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Publish(pub Arc<Envelope>);

/// Subscribes a subscriber to a topic; repeating it replaces filter and address.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Subscribe {
    /// Identity of the subscriber, also its name in counters.
    pub subscriber: Arc<str>,
    /// Where its messages go.
    pub recipient: Recipient<Deliver>,
    /// What it wants.
    pub topic: Topic,
    /// Which of them; all when absent.
    pub filter: Option<Filter>,
}

/// Ends one subscription, or all of a subscriber when no topic is given; answers whether there was one.
#[derive(Debug, Clone, Message)]
#[rtype(result = "bool")]
pub struct Unsubscribe {
    /// Whose.
    pub subscriber: Arc<str>,
    /// Which, or all.
    pub topic: Option<Topic>,
}

/// Asks for the newest visible message of (topic, symbol, source).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Option<Arc<Envelope>>")]
pub struct Latest {
    /// Which topic.
    pub topic: Topic,
    /// Which symbol; none asks for messages without one.
    pub symbol: Option<Symbol>,
    /// Of whom; of anybody when absent.
    pub source: Option<Arc<str>>,
}

/// Asks for the visible messages of a topic, newest first.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Vec<Arc<Envelope>>")]
pub struct Recent {
    /// Which topic.
    pub topic: Topic,
    /// Only of this symbol, when given.
    pub symbol: Option<Symbol>,
    /// At most so many.
    pub limit: usize,
}

/// Asks for all counters as of one moment (F10).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "BusStats")]
pub struct Stats;

/// The actor around [`Bus`].
pub struct BusActor {
    bus: Bus,
    clock: LogicalClock,
    names: BTreeMap<Arc<str>, SubscriberId>,
    recipients: BTreeMap<SubscriberId, Recipient<Deliver>>,
    ready: Vec<SubscriberId>,
}

impl BusActor {
    /// An empty bus on that clock.
    pub fn new(limits: BusLimits, clock: LogicalClock) -> BusActor {
        BusActor {
            bus: Bus::new(limits),
            clock,
            names: BTreeMap::new(),
            recipients: BTreeMap::new(),
            ready: Vec::new(),
        }
    }

    /// Hands the next waiting message to a subscriber unless it still works on one.
    fn pump(&mut self, id: SubscriberId, ctx: &mut Context<Self>) {
        let Some(recipient) = self.recipients.get(&id) else { return };
        let Some(delivery) = self.bus.next(id) else { return };
        let ticket = delivery.ticket;
        let request = recipient.send(Deliver(delivery.message));
        ctx.spawn(request.into_actor(self).map(move |answer, bus, ctx| bus.answered(ticket, answer, ctx)));
    }

    fn answered(
        &mut self,
        ticket: Ticket,
        answer: Result<Result<(), HandlingFailed>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        let id = ticket.subscriber;
        self.bus.settle(ticket, matches!(answer, Ok(Ok(()))));
        // A restarted actor loses the message it died of but keeps its address: only a closed address is dead.
        let closed = answer.is_err() && self.recipients.get(&id).is_none_or(|recipient| !recipient.connected());
        if closed {
            self.forget(id, true);
        } else {
            self.pump(id, ctx);
        }
    }

    fn forget(&mut self, id: SubscriberId, dead: bool) {
        self.recipients.remove(&id);
        self.names.retain(|_, of| *of != id);
        self.bus.leave(id, dead);
    }
}

impl Actor for BusActor {
    type Context = Context<Self>;
}

impl Handler<Publish> for BusActor {
    type Result = ();

    fn handle(&mut self, Publish(message): Publish, ctx: &mut Self::Context) {
        let mut ready = std::mem::take(&mut self.ready);
        self.bus.publish(&message, self.clock.now(), |id| ready.push(id));
        for id in ready.drain(..) {
            self.pump(id, ctx);
        }
        self.ready = ready;
    }
}

impl Handler<Subscribe> for BusActor {
    type Result = ();

    fn handle(&mut self, wish: Subscribe, _: &mut Self::Context) {
        let id = match self.names.get(&wish.subscriber) {
            Some(id) => *id,
            None => {
                let id = self.bus.join(Arc::clone(&wish.subscriber));
                self.names.insert(wish.subscriber, id);
                id
            }
        };
        self.recipients.insert(id, wish.recipient);
        self.bus.subscribe(id, wish.topic, wish.filter);
    }
}

impl Handler<Unsubscribe> for BusActor {
    type Result = bool;

    fn handle(&mut self, wish: Unsubscribe, _: &mut Self::Context) -> bool {
        let Some(id) = self.names.get(&wish.subscriber).copied() else { return false };
        match wish.topic {
            Some(topic) => self.bus.unsubscribe(id, topic),
            None => {
                self.forget(id, false);
                true
            }
        }
    }
}

impl Handler<Latest> for BusActor {
    type Result = MessageResult<Latest>;

    fn handle(&mut self, wish: Latest, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.bus.latest(wish.topic, wish.symbol, wish.source.as_deref(), self.clock.now()))
    }
}

impl Handler<Recent> for BusActor {
    type Result = MessageResult<Recent>;

    fn handle(&mut self, wish: Recent, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.bus.recent(wish.topic, wish.symbol, wish.limit, self.clock.now()))
    }
}

impl Handler<Stats> for BusActor {
    type Result = MessageResult<Stats>;

    fn handle(&mut self, _: Stats, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.bus.stats())
    }
}

/// The publishing end: builds the envelope and sends it on, without waiting.
#[derive(Clone)]
pub struct Publisher {
    bus: actix::Addr<BusActor>,
    factory: std::rc::Rc<EnvelopeFactory>,
    clock: LogicalClock,
}

impl Publisher {
    /// Publishers of one process share the factory, so that ids are unique and ordered.
    pub fn new(bus: actix::Addr<BusActor>, factory: EnvelopeFactory, clock: LogicalClock) -> Publisher {
        Publisher { bus, factory: std::rc::Rc::new(factory), clock }
    }

    /// The bus, for subscriptions and questions.
    pub fn bus(&self) -> &actix::Addr<BusActor> {
        &self.bus
    }

    /// Builds a message now without publishing it, for whoever must know its id first.
    ///
    /// # Errors
    /// What is wrong with the draft.
    pub fn build(&self, draft: Draft) -> Result<Arc<Envelope>, super::EnvelopeError> {
        self.factory.build(draft, self.clock.now())
    }

    /// Publishes a message that was built.
    pub fn publish_built(&self, envelope: Arc<Envelope>) {
        failpoint::effect("bus.publish", envelope.topic().name());
        post("bus", &self.bus, Publish(envelope));
    }

    /// Publishes `payload`; one that cannot be a message is a programming error and is logged.
    pub fn publish(&self, source: &'static str, symbol: Option<Symbol>, payload: Payload) {
        match self.factory.build(Draft::new(source, payload).symbol(symbol), self.clock.now()) {
            Ok(envelope) => self.publish_built(envelope),
            Err(error) => tracing::error!(%error, source, "a message could not be built"),
        }
    }
}
