//! Log lines: to standard error, and by configuration to daily files.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_appender::{
    non_blocking::WorkerGuard,
    rolling::{RollingFileAppender, Rotation},
};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::{LogFormat, LogSettings};

/// Starts logging. The guard must live as long as the program: dropping it writes what is buffered.
///
/// # Errors
/// When the level is no filter or the log folder cannot be used.
pub fn start(settings: &LogSettings) -> Result<Option<WorkerGuard>> {
    let filter = || {
        // The HTTP server's own start and stop lines say nothing an operator needs.
        EnvFilter::try_new(format!("{},actix_server=warn", settings.level))
            .with_context(|| format!("log.level `{}` is no log filter", settings.level))
    };
    let json = settings.format == LogFormat::Json;
    let colour = std::io::stderr().is_terminal();
    let screen = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let screen = if json { screen.json().boxed() } else { screen.with_ansi(colour).boxed() };
    let mut guard = None;
    let file = if settings.dir.is_empty() {
        None
    } else {
        let appender = RollingFileAppender::builder()
            .rotation(Rotation::DAILY)
            .filename_prefix("triplegain")
            .filename_suffix("log")
            .max_log_files(settings.keep_days as usize)
            .build(&settings.dir)
            .with_context(|| format!("cannot write logs into {}", settings.dir))?;
        let (writer, writer_guard) = tracing_appender::non_blocking(appender);
        guard = Some(writer_guard);
        let layer = fmt::layer().with_writer(writer).with_ansi(false).with_target(false);
        Some(if json { layer.json().boxed() } else { layer.boxed() }.with_filter(filter()?))
    };
    tracing_subscriber::registry().with(screen.with_filter(filter()?)).with(file).init();
    Ok(guard)
}
