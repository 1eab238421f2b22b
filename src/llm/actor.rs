//! The message by which an agent asks a chain of models.

use actix::Message;

use super::question::{Answered, Question, Unanswered};

/// Asks the models of a chain, one after another, until one gives an answer that passes the question's own check.
#[derive(Message, Clone)]
#[rtype(result = "Result<Answered, Unanswered>")]
pub struct AskModel(pub Question);
