//! The program under torture as a child process: started, killed, or found to have ended by itself.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Between two looks at whether the child has ended by itself.
const LOOK: Duration = Duration::from_millis(2);

/// How the life of a child ended.
pub(super) enum End {
    /// By the kill.
    Killed,
    /// By itself: exit status and what it said.
    Itself(String),
    /// Its port was taken by somebody else.
    PortTaken,
}

/// Which market the child simulates, and how fast.
#[derive(Clone, Copy)]
pub(super) struct Market {
    pub(super) seed: u64,
    pub(super) speed: u32,
}

/// A running program; killed when dropped.
pub(super) struct Program {
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Program {
    pub(super) fn start(exe: &Path, config: &Path, store: &Path, port: u16, market: Market) -> Result<Program> {
        let log = store.with_extension("log");
        let said = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(exe);
        // The surroundings of the harness must not change the settings of the child.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRIPLEGAIN__")) {
            command.env_remove(name);
        }
        let child = command
            .arg("--config")
            .arg(config)
            .arg("--store")
            .arg(store)
            .args(["--listen", &format!("127.0.0.1:{port}"), "run", "--speed", &market.speed.to_string()])
            .env("TRIPLEGAIN__SEED", market.seed.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .with_context(|| format!("cannot start {}", exe.display()))?;
        Ok(Program { child, log, started: Instant::now() })
    }

    /// Waits until `after` the start, then kills with SIGKILL; sooner only when it ends by itself.
    pub(super) fn kill_after(&mut self, after: Duration) -> Result<End> {
        let at = self.started + after;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                let port = said.contains("cannot listen on");
                return Ok(if port { End::PortTaken } else { End::Itself(format!("{status}: {}", said.trim())) });
            }
            let now = Instant::now();
            if now >= at {
                break;
            }
            std::thread::park_timeout(LOOK.min(at - now));
        }
        // SIGKILL on Unix: no handler, no destructor, no flush.
        self.child.kill()?;
        self.child.wait()?;
        Ok(End::Killed)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback port nobody uses at this moment.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
