//! Language models as advisers: what is asked, what counts as an answer, and who pays.

pub mod actor;
pub mod budget;
pub mod cassette;
pub mod classify;
pub mod doctor;
pub mod payable;
pub mod plan;
pub mod question;
pub mod rations;
pub mod wire;
