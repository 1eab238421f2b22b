//! The tasks that talk to the venue: the socket with its session, and questions over REST.

pub mod fetch;
pub mod link;
mod tell;
