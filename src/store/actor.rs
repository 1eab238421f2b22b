//! The store as an actor: commits that wait together share one sync, observers hear of records before the committer does.
//!
//! It never hides an error: a failure calls `on_fatal`, answers nobody, and accepts nothing more.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResult, Recipient,
    dev::{MessageResponse, OneshotSender},
    prelude::SendError,
};

use serde::Serialize;

use super::{
    batch::{AuxChange, Batch, CommitResult},
    core::{Head, Store},
    error::Fatal,
    view::CommitLog,
};
use crate::model::{Record, State};

/// Records of one batch that are durable.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct CommittedBatch(pub Arc<[Record]>);

/// Commit a batch; answered when it is durable or refused.
#[derive(Message, Clone, Debug)]
#[rtype(result = "CommitResult")]
pub struct Commit(pub Batch);

/// Store or remove data outside the journal, durable within a second.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AuxWrite(pub Vec<AuxRow>);

/// Makes the bytes of a row, on the store's thread.
type Encode = Box<dyn FnOnce() -> serde_json::Result<Vec<u8>> + Send>;

/// One row of an auxiliary tree.
pub struct AuxRow {
    tree: &'static str,
    key: String,
    value: Option<Encode>,
}

impl AuxRow {
    /// `row` as JSON under `key`. It is encoded by the store, so the sender pays nothing for it.
    pub fn put(tree: &'static str, key: String, row: impl Serialize + Send + 'static) -> AuxRow {
        AuxRow { tree, key, value: Some(Box::new(move || serde_json::to_vec(&row))) }
    }

    /// No row under `key`.
    pub fn remove(tree: &'static str, key: String) -> AuxRow {
        AuxRow { tree, key, value: None }
    }

    /// A row that cannot be written is left out, like one that was lost.
    fn encode(self) -> Option<AuxChange> {
        let AuxRow { tree, key, value } = self;
        match value.map(|encode| encode()).transpose() {
            Ok(value) => Some(AuxChange { tree, key, value }),
            Err(error) => {
                tracing::error!(%error, tree, key, "a row beside the journal could not be written");
                None
            }
        }
    }
}

/// A copy of the state.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "State")]
pub struct GetState;

/// Number and hash of the newest record.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Head")]
pub struct JournalHead;

/// Write everything that waits, auxiliary data included.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Flush;

/// From now on this observer is told of every committed batch, after those who came before it.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub struct Observe(pub Recipient<CommittedBatch>);

/// Observers may stop from now on; nothing is announced any more. Part of an orderly end.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Detach;

/// Flush, write a checkpoint, release the files and stop. Gives the SHA-256 of the journal's bytes of a store in memory.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Option<String>")]
pub struct Close;

/// Sent to itself behind everything that waits in the mailbox.
#[derive(Message)]
#[rtype(result = "()")]
struct CommitPending;

/// How the actor works.
pub struct StoreActorConfig {
    /// Told of every committed batch, in this order.
    pub observers: Vec<Recipient<CommittedBatch>>,
    /// Read by every view of the state; a batch is in it before anyone is told or answered.
    pub log: CommitLog,
    /// Events that end a group early.
    pub max_group_events: usize,
    /// Milliseconds between flushes of auxiliary data; 0 = only on [`Flush`] and [`Close`].
    pub aux_flush_ms: u64,
    /// Collect commits that wait together; false commits inside the handler (virtual time).
    pub grouping: bool,
    /// Called once when the store failed; live it ends the process with 70.
    pub on_fatal: Box<dyn Fn(&Fatal) + Send>,
}

/// The only writer.
pub struct StoreActor {
    store: Option<Store>,
    config: StoreActorConfig,
    pending: Vec<(Batch, Answer)>,
    pending_events: usize,
    notified: bool,
    aux_dirty: bool,
    dropped: u64,
}

impl std::fmt::Debug for StoreActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreActor").field("store", &self.store).finish_non_exhaustive()
    }
}

impl StoreActor {
    /// An actor around an open store.
    pub fn new(store: Store, config: StoreActorConfig) -> StoreActor {
        StoreActor {
            store: Some(store),
            config,
            pending: Vec::new(),
            pending_events: 0,
            notified: false,
            aux_dirty: false,
            dropped: 0,
        }
    }

    /// Commits what waits as one group, tells the observers, then the committers.
    fn commit_pending(&mut self, ctx: &mut Context<Self>) {
        self.notified = false;
        self.pending_events = 0;
        let pending = std::mem::take(&mut self.pending);
        let Some(store) = self.store.as_mut().filter(|_| !pending.is_empty()) else { return };
        let (batches, answers): (Vec<Batch>, Vec<Answer>) = pending.into_iter().unzip();
        match store.commit_group(batches) {
            Err(fatal) => self.fail(&fatal, ctx),
            Ok(results) => {
                for (result, answer) in results.into_iter().zip(answers) {
                    if let Ok(committed) = &result
                        && !committed.records.is_empty()
                    {
                        self.config.log.push(Arc::clone(&committed.records));
                        self.announce(&committed.records);
                    }
                    answer.give(result);
                }
                if self.dropped > 0 {
                    self.fail(&Fatal::ObserverGone, ctx);
                }
            }
        }
    }

    fn announce(&mut self, records: &Arc<[Record]>) {
        for observer in &self.config.observers {
            self.dropped += u64::from(!post(observer, CommittedBatch(Arc::clone(records))));
        }
    }

