//! triplegain: agents as actors that watch crypto markets, argue, and trade on paper.
//!
//! The map (see `docs/architecture.md`): values in [`model`]; what the program is told in [`settings`]; pure rules in
//! [`market`], [`risk`], [`execution`], [`agents`] and [`coordinator`]; distribution in [`bus`]; truth in [`store`];
//! clock, supervision and shutdown in [`runtime`].

// A reader that has gone must not end the program: `runtime::terminal` is the only way out.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod agents;
pub mod api;
pub mod bus;
pub mod cli;
pub mod coordinator;
pub mod execution;
pub mod llm;
pub mod market;
pub mod model;
pub mod providers;
pub mod risk;
pub mod runtime;
pub mod settings;
pub mod store;
