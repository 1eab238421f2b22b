//! Routes. GET never has an effect; POST needs the token, a JSON body, `X-Triplegain: 1` and an idempotency key.

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{StatusCode, header},
    web,
};
use serde_json::json;

use super::Surface;
use crate::{
    coordinator::messages::{GetStatus, Operate, Operated},
    model::{Command, CommandAnswer},
    runtime::failpoint,
};

/// Registers every route.
pub fn configure(app: &mut web::ServiceConfig) {
    app.route("/health", web::get().to(health))
        .route("/v1/status", web::get().to(status))
        .route("/v1/commands", web::post().to(command))
        .default_service(web::to(|| async { refuse(StatusCode::NOT_FOUND, "not_found", "there is no such route") }));
}

fn refuse(status: StatusCode, code: &str, reason: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({"error": {"code": code, "reason": reason}}))
}

fn header<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Host and origin are checked before anything else: a page of another site must not reach this server through a
/// browser (DNS rebinding), not even to see whether it lives.
fn check_origin(request: &HttpRequest, surface: &Surface) -> Result<(), Box<HttpResponse>> {
    let host = header(request, "host").unwrap_or_default();
    if !surface.allowed_hosts.iter().any(|allowed| allowed == host) {
        return Err(Box::new(refuse(StatusCode::MISDIRECTED_REQUEST, "host", "this Host is not served here")));
    }
    let foreign = header(request, "sec-fetch-site").is_some_and(|site| site == "cross-site")
        || header(request, "origin")
            .is_some_and(|origin| !surface.allowed_hosts.iter().any(|allowed| origin == format!("http://{allowed}")));
    if foreign {
        return Err(Box::new(refuse(StatusCode::FORBIDDEN, "origin", "requests of other sites are not answered")));
    }
    Ok(())
}

fn check_token(request: &HttpRequest, surface: &Surface) -> Result<(), Box<HttpResponse>> {
    let offered = header(request, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    match offered {
        Some(token) if surface.token.admits(token.trim()) => Ok(()),
        _ => Err(Box::new(refuse(
            StatusCode::UNAUTHORIZED,
            "token",
            "send the token of the token file as `Authorization: Bearer`",
        ))),
    }
}

/// The last step before a client hears that something was done.
fn answering(about: &str) -> HttpResponseBuilder {
    failpoint::effect("api.answer", about);
    HttpResponse::Ok()
}

async fn health(request: HttpRequest, surface: web::Data<Surface>) -> HttpResponse {
    if let Err(refused) = check_origin(&request, &surface) {
        return *refused;
    }
    match surface.status.send(GetStatus).await {
        Ok(status) => {
            let good =
                status.state == "RUNNING" && status.degradation == "NORMAL" && status.feeds.iter().all(|f| f.healthy);
            answering("health").json(json!({"status": if good { "ok" } else { "degraded" }}))
        }
        Err(_) => HttpResponse::ServiceUnavailable().json(json!({"status": "down"})),
    }
}

async fn status(request: HttpRequest, surface: web::Data<Surface>) -> HttpResponse {
    if let Err(refused) = check_origin(&request, &surface).and_then(|()| check_token(&request, &surface)) {
        return *refused;
    }
    match surface.status.send(GetStatus).await {
        Ok(status) => answering("status").insert_header((header::CACHE_CONTROL, "no-store")).json(status),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "down", "the coordinator does not answer"),
    }
}

async fn command(request: HttpRequest, body: web::Bytes, surface: web::Data<Surface>) -> HttpResponse {
    if let Err(refused) = check_origin(&request, &surface).and_then(|()| check_token(&request, &surface)) {
        return *refused;
    }
    if !header(&request, "content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", "send application/json");
    }
    if header(&request, "x-triplegain") != Some("1") {
        return refuse(StatusCode::FORBIDDEN, "header", "send the header X-Triplegain: 1");
    }
    let Some(key) = header(&request, "idempotency-key").filter(|key| !key.is_empty() && key.len() <= 100) else {
        return refuse(StatusCode::BAD_REQUEST, "idempotency_key", "send an Idempotency-Key of 1 to 100 characters");
    };
    let command: Command = match serde_json::from_slice(&body) {
        Ok(command) => command,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "command", &format!("no such command: {error}")),
    };
    let name = command.name();
    let operate = Operate { key: key.to_owned(), command, source: "api".to_owned() };
    match surface.operate.send(operate).await {
        Ok(Operated::Answered(answer @ CommandAnswer::Ok { .. })) => answering(name).json(answer),
        Ok(Operated::Answered(answer @ CommandAnswer::Refused { .. })) => HttpResponse::Conflict().json(answer),
        Ok(Operated::KeyReused) => {
            refuse(StatusCode::CONFLICT, "key_reused", "this idempotency key was used with another body")
        }
        Ok(Operated::Unavailable(why)) => refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &why),
        Err(_) => refuse(StatusCode::SERVICE_UNAVAILABLE, "down", "the coordinator does not answer"),
    }
}