    fn aux(&mut self, ctx: &mut Context<Self>, work: impl FnOnce(&mut Store) -> Result<(), Fatal>) {
        if let Some(store) = self.store.as_mut()
            && let Err(fatal) = work(store)
        {
            self.fail(&fatal, ctx);
        }
    }

    fn flush_aux(&mut self, ctx: &mut Context<Self>) {
        if std::mem::take(&mut self.aux_dirty) {
            self.aux(ctx, Store::aux_flush);
        }
    }

    fn fail(&mut self, fatal: &Fatal, ctx: &mut Context<Self>) {
        tracing::error!(error = %fatal, "the store failed; the process ends and the next start recovers");
        self.store = None;
        (self.config.on_fatal)(fatal);
        ctx.stop();
    }
}

/// Hands a committed batch to an observer whatever its mailbox holds; false when the observer is gone.
#[expect(clippy::disallowed_methods, reason = "a full mailbox must not lose a committed record; a drop is fatal")]
fn post(observer: &Recipient<CommittedBatch>, batch: CommittedBatch) -> bool {
    match observer.try_send(batch) {
        Ok(()) => true,
        Err(SendError::Full(batch)) => {
            observer.do_send(batch);
            observer.connected()
        }
        Err(SendError::Closed(_)) => false,
    }
}

/// The answer to one commit, given now or later.
#[derive(Clone, Default)]
pub struct Answer(Rc<RefCell<Slot>>);

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    Asked(OneshotSender<CommitResult>),
    Given(CommitResult),
}

impl Answer {
    fn give(&self, result: CommitResult) {
        let mut slot = self.0.borrow_mut();
        match std::mem::take(&mut *slot) {
            // Nobody waits any more: the commit holds nevertheless.
            Slot::Asked(asked) => drop(asked.send(result)),
            Slot::Empty | Slot::Given(_) => *slot = Slot::Given(result),
        }
    }
}

impl MessageResponse<StoreActor, Commit> for Answer {
    fn handle(self, _: &mut Context<StoreActor>, asked: Option<OneshotSender<CommitResult>>) {
        let Some(asked) = asked else { return };
        let mut slot = self.0.borrow_mut();
        match std::mem::take(&mut *slot) {
            Slot::Given(result) => drop(asked.send(result)),
            Slot::Empty | Slot::Asked(_) => *slot = Slot::Asked(asked),
        }
    }
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(4_096);
        if self.config.aux_flush_ms > 0 {
            let every = std::time::Duration::from_millis(self.config.aux_flush_ms);
            ctx.run_interval(every, |actor, ctx| actor.flush_aux(ctx));
        }
    }
}

impl Handler<Commit> for StoreActor {
    type Result = Answer;

    fn handle(&mut self, Commit(batch): Commit, ctx: &mut Self::Context) -> Answer {
        let answer = Answer::default();
        self.pending_events += batch.events.len().max(1);
        self.pending.push((batch, answer.clone()));
        if !self.config.grouping || self.pending_events >= self.config.max_group_events.max(1) {
            self.commit_pending(ctx);
        } else if !std::mem::replace(&mut self.notified, true) {
            ctx.notify(CommitPending);
        }
        answer
    }
}

impl Handler<CommitPending> for StoreActor {
    type Result = ();

    fn handle(&mut self, _: CommitPending, ctx: &mut Self::Context) {
        self.commit_pending(ctx);
    }
}

impl Handler<AuxWrite> for StoreActor {
    type Result = ();

    fn handle(&mut self, AuxWrite(rows): AuxWrite, ctx: &mut Self::Context) {
        let changes = rows.into_iter().filter_map(AuxRow::encode).collect();
        self.aux_dirty = true;
        self.aux(ctx, |store| store.aux_write(changes));
    }
}

impl Handler<GetState> for StoreActor {
    type Result = MessageResult<GetState>;

    fn handle(&mut self, _: GetState, ctx: &mut Self::Context) -> Self::Result {
        self.commit_pending(ctx);
        MessageResult(self.store.as_ref().map(|store| store.state().clone()).unwrap_or_default())
    }
}

impl Handler<JournalHead> for StoreActor {
    type Result = MessageResult<JournalHead>;

    fn handle(&mut self, _: JournalHead, ctx: &mut Self::Context) -> Self::Result {
        self.commit_pending(ctx);
        let none = || Head { seq: 0, hash: String::new() };
        MessageResult(self.store.as_ref().map_or_else(none, Store::head))
    }
}

impl Handler<Flush> for StoreActor {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.commit_pending(ctx);
        self.flush_aux(ctx);
    }
}

impl Handler<Observe> for StoreActor {
    type Result = ();

    fn handle(&mut self, Observe(observer): Observe, _: &mut Self::Context) {
        self.config.observers.push(observer);
    }
}

impl Handler<Detach> for StoreActor {
    type Result = ();

    fn handle(&mut self, _: Detach, ctx: &mut Self::Context) {
        self.commit_pending(ctx);
        self.config.observers.clear();
    }
}

impl Handler<Close> for StoreActor {
    type Result = MessageResult<Close>;

    fn handle(&mut self, _: Close, ctx: &mut Self::Context) -> Self::Result {
        self.commit_pending(ctx);
        let Some(store) = self.store.take() else { return MessageResult(None) };
        let hash = store.journal_sha256();
        match store.close() {
            Ok(()) => ctx.stop(),
            Err(fatal) => self.fail(&fatal, ctx),
        }
        MessageResult(hash)
    }
}
