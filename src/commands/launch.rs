//! `laps-zoo launch`

use std::{
    ffi::OsString,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        atomic::Ordering,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{interrupt, report};

/// Start the processes of a distributed run, as torchrun does, without Python
///
/// Every process is this program with the arguments after `--`. If one fails, the others are ended. On Linux they are
/// killed if this process is killed.
#[derive(Args)]
pub(crate) struct LaunchArgs {
    /// Processes on this machine
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    nproc_per_node: u32,
    /// Number of machines
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    nnodes: u32,
    /// Number of this machine, from 0
    #[arg(long, value_name = "N", default_value = "0")]
    node_rank: u32,
    /// Host of machine 0
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    master_addr: String,
    /// Port on machine 0 [default: a free one if there is one machine, otherwise 29500]
    #[arg(long, value_name = "PORT")]
    master_port: Option<u16>,
    /// Arguments of this program, for example `train shapes_vit --out RUN`
    #[arg(last = true, required = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// Time that processes have to end after SIGTERM, before they are killed.
const GRACE: Duration = Duration::from_secs(30);
/// Interval at which the signals of this process are looked at.
const POLL: Duration = Duration::from_millis(50);

impl LaunchArgs {
    /// Runs the processes. The exit code is that of the first one that failed.
    pub(crate) fn run(self) -> ExitCode {
        match self.launch() {
            Ok(code) => code,
            Err(error) => report::exit_code(Err(error)),
        }
    }

    fn launch(&self) -> Result<ExitCode> {
        anyhow::ensure!(
            self.node_rank < self.nnodes,
            "`--node-rank` has to be less than `--nnodes`\n  expected: less than {}\n  found: {}",
            self.nnodes,
            self.node_rank
        );
        // If this process ended at a second signal, its ranks would go on.
        let stop = interrupt::flag(interrupt::Deadline::OfWork);
        let port = match (self.master_port, self.nnodes) {
            (Some(port), _) => port,
            (None, 1) => free_port()?,
            (None, _) => 29500,
        };
        let mut processes = Processes::default();
        let (sender, receiver) = channel();
        for local_rank in 0..self.nproc_per_node {
            // Dropping the others ends them.
            processes.start(self.command(local_rank, port)?, sender.clone())?;
        }
        drop(sender);

        let mut failed = None;
        let mut deadline = None;
        while processes.any() {
            match receiver.recv_timeout(POLL) {
                Ok((local_rank, status)) => {
                    processes.ended(local_rank);
                    if !status.success() && failed.is_none() {
                        let rank = self.rank(local_rank);
                        // A process that was asked to end has not failed by itself.
                        if deadline.is_none() {
                            eprintln!("error: rank {rank} ended with {status}");
                        }
                        failed = Some(status);
                        deadline.get_or_insert_with(|| processes.terminate());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if stop.load(Ordering::Relaxed) {
                deadline.get_or_insert_with(|| processes.terminate());
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                processes.kill();
            }
        }
        Ok(failed.map_or(ExitCode::SUCCESS, exit_code))
    }

    fn rank(&self, local_rank: u32) -> u32 {
        self.node_rank * self.nproc_per_node + local_rank
    }

    fn command(&self, local_rank: u32, port: u16) -> Result<Command> {
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let mut command = Command::new(program);
        command
            .args(&self.arguments)
            .env("RANK", self.rank(local_rank).to_string())
            .env("WORLD_SIZE", (self.nnodes * self.nproc_per_node).to_string())
            .env("LOCAL_RANK", local_rank.to_string())
            .env("LOCAL_WORLD_SIZE", self.nproc_per_node.to_string())
            .env("MASTER_ADDR", &self.master_addr)
            .env("MASTER_PORT", port.to_string())
            .env_remove("TORCHELASTIC_RESTART_COUNT")
            .env_remove("TORCHELASTIC_USE_AGENT_STORE")
            .stdin(Stdio::null());
        Ok(command)
    }
}

/// A port of this machine that is free now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}

/// The exit code of a process; 128 and the signal for one that a signal ended, as in a shell.
fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal = None::<i32>;
    let code = status.code().or(signal.map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(2))
}

/// Processes that have not ended, by local rank. They are killed when this is dropped.
#[derive(Default)]
struct Processes {
    ids: Vec<Option<u32>>,
}

impl Processes {
    /// Starts a process. On Linux it ends with the calling thread.
    fn start(&mut self, mut command: Command, ended: Sender<(u32, ExitStatus)>) -> Result<()> {
        // A terminal sends SIGINT to its foreground group. In groups of their own, processes get only the signal that is
        // passed on, and not a second one, which would end them at once.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        #[cfg(target_os = "linux")]
        crate::orphan::end_with_parent(&mut command, rustix::process::getpid());
        let mut child: Child = command.spawn().context("a process cannot be started")?;
        let local_rank = self.ids.len() as u32;
        self.ids.push(Some(child.id()));
        std::thread::spawn(move || {
            if let Ok(status) = child.wait() {
                // The receiver is gone if the launch has failed.
                let _ = ended.send((local_rank, status));
            }
        });
        Ok(())
    }

    fn any(&self) -> bool {
        self.ids.iter().any(Option::is_some)
    }

    fn ended(&mut self, local_rank: u32) {
        if let Some(id) = self.ids.get_mut(local_rank as usize) {
            *id = None;
        }
    }

    /// Asks all processes to end, and returns when they have to have ended.
    fn terminate(&self) -> Instant {
        self.signal(rustix::process::Signal::TERM);
        Instant::now() + GRACE
    }

    fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        for id in self.ids.iter().flatten() {
            if let Some(id) = i32::try_from(*id).ok().and_then(rustix::process::Pid::from_raw) {
                // It may have ended in the meantime.
                let _ = rustix::process::kill_process(id, signal);
            }
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill();
    }
}
