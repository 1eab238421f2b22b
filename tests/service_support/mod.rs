//! A service manager's end of the notify socket.
#![allow(dead_code)] // every test file uses a part
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process_support::{triplegain, until};

/// A service manager's end of the notify socket.
pub struct Manager {
    socket: UnixDatagram,
    pub path: PathBuf,
}

impl Manager {
    pub fn new(folder: &Path) -> Manager {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Manager { socket, path }
    }

    pub fn command(&self, watchdog: Option<Duration>) -> Command {
        let mut command = triplegain();
        command.env("NOTIFY_SOCKET", &self.path).env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        if let Some(limit) = watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        command
    }

    /// What it was told next, if anything was.
    pub fn heard(&self) -> Option<Vec<String>> {
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect()),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                None
            }
        }
    }

    /// Waits until it is told this line.
    pub fn hears(&self, line: &str) -> Vec<String> {
        until(line, || self.heard().filter(|told| told.iter().any(|told| told == line)))
    }
}
