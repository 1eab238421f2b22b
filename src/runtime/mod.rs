//! Clock, supervisor, placement, shutdown: what carries the actors. No rule about trading lives here.

pub mod alarm;
pub mod boots;
pub mod chaos;
pub mod clock;
pub mod dead_man;
pub mod failpoint;
pub mod failure;
pub mod placement;
pub mod post;
pub mod pulse;
pub mod service;
pub mod shutdown;
pub mod supervisor;
pub mod task;
pub mod terminal;
pub mod webhook;
