//! Training on several processes.

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    support::{Run, finished},
    training::{arguments, data, steps, temporary_files, trained, without_events},
};

/// No random component depends on the number of ranks.
const WITHOUT_DROPOUT: [&str; 2] = ["--set=train.dropout=0", "--set=train.drop_path=0"];

pub(crate) fn free_port() -> String {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().to_string()
}

/// Starts the ranks of a run with plain environment variables.
fn start(folder: &Path, out: &Path, world_size: usize, more: impl Fn(usize) -> Vec<&'static str>) -> Vec<Child> {
    let port = free_port();
    let rank = |rank: usize| {
        Command::new(crate::PROGRAM)
            .args(arguments(folder, out, &more(rank)))
            .args(["--dist-timeout", "300"])
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", world_size.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", &port)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    (0..world_size).map(rank).collect()
}

fn finish(ranks: Vec<Child>) -> Vec<Run> {
    ranks.into_iter().map(|rank| finished(rank.wait_with_output().unwrap())).collect()
}

/// A run on several ranks that succeeds.
pub(crate) fn trained_on(world_size: usize, folder: &Path, out: &Path, more: &[&'static str]) {
    for (rank, run) in finish(start(folder, out, world_size, |_| more.to_vec())).iter().enumerate() {
        assert_eq!(run.status, 0, "rank {rank}: {}", run.stderr);
        assert_eq!(run.stdout.is_empty(), rank > 0, "{}", run.stdout);
    }
}

fn losses(out: &Path) -> Vec<f64> {
    let loss = |line: &String| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap();
    steps(out).iter().map(loss).collect()
}

/// f32 sums in another order; with the hardest negatives differences grow, so the bound is for the first 20 steps.
#[test]
fn losses_do_not_depend_on_the_number_of_ranks() {
    let folder = data();
    let four_epochs = [&WITHOUT_DROPOUT[..], &["--set=train.epochs=4"]].concat();
    let one = folder.path().join("one");
    trained(folder.path(), &one, &four_epochs);
    let expected = losses(&one);
    assert_eq!(expected.len(), 20);
    for world_size in [2, 3] {
        let out = folder.path().join(world_size.to_string());
        trained_on(world_size, folder.path(), &out, &four_epochs);
        let found = losses(&out);
        let differences = found.iter().zip(&expected).map(|(found, expected)| (found / expected - 1.0).abs());
        let largest = differences.fold(0.0, f64::max);
        println!("{world_size} ranks: largest relative difference of a loss {largest:e}");
        assert_eq!(found.len(), 20);
        assert!(largest < 1e-4, "{world_size} ranks: {largest:e}");
    }
}

/// With dropout and augmentation. The ranks compare their weights after every epoch.
#[test]
fn killed_run_is_resumed_to_the_files_of_an_uninterrupted_one() {
    let folder = data();
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    // Enough steps after a saved state that the run cannot end before it is killed.
    let epochs = "--set=train.epochs=6";
    trained_on(2, folder.path(), &whole, &[epochs]);
    for killed in [1, 0] {
        let mut ranks = start(folder.path(), &broken, 2, |_| vec![epochs, "--resume=auto"]);
        let mut lines = BufReader::new(ranks[0].stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("saved")), "it ended without having saved");
        std::thread::spawn(move || lines.for_each(drop));
        ranks[killed].kill().unwrap();
        let other = &mut ranks[1 - killed];
        let mut text = String::new();
        if let Some(mut stderr) = other.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
            assert!(text.contains(&format!("rank {killed} does not answer")), "{text}");
        }
        assert_eq!(other.wait().unwrap().code(), Some(2), "{text}");
        ranks[killed].wait().unwrap();
    }
    trained_on(2, folder.path(), &broken, &[epochs, "--resume=auto"]);
    assert!(without_events(&broken) == without_events(&whole));
    assert_eq!(steps(&broken), steps(&whole));

    // The state does not depend on the number of ranks.
    trained_on(3, folder.path(), &broken, &["--resume", "--set=train.epochs=7"]);
    assert_eq!(steps(&broken).len(), 35);
}

#[test]
fn signal_on_one_rank_stops_all_at_the_same_step() {
    let folder = data();
    let out = folder.path().join("run");
    let mut ranks = start(folder.path(), &out, 2, |_| vec!["--set=train.epochs=200"]);
    let mut stderr = BufReader::new(ranks[0].stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("saved") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended without having saved");
    }
    let signalled = Command::new("kill").args(["-TERM", &ranks[1].id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let mut first = String::new();
    stderr.read_to_string(&mut first).unwrap();
    let second = finished(ranks.pop().unwrap().wait_with_output().unwrap());
    assert_eq!((ranks[0].wait().unwrap().code(), second.status), (Some(2), 2));
    let message = |text: &str| text.lines().find(|line| line.contains("error: ")).unwrap().to_owned();
    let expected = message(&first);
    assert!(expected.starts_with("error: training was interrupted after step "), "{first}");
    assert_eq!(message(&second.stderr), format!("[rank 1] {expected}"));
    assert!(out.join("state.safetensors").exists());
    assert_eq!(temporary_files(&out), Vec::<String>::new());
}

#[test]
fn ranks_with_another_seed_are_refused() {
    let folder = data();
    let out = folder.path().join("run");
    let more = |rank| vec![if rank == 1 { "--seed=8" } else { "--seed=7" }];
    for run in finish(start(folder.path(), &out, 2, more)) {
        assert_eq!(run.status, 2);
        let expected =
            "error: the ranks do not train the same run: rank 1 has another seed\n  expected: 7\n  found: 8\n";
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    }
    assert!(!out.exists());
}

#[test]
fn launch_starts_the_ranks_and_fails_if_one_fails() {
    let folder = data();
    let out = folder.path().join("run");
    let launch = |more: &[&str]| {
        let mut command = Command::new(crate::PROGRAM);
        command.args(["launch", "-n", "2", "--"]).args(arguments(folder.path(), &out, more));
        finished(command.output().unwrap())
    };
    let run = launch(&["--set=train.epochs=1"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("5 steps, best on `dev`: rSum "), "{}", run.stdout);
    assert_eq!(run.stdout.matches("steps, best").count(), 1, "{}", run.stdout);
    let refused = launch(&["--set=train.epochs=1"]);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("holds a run already"), "{}", refused.stderr);
}
