//! Language models as advisers: what is asked, what counts as an answer, and who pays.

pub mod actor;
pub mod question;
