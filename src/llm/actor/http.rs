//! One call over HTTP: status, the headers that matter, and a body of at most [`REPLY_MAX`] bytes.
//!
//! Total time is the caller's business: who waits no longer drops the future, and the connection closes with it.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use reqwest::{Client, RequestBuilder, Response, header, redirect};
use serde_json::Value;

use super::{keys::Key, recorder::Recorder};
use crate::{
    llm::{
        classify,
        question::{FailureKind, Rejected},
        wire::{ANTHROPIC_VERSION, REPLY_MAX},
    },
    runtime::{clock::wall_now, failpoint},
    settings::ProviderKind,
};

/// A complete reply, whatever its status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raw {
    /// HTTP status.
    pub status: u16,
    /// From the header `Retry-After`, milliseconds.
    pub retry_after_ms: Option<i64>,
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
    Recorder(Rc<Recorder>),
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

    /// Calls during which virtual time stands still.
    pub fn recorded_by(recorder: Recorder) -> Http {
        Http(Way::Recorder(Rc::new(recorder)))
    }

    /// Who makes calls during which virtual time stands still, if they are made that way.
    pub fn recorder(&self) -> Option<&Recorder> {
        match &self.0 {
            Way::Recorder(recorder) => Some(recorder),
            _ => None,
        }
    }

    /// Calls go over the network in real time.
    pub const fn is_wire(&self) -> bool {
        matches!(self.0, Way::Wire(_))
    }

    /// Posts a body.
    ///
    /// # Errors
    /// [`Broken`]: no connection, a connection that broke, a reply that is too large.
    pub async fn post(&self, url: &str, kind: ProviderKind, key: Option<&Key>, body: &Value) -> Result<Raw, Broken> {
        match &self.0 {
            Way::Wire(client) => complete(authorised(client.post(url).json(body), kind, key)).await,
            Way::Recorder(_) => Err(not_held()),
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
            Way::Recorder(_) => Err(not_held()),
            Way::Stand(stand) => stand(url, None).await,
        }
    }
}

/// Of a call for which time would not stand still: it is made by [`Recorder::call`] only.
fn not_held() -> Broken {
    let detail = "in virtual time only recorded calls are made".to_owned();
    Broken { why: Rejected { kind: FailureKind::Unavailable, detail }, unsent: true }
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
    failpoint::effect("model.call", "");
    let mut reply = request.send().await.map_err(|error| broken(&error))?;
    let header = |reply: &Response, name: &str| {
        reply.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (status, date) = (reply.status().as_u16(), header(&reply, "date"));
    let now_s = wall_now().0 / 1000;
    let retry_after_ms =
        header(&reply, "retry-after").and_then(|text| classify::retry_after_ms(&text, date.as_deref(), now_s));
    let mut body = Vec::new();
    while let Some(part) = reply.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + part.len() > REPLY_MAX {
            let detail = format!("the reply is larger than {REPLY_MAX} bytes");
            return Err(Broken { why: Rejected { kind: FailureKind::TooLarge, detail }, unsent: false });
        }
        body.extend_from_slice(&part);
    }
    Ok(Raw { status, retry_after_ms, body })
}

/// The library's error without the address, with its causes.
fn broken(error: &reqwest::Error) -> Broken {
    let mut words = if error.is_connect() { "no connection".to_owned() } else { "the connection broke".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    let detail = classify::shortened(&words);
    Broken { why: Rejected { kind: FailureKind::Connection, detail }, unsent: error.is_connect() }
}
