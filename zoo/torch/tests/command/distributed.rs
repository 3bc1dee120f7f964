//! Training on several processes.

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
};

use laps_model::random::SplitMix64;
use serde_json::Value;

use crate::{
    support::{ProgramOutput, finished},
    training::{REGULARIZATION, arguments, data, steps, temporary_files, trained, without_events},
};

/// No random component depends on the number of ranks.
const WITHOUT_DROPOUT: [&str; 2] = ["--set=train.dropout=0", "--set=train.drop_path=0"];

pub(crate) fn free_port() -> String {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().to_string()
}

/// Starts the ranks of a training run with plain environment variables.
fn start(folder: &Path, out: &Path, world_size: usize, more: impl Fn(usize) -> Vec<&'static str>) -> Vec<Child> {
    let owned = |more: Vec<&str>| arguments(folder, out, &more).into_iter().map(str::to_owned).collect();
    start_ranks(world_size, |rank| owned(more(rank)))
}

/// Starts the ranks of a run with plain environment variables.
fn start_ranks(world_size: usize, arguments: impl Fn(usize) -> Vec<String>) -> Vec<Child> {
    start_commands(world_size, |rank, command| {
        command.args(arguments(rank));
    })
}

/// As [`start_ranks`]; `prepare` adds arguments and environment to the command of a rank.
pub(crate) fn start_commands(world_size: usize, prepare: impl Fn(usize, &mut Command)) -> Vec<Child> {
    let port = free_port();
    let rank = |rank: usize| {
        let mut command = Command::new(crate::PROGRAM);
        prepare(rank, &mut command);
        command
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

pub(crate) fn finish(ranks: Vec<Child>) -> Vec<ProgramOutput> {
    ranks.into_iter().map(|rank| finished(rank.wait_with_output().unwrap())).collect()
}

/// A run on several ranks that succeeds. Ranks other than 0 print nothing.
pub(crate) fn trained_on(world_size: usize, folder: &Path, out: &Path, more: &[&'static str]) {
    for (rank, run) in finish(start(folder, out, world_size, |_| more.to_vec())).iter().enumerate() {
        assert_eq!(run.status, 0, "rank {rank}: {}", run.stderr);
        assert_eq!(run.stdout.is_empty(), rank > 0, "{}", run.stdout);
        assert!(rank == 0 || run.stderr.is_empty(), "rank {rank}: {}", run.stderr);
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

#[test]
fn overlap_does_not_change_the_files_of_a_run() {
    let folder = data();
    let [on, off] = ["on", "off"].map(|name| folder.path().join(name));
    trained_on(3, folder.path(), &on, &["--dist-overlap=on"]);
    trained_on(3, folder.path(), &off, &["--dist-overlap=off"]);
    assert!(without_events(&on) == without_events(&off));
    assert_eq!(steps(&on), steps(&off));
}

#[test]
fn log_of_several_ranks_has_the_share_and_the_bytes_of_communication() {
    let folder = data();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let once = "--set=train.epochs=1";
    trained(folder.path(), &one, &[once]);
    trained_on(2, folder.path(), &two, &[once]);
    let epoch = |out: &Path| -> Value {
        let log = fs_err::read_to_string(out.join("log.jsonl")).unwrap();
        serde_json::from_str(log.lines().find(|line| line.contains("recalls")).unwrap()).unwrap()
    };
    let fields = ["communication", "communication_bytes"];
    let (alone, shared) = (epoch(&one), epoch(&two));
    assert!(fields.iter().all(|field| alone.get(field).is_none()), "{alone}");
    let [share, bytes] = fields.map(|field| shared[field].as_f64().unwrap());
    assert!(share > 0.0 && share < 1.0 && bytes > 0.0, "{shared}");
}

/// The operations of a group of one go through the library that is named, and change nothing.
#[test]
fn one_rank_with_a_named_backend_trains_like_a_single_process() {
    let folder = data();
    let [alone, group] = ["alone", "group"].map(|name| folder.path().join(name));
    let once = "--set=train.epochs=1";
    trained(folder.path(), &alone, &[once]);
    trained_on(1, folder.path(), &group, &[once, "--dist-backend=gloo"]);
    assert_eq!(steps(&group), steps(&alone));
    let log = fs_err::read_to_string(group.join("log.jsonl")).unwrap();
    assert!(log.contains("\"communication_bytes\""), "{log}");
}

/// With all random components. The ranks compare their weights after every epoch. The run that is killed sums gradients during the
/// backward pass, the other one after it.
#[test]
fn killed_run_is_resumed_to_the_files_of_an_uninterrupted_one() {
    let folder = data();
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    // Enough steps after a saved state that the run cannot end before it is killed.
    let options = [&REGULARIZATION[..], &["--set=train.epochs=6"]].concat();
    let resumed = [&options[..], &["--resume=auto", "--dist-overlap=on"]].concat();
    trained_on(2, folder.path(), &whole, &[&options[..], &["--dist-overlap=off"]].concat());
    for killed in [1, 0] {
        let mut ranks = start(folder.path(), &broken, 2, |_| resumed.clone());
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
    trained_on(2, folder.path(), &broken, &resumed);
    assert!(without_events(&broken) == without_events(&whole));
    assert_eq!(steps(&broken), steps(&whole));

    // The state does not depend on the number of ranks.
    let longer = [&REGULARIZATION[..], &["--resume", "--set=train.epochs=7"]].concat();
    trained_on(3, folder.path(), &broken, &longer);
    assert_eq!(steps(&broken).len(), 35);
}

/// Each rank is killed about ten times, after a seeded number of steps. The state is saved every two steps.
#[test]
#[ignore = "20 restarts take minutes"]
fn run_killed_twenty_times_is_bit_identical() {
    let folder = data();
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    let options = [&REGULARIZATION[..], &["--set=train.epochs=48"]].concat();
    let resumed = [&options[..], &["--resume=auto"]].concat();
    trained_on(2, folder.path(), &whole, &options);
    let mut random = SplitMix64::new(20);
    let mut kills = [0, 0];
    for _ in 0..20 {
        let (killed, further) = (random.below(2), random.below(8));
        let mut ranks = start(folder.path(), &broken, 2, |_| resumed.clone());
        let mut lines = BufReader::new(ranks[0].stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("saved")), "it ended without having saved");
        std::thread::spawn(move || lines.for_each(drop));
        let last = steps(&broken).len() + further;
        while steps(&broken).len() < last {
            assert!(ranks[0].try_wait().unwrap().is_none(), "it ended before it was killed");
            std::thread::yield_now();
        }
        ranks[killed].kill().unwrap();
        kills[killed] += 1;
        ranks[killed].wait().unwrap();
        assert_eq!(ranks[1 - killed].wait().unwrap().code(), Some(2));
    }
    trained_on(2, folder.path(), &broken, &resumed);
    println!("kills of rank 0 and 1: {kills:?}");
    assert!(without_events(&broken) == without_events(&whole));
    assert_eq!(steps(&broken), steps(&whole));
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

/// A long training on two ranks that has saved its state, its standard error, and what was read of that.
fn launch_that_has_saved(data: &Path, out: &Path) -> (Child, BufReader<ChildStderr>, String) {
    let mut launch = Command::new(crate::PROGRAM)
        .args(["launch", "-n", "2", "--"])
        .args(arguments(data, out, &["--set=train.epochs=200"]))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(launch.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("saved") {
        assert!(stderr.read_line(&mut text).unwrap() > 0, "it ended without having saved: {text}");
    }
    (launch, stderr, text)
}

/// `timeout` signals a process and then its group, so `launch` receives two signals.
#[test]
fn two_signals_to_launch_stop_all_ranks_with_the_state_saved() {
    let folder = data();
    let out = folder.path().join("run");
    let (mut launch, mut stderr, mut text) = launch_that_has_saved(folder.path(), &out);
    let both = "kill -TERM $1; kill -INT $1";
    assert!(Command::new("sh").args(["-c", both, "sh", &launch.id().to_string()]).status().unwrap().success());
    // The pipe closes when the last rank has ended.
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(launch.wait().unwrap().code(), Some(2), "{text}");
    assert_eq!(text.matches("error: training was interrupted after step ").count(), 2, "{text}");
    assert!(out.join("state.safetensors").exists());
}

/// A process that SIGKILL ends passes no signal on.
#[test]
#[cfg(target_os = "linux")]
fn ranks_of_a_killed_launch_end() {
    let folder = data();
    let out = folder.path().join("run");
    let (mut launch, mut stderr, mut text) = launch_that_has_saved(folder.path(), &out);
    launch.kill().unwrap();
    launch.wait().unwrap();
    // The pipe closes when the last rank has ended.
    stderr.read_to_string(&mut text).unwrap();
    assert!(steps(&out).len() < 1000, "the ranks went on to the end: {text}");
    assert!(out.join("state.safetensors").exists());
}

#[test]
fn ranks_with_another_seed_are_refused() {
    let folder = data();
    let out = folder.path().join("run");
    let more = |rank| vec![if rank == 1 { "--seed=8" } else { "--seed=7" }];
    for run in finish(start(folder.path(), &out, 2, more)) {
        assert_eq!(run.status, 2);
        let expected =
            "error: the ranks do not run the same work: rank 1 has another seed\n  expected: 7\n  found: 8\n";
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    }
    assert!(!out.exists());
}

#[test]
fn ranks_with_another_configuration_or_data_are_refused() {
    let [folder, other] = [data(), data()];
    let image = other.path().join("images/train_00003.png");
    // A byte after the end of the picture.
    let bytes = [fs_err::read(&image).unwrap(), vec![0]].concat();
    fs_err::write(&image, bytes).unwrap();
    let out = folder.path().join("run");
    let cases =
        [("configuration", folder.path(), vec!["--set=train.margin=0.3"]), ("data hash", other.path(), Vec::new())];
    for (what, changed, more) in cases {
        let of_rank = |rank: usize| -> Vec<String> {
            let (data, more) = if rank == 1 { (changed, &more[..]) } else { (folder.path(), &[][..]) };
            arguments(data, &out, more).into_iter().map(str::to_owned).collect()
        };
        for run in finish(start_ranks(2, of_rank)) {
            assert_eq!(run.status, 2, "{}", run.stdout);
            let expected = format!("error: the ranks do not run the same work: rank 1 has another {what}\n");
            assert!(run.stderr.contains(&expected), "{}", run.stderr);
        }
        assert!(!out.exists(), "{what}");
    }
}

#[test]
fn group_that_cannot_work_is_refused_before_anything_is_written() {
    let folder = data();
    let out = folder.path().join("run");
    let nccl = "error: the communication backend `nccl` cannot be used: the device is not a GPU\nhint: use a GPU, or";
    let batch =
        "error: the batch cannot be split\n  expected: at least 3 pairs, one per rank\n  found: 2 pairs\nhint: set";
    for (option, expected) in [("--dist-backend=nccl", nccl), ("--set=train.batch_size=2", batch)] {
        for run in finish(start(folder.path(), &out, 3, |_| vec![option])) {
            assert_eq!(run.status, 2, "{}", run.stdout);
            assert!(run.stderr.contains(expected), "{}", run.stderr);
        }
        assert!(!out.exists(), "{option}");
    }
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

/// `reproduce shapes_vit` on several ranks, with files in `folder`.
fn reproduce(
    folder: &Path,
    files: &[&str],
    more: impl Fn(usize) -> Vec<&'static str>,
) -> impl Fn(usize) -> Vec<String> {
    let mut fixed = ["reproduce", "shapes_vit", "--device=cpu", "--threads=1"].map(str::to_owned).to_vec();
    fixed.extend(files.iter().map(|name| format!("--{name}={}", folder.join(name).display())));
    move |rank| fixed.iter().cloned().chain(more(rank).into_iter().map(str::to_owned)).collect()
}

fn results(folder: &Path) -> Value {
    let mut result: Value = serde_json::from_slice(&fs_err::read(folder.join("json")).unwrap()).unwrap();
    let fields = result.as_object_mut().unwrap();
    // Times, memory, and the note on the number of ranks.
    for field in ["stages", "time", "peak_memory_bytes", "notes"] {
        fields.remove(field).unwrap();
    }
    result
}

/// The printed result without its stages, which have times, and without the note on the number of ranks.
fn without_stages(stdout: &str) -> String {
    let (before, stages) = stdout.split_once("│ stage ").unwrap();
    let (before, _) = before.rsplit_once('┌').unwrap();
    let (_, border) = stages.split_once('└').unwrap();
    let (_, after) = border.split_once('\n').unwrap();
    let lines = before.lines().chain(after.lines()).filter(|line| !line.starts_with("note: computed by "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// 200 images in four blocks. The ranks keep their rows; with a file, rank 0 has all of them.
#[test]
fn reproduce_on_several_ranks_is_bit_identical() {
    let run = |name: &str, world_size: usize, files: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let runs = finish(start_ranks(world_size, reproduce(folder.path(), files, |_| vec!["--engine=torch"])));
        for (rank, run) in runs.iter().enumerate() {
            assert_eq!(run.status, 0, "{name}, rank {rank}: {}", run.stderr);
            assert_eq!(run.stdout.is_empty(), rank > 0, "{name}: {}", run.stdout);
        }
        (folder, runs[0].stdout.clone())
    };
    let (one, table) = run("one", 1, &["json", "sims", "run"]);
    let expected = results(one.path());
    for world_size in [2, 3, 5] {
        let (folder, found) = run("parts", world_size, &["json"]);
        assert_eq!(results(folder.path()), expected);
        assert!(found.contains(&format!("computed by {world_size} processes")), "{found}");
        assert_eq!(without_stages(&found), without_stages(&table));
    }
    let (folder, _) = run("files", 3, &["json", "sims", "run"]);
    assert_eq!(results(folder.path()), expected);
    for name in ["sims", "run"] {
        let [found, expected] = [&folder, &one].map(|folder| fs_err::read(folder.path().join(name)).unwrap());
        assert!(found == expected, "{name} differs");
    }
}

#[test]
fn matrix_of_a_killed_rank_is_resumed_on_another_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    // Rank 1 waits for the second block of rank 0 when it is killed.
    let slow = reproduce(folder.path(), &["sims"], |_| vec!["--engine=rust"]);
    let mut ranks = start_ranks(2, &slow);
    let mut stderr = BufReader::new(ranks[0].stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("saved ") {
        assert!(stderr.read_line(&mut text).unwrap() > 0, "it ended without having saved: {text}");
    }
    ranks[1].kill().unwrap();
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(ranks[0].wait().unwrap().code(), Some(2), "{text}");
    assert!(text.contains("rank 1 does not answer"), "{text}");
    ranks[1].wait().unwrap();
    assert!(!folder.path().join("sims").exists());

    for run in finish(start_ranks(3, &slow)) {
        assert_eq!(run.status, 0, "{}", run.stderr);
    }
    let whole = tempfile::tempdir().unwrap();
    assert_eq!(finish(start_ranks(1, reproduce(whole.path(), &["sims"], |_| vec!["--engine=rust"])))[0].status, 0);
    let [found, expected] = [&folder, &whole].map(|folder| fs_err::read(folder.path().join("sims")).unwrap());
    assert!(found == expected);
}

#[test]
fn ranks_that_evaluate_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&'static str, &str); 2] = [("--limit=8", "data hash"), ("--batch-size=8", "batch size")];
    for (option, what) in cases {
        let more = |rank| if rank == 1 { vec![option] } else { vec![] };
        for run in finish(start_ranks(2, reproduce(folder.path(), &[], more))) {
            assert_eq!(run.status, 2, "{}", run.stdout);
            assert!(run.stderr.contains(&format!("rank 1 has another {what}")), "{}", run.stderr);
        }
    }
}
