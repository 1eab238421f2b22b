//! The operator's HTTP surface on loopback: health, status, commands.

pub mod auth;
pub mod routes;

use std::net::TcpListener;

use actix::Recipient;
use actix_web::{App, HttpServer, dev::ServerHandle, web};
use anyhow::{Context, Result};

use crate::{
    coordinator::messages::{GetStatus, Operate},
    runtime::task,
};

/// Largest request body, bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Most connections at a time.
pub const CONNECTIONS_MAX: usize = 64;

/// Everything a request may reach.
#[derive(Clone)]
pub struct Surface {
    /// Answers `GetStatus`.
    pub status: Recipient<GetStatus>,
    /// Answers `Operate`.
    pub operate: Recipient<Operate>,
    /// Who may ask.
    pub token: auth::TokenDigest,
    /// `Host` values that are answered.
    pub allowed_hosts: Vec<String>,
}

/// Opens the listening socket, so that a taken port is known before anything else starts.
///
/// # Errors
/// When the address cannot be bound; the message names it and what to do.
pub fn listen(address: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!(
            "cannot listen on {address}; is another program using the port? Choose one with --listen 127.0.0.1:PORT"
        )
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until stopped through the handle.
///
/// # Errors
/// When the server cannot take the socket.
pub fn serve(listener: TcpListener, surface: Surface, on_fatal: fn(&str)) -> Result<ServerHandle> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(surface.clone()))
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .configure(routes::configure)
    })
    .workers(1)
    .max_connections(CONNECTIONS_MAX)
    .client_request_timeout(std::time::Duration::from_secs(5))
    .shutdown_timeout(2)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    task::guarded("api", on_fatal, async move {
        if let Err(error) = server.await {
            tracing::error!("the HTTP surface ended: {error}");
        }
    });
    Ok(handle)
}
