//! One call over HTTP: status, the headers that matter, and a body of at most [`REPLY_MAX`] bytes.
//!
//! Total time is the caller's business: who waits no longer drops the future, and the connection closes with it.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use reqwest::{Client, RequestBuilder, Response, header, redirect};
use serde_json::Value;

use super::keys::Key;
use crate::{
    llm::{
        question::{FailureKind, Rejected},
        wire::{ANTHROPIC_VERSION, REPLY_MAX},
    },
    settings::ProviderKind,
};

/// A complete reply, whatever its status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raw {
    /// HTTP status.
    pub status: u16,
    /// Header `Retry-After`.
    pub retry_after: Option<String>,
    /// Header `Date`.
    pub date: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A call without a complete reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// What happened.
    pub why: Rejected,
    /// The request never arrived, so nothing can be charged for it.
    pub unsent: bool,
}

/// Who stands for the providers, nothing outside tests: gets the address and, of a post, the body.
pub type Stand = dyn Fn(&str, Option<&Value>) -> LocalBoxFuture<'static, Result<Raw, Broken>>;

/// Makes calls.
#[derive(Clone)]
pub struct Http(Way);

#[derive(Clone)]
enum Way {
    Wire(Client),
    Stand(Rc<Stand>),
}

impl Http {
    /// A client that follows no redirect and takes no proxy from the environment: a key goes where the configuration says
    /// and nowhere else.
    ///
    /// # Errors
    /// TLS could not be set up.
    pub fn new() -> Result<Http, String> {
        let builder = Client::builder().redirect(redirect::Policy::none()).no_proxy().user_agent("triplegain");
        builder
            .build()
            .map(|client| Http(Way::Wire(client)))
            .map_err(|error| format!("the HTTP client cannot be made: {error}"))
    }

    /// Calls that never leave the process.
    pub fn standing(stand: Rc<Stand>) -> Http {
        Http(Way::Stand(stand))
    }

    /// Posts a body.
    ///
    /// # Errors
    /// [`Broken`]: no connection, a connection that broke, a reply that is too large.
    pub async fn post(&self, url: &str, kind: ProviderKind, key: Option<&Key>, body: &Value) -> Result<Raw, Broken> {
        match &self.0 {
            Way::Wire(client) => complete(authorised(client.post(url).json(body), kind, key)).await,
            Way::Stand(stand) => stand(url, Some(body)).await,
        }
    }

    /// Gets a document, for probes.
    ///
    /// # Errors
    /// As [`Http::post`].
    pub async fn get(&self, url: &str, kind: ProviderKind, key: Option<&Key>) -> Result<Raw, Broken> {
        match &self.0 {
            Way::Wire(client) => complete(authorised(client.get(url), kind, key)).await,
            Way::Stand(stand) => stand(url, None).await,
        }
    }
}

fn authorised(request: RequestBuilder, kind: ProviderKind, key: Option<&Key>) -> RequestBuilder {
    let request = match kind {
        ProviderKind::Anthropic => request.header("anthropic-version", ANTHROPIC_VERSION),
        _ => request,
    };
    let Some(key) = key else { return request };
    let (name, text) = match kind {
        ProviderKind::Anthropic => ("x-api-key", key.expose().to_owned()),
        _ => ("authorization", format!("Bearer {}", key.expose())),
    };
    match header::HeaderValue::from_str(&text) {
        Ok(mut value) => {
            // Never in a debug form of the request.
            value.set_sensitive(true);
            request.header(name, value)
        }
        // A key is ASCII since it was read; without its header the endpoint refuses the call.
        Err(_) => request,
    }
}

async fn complete(request: RequestBuilder) -> Result<Raw, Broken> {
    let mut reply = request.send().await.map_err(|error| broken(&error))?;
    let header = |reply: &Response, name: &str| {
        reply.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (status, retry_after, date) = (reply.status().as_u16(), header(&reply, "retry-after"), header(&reply, "date"));
    let mut body = Vec::new();
    while let Some(part) = reply.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + part.len() > REPLY_MAX {
            let detail = format!("the reply is larger than {REPLY_MAX} bytes");
            return Err(Broken { why: Rejected { kind: FailureKind::TooLarge, detail }, unsent: false });
        }
        body.extend_from_slice(&part);
    }
    Ok(Raw { status, retry_after, date, body })
}

/// The library's error without the address, with its causes.
fn broken(error: &reqwest::Error) -> Broken {
    let mut words = if error.is_connect() { "no connection".to_owned() } else { "the connection broke".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    let detail = crate::llm::classify::shortened(&words);
    Broken { why: Rejected { kind: FailureKind::Connection, detail }, unsent: error.is_connect() }
}
