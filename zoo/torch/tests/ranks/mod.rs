//! Runs a test of the current test binary as the processes of a group.

use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use laps::{CommBackend, ProcessGroup};

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Names the scenario of a worker. Without it a worker test does nothing.
const SCENARIO: &str = "LAPS_ZOO_TEST_SCENARIO";
/// Timeout of a group in milliseconds.
const TIMEOUT: &str = "LAPS_ZOO_TEST_TIMEOUT";

/// The scenario of this process, and its group.
pub fn scenario() -> Option<(String, ProcessGroup)> {
    let scenario = std::env::var(SCENARIO).ok()?;
    let timeout = Duration::from_millis(std::env::var(TIMEOUT).unwrap().parse().unwrap());
    let group = ProcessGroup::from_environment().unwrap().unwrap();
    Some((scenario, ProcessGroup { timeout, backend: CommBackend::Gloo, ..group }))
}

/// A process of a group, which is killed if it has not ended when this is dropped.
pub struct RankProcess(Child);

impl Drop for RankProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl RankProcess {
    /// Starts the test `worker` of this binary as rank `rank`.
    pub fn start(worker: &str, scenario: &str, rank: usize, world_size: usize, port: u16, timeout: Duration) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", worker, "--nocapture"])
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", world_size.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env(SCENARIO, scenario)
            .env(TIMEOUT, timeout.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Waits for its end: whether it succeeded, and what it printed.
    pub fn finish(mut self) -> (bool, String) {
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap().success(), text)
    }
}

/// Time that no correct group needs on this machine.
pub const PATIENT: Duration = Duration::from_secs(120);

/// Runs a scenario on all ranks, and returns what each has printed. All have to succeed.
pub fn run(worker: &str, scenario: &str, world_size: usize) -> Vec<String> {
    let port = free_port();
    let ranks: Vec<RankProcess> =
        (0..world_size).map(|rank| RankProcess::start(worker, scenario, rank, world_size, port, PATIENT)).collect();
    let finished = ranks.into_iter().map(RankProcess::finish);
    finished
        .enumerate()
        .map(|(rank, (success, text))| {
            assert!(success, "{scenario}, rank {rank}:\n{text}");
            text
        })
        .collect()
}
