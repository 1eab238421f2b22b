//! What an error reply of a provider means: status, body and headers become a [`FailureKind`], words and a time to wait.
//!
//! The body is read as far as it helps; a body that is no JSON is no problem of its own. Nothing of a request is in it.

use serde_json::Value;

use super::question::FailureKind;
use crate::providers::breaker::Outcome;

/// Longest text kept of what a provider says, characters.
const WORDS_MAX: usize = 300;

/// A reply that is an error by its status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What it means.
    pub kind: FailureKind,
    /// The provider's words, shortened.
    pub message: String,
}

/// Judges a reply whose status is not 2xx.
pub fn refusal(status: u16, body: &[u8]) -> Refusal {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let (words, code) = match &parsed {
        Some(value) => (words_of(value), code_of(value)),
        None => (String::from_utf8_lossy(body.get(..2000).unwrap_or(body)).into_owned(), String::new()),
    };
    let kind = kind_of(status, &code, &words);
    let mut said = shortened(&words);
    let of_form = ["response_format", "output_config", "json_schema", "json_object", "tructured output"];
    if kind == FailureKind::BadRequest && of_form.iter().any(|part| words.contains(part)) {
        said.push_str("; if this endpoint does not take the form asked for, set answer_form of the model");
    }
    let message = if said.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {said}") };
    Refusal { kind, message }
}

fn kind_of(status: u16, code: &str, words: &str) -> FailureKind {
    match status {
        401 | 403 => FailureKind::Authentication,
        402 => FailureKind::Payment,
        404 => FailureKind::NotFound,
        408 | 504 | 524 => FailureKind::Timeout,
        // A quota that is used up looks like a rate limit but no waiting helps.
        429 if code.contains("insufficient_quota") || words.contains("exceeded your current quota") => {
            FailureKind::Payment
        }
        429 => FailureKind::RateLimited,
        503 | 529 => FailureKind::Overloaded,
        _ if code.contains("overloaded_error") => FailureKind::Overloaded,
        500..=599 => FailureKind::ServerError,
        // Anthropic reports an empty account as a bad request, xAI a wrong key.
        400 if words.contains("credit balance is too low") => FailureKind::Payment,
        400 if words.contains("Incorrect API key") => FailureKind::Authentication,
        _ => FailureKind::BadRequest,
    }
}

/// `error.message`, or `error`, or `message`: the forms of the five dialects.
fn words_of(body: &Value) -> String {
    let error = body.get("error");
    let text = error.and_then(|error| error.get("message")).or(error).or_else(|| body.get("message"));
    text.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn code_of(body: &Value) -> String {
    let error = body.get("error").unwrap_or(body);
    let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}", part("type"), part("code"))
}

/// One line, without control characters, at most `WORDS_MAX` characters.
pub fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let clean = line.chars().filter(|c| !c.is_control());
    if line.chars().count() <= WORDS_MAX {
        return clean.collect();
    }
    clean.take(WORDS_MAX - 1).chain(['…']).collect()
}

/// What a header `Retry-After` asks to wait, milliseconds: seconds, or an HTTP date by the server's own clock, which is
/// its header `Date`; without that, `now_s` (seconds of the wall) is taken. Neither form gives nothing.
pub fn retry_after_ms(text: &str, date: Option<&str>, now_s: i64) -> Option<i64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        // Fractions are not in the standard and are sent nevertheless; a float of seconds is exact enough.
        return (seconds.is_finite() && seconds >= 0.0).then(|| (seconds.min(1e9) * 1000.0) as i64);
    }
    let instant = |text: &str| chrono::DateTime::parse_from_rfc2822(text.trim()).ok().map(|at| at.timestamp());
    let until = instant(text)?;
    let from = date.and_then(instant).unwrap_or(now_s);
    Some(until.saturating_sub(from).clamp(0, 1_000_000_000) * 1000)
}

