//! The process under a service manager: crash loops, the notify socket, the unit file. The real binary.

mod process_support;
mod service_support;

use std::{path::Path, process::Command, time::Duration};

use process_support::*;
use service_support::Manager;

/// Program time as slow as it gets without following the wall.
const SLOW: [&str; 2] = ["--speed", "2"];

#[test]
fn r6_three_crashes_within_ten_minutes_begin_paused_until_resume() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let start = || {
        let mut command = triplegain();
        command.env_remove("TRIPLEGAIN__SUPERVISOR__CRASH_LOOP__STARTS");
        Program::start_with(command, &store, &SLOW)
    };
    for crash in 0..3 {
        let program = start();
        assert_eq!(program.status()["state"], "RUNNING", "after {crash} crashes");
        program.kill9();
    }
    let program = start();
    let status = program.status();
    assert_eq!(status["state"], "PAUSED");
    assert_eq!(status["pause_reasons"][0], "boot:crash_loop");
    assert!(program.said().contains("boot:crash_loop"), "the log says so: {}", program.said());
    assert_eq!(program.done(&["resume"])["state"], "RUNNING");
    program.kill9();

    let program = start();
    assert_eq!(program.status()["state"], "PAUSED", "one more crash right after the resume is the same loop");
    program.done(&["resume"]);
    program.stop("TERM");
    let program = start();
    assert_eq!(program.status()["state"], "RUNNING", "a clean stop ends the loop");
    program.stop("TERM");
    assert_sound(&store);
}

#[test]
fn r6_the_service_manager_hears_ready_signs_of_life_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::new(folder.path());
    let watchdog = manager.command(Some(Duration::from_secs(30)));
    let mut program = Program::spawn_with(watchdog, &folder.path().join("store"), &SLOW);
    let first = until("the first word", || manager.heard());
    assert_eq!(first[0], "READY=1", "nothing is told before the boot is done: {first:?}");
    assert!(first[1].starts_with("STATUS="), "{first:?}");
    assert!(program.try_status().is_some(), "ready means that it answers");
    for _ in 0..2 {
        let told = manager.hears("WATCHDOG=1");
        assert!(told.iter().any(|line| line.starts_with("STATUS=RUNNING, level NORMAL")), "{told:?}");
    }
    program.signal("TERM");
    manager.hears("STOPPING=1");
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn r6_a_manager_without_a_watchdog_hears_no_pings_and_without_a_socket_nothing_happens() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::new(folder.path());
    let mut program = Program::spawn_with(manager.command(None), &folder.path().join("store"), &SLOW);
    manager.hears("READY=1");
    program.signal("TERM");
    assert_eq!(program.wait().code(), Some(0));
    let rest: Vec<Vec<String>> = std::iter::from_fn(|| manager.heard()).collect();
    assert!(rest.iter().flatten().all(|line| line != "WATCHDOG=1"), "{rest:?}");

    let alone = Program::start(&folder.path().join("alone"), &SLOW);
    alone.stop("TERM");
    assert_eq!(manager.heard(), None);
}

#[test]
fn r6_the_unit_is_accepted_by_the_service_manager() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/triplegain.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    for line in [
        "Type=notify",
        "WatchdogSec=30",
        "Restart=on-failure",
        "StartLimitBurst=10",
        "RestartPreventExitStatus=2 73",
        "TimeoutStopSec=40",
        "NoNewPrivileges=yes",
        "LimitCORE=0",
    ] {
        assert!(text.lines().any(|found| found == line), "`{line}` is missing");
    }
    // The binary need not be installed where the unit expects it.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("triplegain.service");
    std::fs::write(&copy, text.replace("/usr/local/bin/triplegain", env!("CARGO_BIN_EXE_triplegain"))).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&copy).output();
    let Ok(verified) = verified else {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    let said = stderr(&verified);
    if said.contains("Failed to initialize manager") {
        eprintln!("skipped: systemd-analyze cannot work here: {said}");
        return;
    }
    // An older manager ignores what it does not know, and says so.
    let known = |line: &&str| !line.contains("RestartSteps") && !line.contains("RestartMaxDelaySec");
    let complaints: Vec<&str> = said.lines().filter(|line| line.contains("triplegain.service")).filter(known).collect();
    assert!(verified.status.success() && complaints.is_empty(), "{said}");
}

/// The real binary calls the address again and again by its own progress, and ends the calls when it is stopped.
#[test]
fn r6_a_dead_man_address_is_called_while_everything_is_alive() {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, format!("http://{}/token\n", listener.local_addr().unwrap())).unwrap();
    let mut command = triplegain();
    command.env("TRIPLEGAIN__NOTIFY__DEAD_MAN_URL_FILE", &file);
    command.env("TRIPLEGAIN__NOTIFY__DEAD_MAN_SECONDS", "10");
    let spawn = |command| Program::spawn_with(command, &folder.path().join("store"), &["--speed", "1200"]);
    let mode = |mode| std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let mut refused = spawn(command);
    assert_eq!(refused.wait().code(), Some(2), "{}", refused.said());
    mode(0o600);
    let mut command = triplegain();
    command.env("TRIPLEGAIN__NOTIFY__DEAD_MAN_URL_FILE", &file);
    let program = spawn(command).answering();
    let mut stream = until("a call", || listener.accept().ok()).0;
    stream.set_nonblocking(false).unwrap();
    let mut head = [0; 18];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"GET /token HTTP/1.");
    // It never hears the end of it, and goes on all the same.
    stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
    let seq = program.status()["journal"]["seq"].as_u64();
    program.status_when("work beside it", |status| status["journal"]["seq"].as_u64() > seq);
    program.stop("TERM");
}
