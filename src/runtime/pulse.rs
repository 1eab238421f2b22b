//! Who must answer a ping for the process to count as alive, and the message itself. It decides nothing: what silence
//! means is `coordinator::watchdog`'s rule.

use actix::{Message, Recipient};

/// Are you there? Answered in the actor's own turn, behind everything that waits in its mailbox.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Ping;

/// One actor that must answer.
#[derive(Clone)]
pub struct Pulse {
    /// Its name, as in incidents.
    pub actor: &'static str,
    /// Where to ask.
    pub ping: Recipient<Ping>,
    /// Where a test strikes.
    #[cfg(feature = "failpoints")]
    pub strike: Recipient<super::chaos::Strike>,
}

/// Lets actors answer [`Ping`], and with the feature `failpoints` be struck by [`super::chaos::Strike`].
macro_rules! answers_pings {
    ($($actor:ty),+ $(,)?) => {$(
        impl actix::Handler<$crate::runtime::pulse::Ping> for $actor {
            type Result = ();
            fn handle(&mut self, _: $crate::runtime::pulse::Ping, _: &mut actix::Context<Self>) {}
        }
        #[cfg(feature = "failpoints")]
        impl actix::Handler<$crate::runtime::chaos::Strike> for $actor {
            type Result = ();
            fn handle(&mut self, strike: $crate::runtime::chaos::Strike, ctx: &mut actix::Context<Self>) {
                $crate::runtime::chaos::strike(self, strike, ctx);
            }
        }
    )+};
}
pub(crate) use answers_pings;