/// What a failed attempt says about its endpoint; absent when it says nothing.
///
/// A request the endpoint refuses as wrong, or for a model it does not have, is this program's fault: the endpoint
/// answered. An answer that cannot be used is a failure (resilience §3).
pub fn outcome(kind: FailureKind, retry_after_ms: Option<i64>, took_ms: i64, timeout_ms: i64) -> Option<Outcome> {
    Some(match kind {
        FailureKind::Authentication => Outcome::Unauthorised,
        FailureKind::RateLimited => Outcome::TooMany { retry_after_ms },
        FailureKind::BadRequest | FailureKind::NotFound => Outcome::Answered { took_ms, timeout_ms },
        FailureKind::Timeout
        | FailureKind::Connection
        | FailureKind::Overloaded
        | FailureKind::ServerError
        | FailureKind::Payment
        | FailureKind::Empty
        | FailureKind::Truncated
        | FailureKind::TooLarge
        | FailureKind::Unparsable
        | FailureKind::OutOfRange
        | FailureKind::Ungrounded
        | FailureKind::Incoherent => Outcome::Failed,
        FailureKind::BreakerOpen
        | FailureKind::Throttled
        | FailureKind::Budget
        | FailureKind::NoPrice
        | FailureKind::NotRecorded
        | FailureKind::Degraded
        | FailureKind::Unavailable => return None,
    })
}

/// A usable answer, for the breaker: too slow a one counts against the endpoint.
pub const fn answered(took_ms: i64, timeout_ms: i64) -> Option<Outcome> {
    Some(Outcome::Answered { took_ms, timeout_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str) -> FailureKind {
        refusal(status, body.as_bytes()).kind
    }

    #[test]
    fn every_status_of_the_dialects_has_its_kind() {
        let rows = [
            (400, r#"{"error":{"message":"bad","type":"invalid_request_error"}}"#, FailureKind::BadRequest),
            (400, r#"{"error":{"message":"Your credit balance is too low to access"}}"#, FailureKind::Payment),
            (400, r#"{"code":"x","error":"Incorrect API key provided"}"#, FailureKind::Authentication),
            (401, "", FailureKind::Authentication),
            (402, r#"{"error":{"message":"Insufficient Balance"}}"#, FailureKind::Payment),
            (403, "<html>", FailureKind::Authentication),
            (404, r#"{"error":"model \"nope\" not found"}"#, FailureKind::NotFound),
            (408, "", FailureKind::Timeout),
            (422, "", FailureKind::BadRequest),
            (429, r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#, FailureKind::RateLimited),
            (429, r#"{"error":{"code":"insufficient_quota","message":"quota"}}"#, FailureKind::Payment),
            (500, r#"{"error":"out of memory"}"#, FailureKind::ServerError),
            (500, r#"{"error":{"type":"overloaded_error"}}"#, FailureKind::Overloaded),
            (503, "", FailureKind::Overloaded),
            (529, r#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#, FailureKind::Overloaded),
            (302, "", FailureKind::BadRequest),
        ];
        for (status, body, wanted) in rows {
            assert_eq!(kind(status, body), wanted, "{status} {body}");
        }
    }

    #[test]
    fn a_refused_form_of_the_answer_names_the_setting() {
        let body = r#"{"error":{"message":"response_format.type: json_schema is not supported"}}"#;
        let refused = refusal(400, body.as_bytes());
        assert_eq!(refused.kind, FailureKind::BadRequest);
        assert!(refused.message.ends_with("set answer_form of the model"), "{}", refused.message);
        assert!(!refusal(400, b"{\"error\":{\"message\":\"bad\"}}").message.contains("answer_form"));
    }

    #[test]
    fn words_are_one_short_line() {
        let refusal = refusal(500, format!("a\nb\u{7} {}", "x".repeat(5000)).as_bytes());
        assert!(refusal.message.starts_with("HTTP 500: a b x"), "{}", refusal.message);
        assert!(refusal.message.chars().count() <= WORDS_MAX + 10);
        assert_eq!(shortened(&"é".repeat(300)).chars().count(), 300);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_servers_clock() {
        let wait = |text: &str, date: Option<&str>| retry_after_ms(text, date, 1_000_000);
        assert_eq!(wait("7", None), Some(7000));
        assert_eq!(wait(" 0.5 ", None), Some(500));
        assert_eq!(wait("-3", None), None);
        assert_eq!(wait("soon", None), None);
        let server = Some("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:30 GMT", server), Some(30_000));
        assert_eq!(wait("Wed, 21 Oct 2015 07:27:00 GMT", server), Some(0));
    }
}
