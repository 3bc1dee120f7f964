//! Training started by torchrun.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    distributed::{free_port, trained_on},
    files::repository_file,
    support::{ProgramOutput, finished},
    training::{arguments, data, steps, without_events},
};

/// The program torchrun, which `.ci/run torchrun` installs.
fn torchrun() -> Option<PathBuf> {
    let path = repository_file(".runtime/torchrun/bin/torchrun");
    if !path.exists() {
        println!("skipped: there is no `{}`; `.ci/run torchrun` installs it", path.display());
        return None;
    }
    Some(path)
}

fn start(torchrun: &Path, options: &[&str], folder: &Path, out: &Path, more: &[&str]) -> Child {
    Command::new(torchrun)
        .arg("--no-python")
        .args(options)
        .arg(crate::PROGRAM)
        .args(arguments(folder, out, more))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) -> ProgramOutput {
    finished(child.wait_with_output().unwrap())
}

#[test]
fn torchrun_starts_the_ranks_of_a_machine() {
    let Some(torchrun) = torchrun() else { return };
    let folder = data();
    let [expected, out] = ["expected", "run"].map(|name| folder.path().join(name));
    trained_on(2, folder.path(), &expected, &[]);
    let port = format!("--master_port={}", free_port());
    let run = finish(start(&torchrun, &["--nproc_per_node=2", &port], folder.path(), &out, &[]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(run.stdout.matches("steps, best on").count(), 1, "{}", run.stdout);
    assert!(without_events(&out) == without_events(&expected));
}

#[test]
fn two_agents_of_torchrun_form_one_group() {
    let Some(torchrun) = torchrun() else { return };
    let folder = data();
    let [expected, out] = ["expected", "run"].map(|name| folder.path().join(name));
    trained_on(2, folder.path(), &expected, &[]);
    let port = format!("--master_port={}", free_port());
    let agents = ["--node_rank=0", "--node_rank=1"].map(|rank| {
        let options = ["--nproc_per_node=1", "--nnodes=2", "--master_addr=127.0.0.1", &port, rank];
        start(&torchrun, &options, folder.path(), &out, &[])
    });
    for run in agents.map(finish) {
        assert_eq!(run.status, 0, "{}", run.stderr);
    }
    assert!(without_events(&out) == without_events(&expected));
}

#[test]
fn torchrun_restarts_a_killed_rank_and_the_run_goes_on() {
    let Some(torchrun) = torchrun() else { return };
    let folder = data();
    let [expected, out] = ["expected", "run"].map(|name| folder.path().join(name));
    let epochs = "--set=train.epochs=6";
    trained_on(2, folder.path(), &expected, &[epochs]);
    let port = format!("--master_port={}", free_port());
    let options = ["--nproc_per_node=2", "--max-restarts=1", "--monitor-interval=0.1", &port];
    let mut agent = start(&torchrun, &options, folder.path(), &out, &[epochs, "--resume=auto"]);
    let mut stderr = BufReader::new(agent.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("saved") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended without having saved");
    }
    let children = fs_err::read_to_string(format!("/proc/{0}/task/{0}/children", agent.id())).unwrap();
    let rank = children.split_whitespace().last().unwrap();
    assert!(Command::new("kill").args(["-KILL", rank]).status().unwrap().success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(0), "{rest}");
    assert!(without_events(&out) == without_events(&expected));
    assert_eq!(steps(&out), steps(&expected));
}

/// Two network namespaces that are joined by a virtual cable. They are deleted when this is dropped.
struct Hosts([String; 2]);

impl Hosts {
    /// None, with a message, where namespaces cannot be made: they need root and the program `ip`.
    fn new() -> Option<Self> {
        // Tests run at the same time.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let hosts = Self([0, 1].map(|host| format!("laps-{}-{number}-{host}", std::process::id())));
        let [first, second] = &hosts.0;
        let [here, there] = [0, 1].map(|host| hosts.link(host));
        let mut commands = vec![
            format!("netns add {first}"),
            format!("netns add {second}"),
            format!("link add {here} netns {first} type veth peer name {there} netns {second}"),
        ];
        for (host, (name, link)) in [(first, &here), (second, &there)].into_iter().enumerate() {
            commands.push(format!("-n {name} address add 10.77.0.{}/24 dev {link}", host + 1));
            commands.push(format!("-n {name} link set {link} up"));
            commands.push(format!("-n {name} link set lo up"));
        }
        for command in commands {
            let output = Command::new("ip").args(command.split(' ')).output();
            if !output.is_ok_and(|output| output.status.success()) {
                println!("skipped: `ip {command}` fails; it needs root");
                return None;
            }
        }
        Some(hosts)
    }

    /// Network interface of a host.
    fn link(&self, host: usize) -> String {
        format!("v{}-{host}", std::process::id())
    }

    /// Starts one rank of a training run on each host.
    fn launch(&self, folder: &Path, out: &Path, more: &[&str]) -> [Child; 2] {
        [0, 1].map(|node| {
            Command::new("ip")
                .args(["netns", "exec", &self.0[node], crate::PROGRAM, "launch", "-n", "1", "--nnodes", "2"])
                .args(["--node-rank", &node.to_string(), "--master-addr", "10.77.0.1", "--"])
                .args(arguments(folder, out, more))
                // The name of the machine has an address of the loopback interface, which the other namespace cannot reach.
                .env("GLOO_SOCKET_IFNAME", self.link(node))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
    }

    /// Pulls the cable of the second host.
    fn cut(&self) {
        let down = format!("-n {} link set {} down", self.0[1], self.link(1));
        assert!(Command::new("ip").args(down.split(' ')).status().unwrap().success());
    }

    /// Delays and drops packets of both hosts; false if the kernel or the program `tc` cannot.
    fn impair(&self) -> bool {
        self.0.iter().enumerate().all(|(host, name)| {
            let link = self.link(host);
            let netem = format!("netns exec {name} tc qdisc add dev {link} root netem delay 2ms loss 1%");
            Command::new("ip").args(netem.split(' ')).output().is_ok_and(|output| output.status.success())
        })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

#[test]
fn ranks_in_two_network_namespaces_train_together() {
    let Some(hosts) = Hosts::new() else { return };
    let folder = data();
    let [expected, out] = ["expected", "run"].map(|name| folder.path().join(name));
    trained_on(2, folder.path(), &expected, &[]);
    if !hosts.impair() {
        println!("without delay and loss: `tc` or its module is missing");
    }
    for run in hosts.launch(folder.path(), &out, &["--dist-timeout=120"]).map(finish) {
        assert_eq!(run.status, 0, "{}", run.stderr);
    }
    assert!(without_events(&out) == without_events(&expected));
}

#[test]
fn lost_network_ends_all_ranks_with_the_state_intact() {
    let Some(hosts) = Hosts::new() else { return };
    let folder = data();
    let [expected, out] = ["expected", "run"].map(|name| folder.path().join(name));
    // Enough steps after a saved state that the run cannot end before the cable is pulled.
    let epochs = "--set=train.epochs=6";
    trained_on(2, folder.path(), &expected, &[epochs]);
    let mut launches = hosts.launch(folder.path(), &out, &[epochs, "--dist-timeout=20"]);
    let mut stderr = BufReader::new(launches[0].stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("saved") {
        assert!(stderr.read_line(&mut text).unwrap() > 0, "it ended without having saved: {text}");
    }
    hosts.cut();
    let began = Instant::now();
    stderr.read_to_string(&mut text).unwrap();
    let [first, second] = launches.map(finish);
    // The timeout, and that of asking who failed.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(first.status != 0 && text.contains("rank 1 does not answer"), "{}: {text}", first.status);
    assert!(second.status != 0 && second.stderr.contains("rank 0 does not answer"), "{second:?}");
    trained_on(2, folder.path(), &out, &[epochs, "--resume"]);
    assert!(without_events(&out) == without_events(&expected));
    assert_eq!(steps(&out), steps(&expected));
}
