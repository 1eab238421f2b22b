//! The one place where a message is sent without waiting for its answer. What does not arrive is counted by target.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use actix::{Actor, Addr, Handler, Message, Recipient, dev::ToEnvelope, prelude::SendError};

/// What was not delivered to one target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drops {
    /// Its mailbox was full; only [`offer`] respects the mailbox.
    pub full: u64,
    /// It is gone.
    pub closed: u64,
}

static DROPS: Mutex<BTreeMap<&'static str, Drops>> = Mutex::new(BTreeMap::new());

fn table() -> MutexGuard<'static, BTreeMap<&'static str, Drops>> {
    // Counters are plain numbers; a panic elsewhere cannot have broken them.
    DROPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counters of all targets that ever lost a message, by name.
pub fn drops() -> BTreeMap<&'static str, Drops> {
    table().clone()
}

/// Something a message can be sent to: an address or a recipient.
pub trait Target<M: Message> {
    /// Sends past the mailbox bound; false when the target is gone.
    fn push(&self, message: M) -> bool;
    /// Sends within the mailbox bound.
    ///
    /// # Errors
    /// The message comes back when the mailbox is full or the target is gone.
    fn try_push(&self, message: M) -> Result<(), SendError<M>>;
}

impl<A, M> Target<M> for Addr<A>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    #[expect(clippy::disallowed_methods, reason = "this is the place where it is allowed: a closed target is counted")]
    fn push(&self, message: M) -> bool {
        let open = self.connected();
        if open {
            self.do_send(message);
        }
        open
    }

    fn try_push(&self, message: M) -> Result<(), SendError<M>> {
        self.try_send(message)
    }
}

impl<M> Target<M> for Recipient<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    #[expect(clippy::disallowed_methods, reason = "this is the place where it is allowed: a closed target is counted")]
    fn push(&self, message: M) -> bool {
        let open = self.connected();
        if open {
            self.do_send(message);
        }
        open
    }

    fn try_push(&self, message: M) -> Result<(), SendError<M>> {
        self.try_send(message)
    }
}

/// Sends without waiting and without a bound: for messages whose number is bounded by permits or by the clock. False,
/// and one more `closed`, when the target is gone. Actix's mailbox holds only 16, so a bound would lose messages that
/// one handler sends in a row.
pub fn post<M: Message>(name: &'static str, target: &impl Target<M>, message: M) -> bool {
    let sent = target.push(message);
    if !sent {
        table().entry(name).or_default().closed += 1;
    }
    sent
}

/// Sends without waiting if the mailbox has room: for messages that may be lost, such as copies for display.
pub fn offer<M: Message>(name: &'static str, target: &impl Target<M>, message: M) -> bool {
    match target.try_push(message) {
        Ok(()) => true,
        Err(error) => {
            let mut table = table();
            let drops = table.entry(name).or_default();
            match error {
                SendError::Full(_) => drops.full += 1,
                SendError::Closed(_) => drops.closed += 1,
            }
            false
        }
    }
}
