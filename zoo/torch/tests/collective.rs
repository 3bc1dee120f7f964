//! Process groups over loopback: all operations, and the failures that a group has to survive.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)] // test helpers

mod ranks;

use std::{
    net::{Ipv4Addr, TcpListener},
    process::Command,
    time::{Duration, Instant},
};

use laps::{CommBackend, ProcessGroup};
use laps_model::encoder::Device;
use laps_torch::{TorchDevice, distributed::Collective};
use ranks::{PATIENT, RankProcess, free_port, run, scenario};
use tch::{Kind, Tensor};

/// Timeout of groups that are expected to fail.
const SHORT: Duration = Duration::from_secs(10);
/// Longest time of a test of such a group on a busy machine: the timeout, that of asking who failed, and the start.
const SHORT_TEST: Duration = Duration::from_secs(60);

fn cpu() -> TorchDevice {
    TorchDevice::open(Device::Cpu).unwrap()
}

/// The device of the test of NCCL: that of `LAPS_ZOO_TEST_DEVICE`, such as `cuda:0`.
fn test_device() -> Device {
    std::env::var("LAPS_ZOO_TEST_DEVICE").map_or(Device::Cpu, |device| device.parse().unwrap())
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.reshape([-1]).to_device(tch::Device::Cpu)).unwrap()
}

/// One process of a group; does nothing as a test.
#[test]
fn worker() {
    let Some((scenario, environment)) = scenario() else { return };
    let (backend, device) = match scenario.as_str() {
        "unnamed" => (CommBackend::Auto, cpu()),
        "nccl" => (CommBackend::Nccl, TorchDevice::open(test_device()).unwrap()),
        _ => (environment.backend, cpu()),
    };
    let group = match Collective::open(&ProcessGroup { backend, ..environment }, device) {
        Ok(group) => group,
        Err(error) => {
            println!("failed: {error}");
            std::process::exit(3);
        }
    };
    let failure = |group: &Collective| {
        let error = group.all_reduce(&[Tensor::ones([4], (Kind::Float, tch::Device::Cpu))]).unwrap_err();
        println!("failed: {error}");
        std::process::exit(3);
    };
    match scenario.as_str() {
        "operations" | "nccl" => operations(&group),
        "unnamed" => println!("communicates: {}", group.communicates()),
        // The others are in the next operation while rank 1 ends.
        "killed" => {
            group.barrier().unwrap();
            if group.rank() == 1 {
                std::process::abort();
            }
            failure(&group);
        }
        "hanging" => {
            group.barrier().unwrap();
            if group.rank() == 1 {
                // Until the test ends this process.
                std::io::stdin().read_line(&mut String::new()).unwrap();
                return;
            }
            failure(&group);
        }
        // All threads of rank 0, that of the store too.
        "stopped" => {
            group.barrier().unwrap();
            if group.rank() == 0 {
                let own = std::process::id().to_string();
                assert!(Command::new("kill").args(["-STOP", &own]).status().unwrap().success());
                // Until the test ends this process.
                std::io::stdin().read_line(&mut String::new()).unwrap();
                return;
            }
            failure(&group);
        }
        "leaving" => {
            group.barrier().unwrap();
            if group.rank() == 1 {
                group.leave("cannot read `a.jpg`\n  caused by: an error");
                return;
            }
            failure(&group);
        }
        "differing" => {
            let seed = if group.rank() == 1 { "8" } else { "7" };
            println!("failed: {}", group.require_equal("seed", seed).unwrap_err());
        }
        other => panic!("{other}"),
    }
}

fn operations(group: &Collective) {
    let (rank, world_size) = (group.rank(), group.world_size());
    let floats = (Kind::Float, group.device());
    let sum = (world_size * (world_size + 1) / 2) as f32;

    // Several tensors at once, of several buckets' sizes.
    let tensors = [3, 1 << 16, 1].map(|count| Tensor::ones([count], floats) * (rank + 1) as f64);
    group.all_reduce(&tensors).unwrap();
    for tensor in &tensors {
        assert!(values(tensor).iter().all(|&value| value == sum));
    }

    let own = Tensor::from_slice(&[rank as f32, 10.0 + rank as f32]).reshape([1, 2]).to_device(group.device());
    let expected: Vec<f32> = (0..world_size).flat_map(|rank| [rank as f32, 10.0 + rank as f32]).collect();
    let gathered = group.all_gather(&own).unwrap();
    assert_eq!((gathered.size(), values(&gathered)), (vec![world_size as i64, 2], expected));
    // A strided view.
    let square = Tensor::from_slice(&[0.0_f32, 1.0, 2.0, 3.0]).reshape([2, 2]).to_device(group.device());
    let strided = square.transpose(0, 1);
    assert_eq!(values(&group.all_gather(&strided).unwrap())[..4], [0.0, 2.0, 1.0, 3.0]);

    // Rank `r` has `2r` rows: none on rank 0.
    let rows: Vec<usize> = (0..world_size).map(|rank| 2 * rank).collect();
    let own = Tensor::full([2 * rank as i64, 3], rank as f64, floats);
    let gathered = group.all_gather_rows(&own, &rows).unwrap();
    let expected: Vec<f32> = (0..world_size).flat_map(|rank| vec![rank as f32; 2 * rank * 3]).collect();
    assert_eq!(values(&gathered), expected);

    let root = world_size - 1;
    let tensor = Tensor::from_slice(&[rank as f32; 5]).to_device(group.device());
    group.broadcast(&tensor, root).unwrap();
    assert_eq!(values(&tensor), [root as f32; 5]);

    assert_eq!(
        group.all_gather_number(7 - rank as i64).unwrap(),
        (0..world_size as i64).map(|r| 7 - r).collect::<Vec<_>>()
    );
    assert_eq!(
        group.all_gather_numbers([rank as i64, -1]).unwrap(),
        (0..world_size as i64).map(|r| [r, -1]).collect::<Vec<_>>()
    );
    let texts: Vec<String> = (0..world_size).map(|rank| "ü".repeat(rank)).collect();
    assert_eq!(group.all_gather_text(&texts[rank]).unwrap(), texts);
    assert!(group.any(rank == root).unwrap() && !group.any(false).unwrap());
    group.require_equal("seed", "7").unwrap();
    group.barrier().unwrap();
    assert!(group.bytes() > 0 && group.time() > Duration::ZERO);
    println!("all operations agree");
}

#[test]
fn operations_agree_on_two_and_three_ranks() {
    for world_size in [2, 3] {
        for text in run("worker", "operations", world_size) {
            assert!(text.contains("all operations agree"), "{text}");
        }
    }
}

/// The workers name their backend.
#[test]
fn one_rank_runs_operations_over_gloo() {
    let texts = run("worker", "operations", 1);
    assert!(texts[0].contains("all operations agree"), "{}", texts[0]);
}

/// NCCL refuses two ranks on one GPU, so a machine with one GPU runs it with one rank.
#[test]
fn one_rank_runs_operations_over_nccl() {
    if test_device() == Device::Cpu {
        return println!("skipped: LAPS_ZOO_TEST_DEVICE names no GPU");
    }
    let texts = run("worker", "nccl", 1);
    assert!(texts[0].contains("all operations agree"), "{}", texts[0]);
}

#[test]
fn one_rank_without_a_named_backend_opens_nothing() {
    let texts = run("worker", "unnamed", 1);
    assert!(texts[0].contains("communicates: false"), "{}", texts[0]);
}

#[test]
fn group_of_one_does_nothing() {
    let group = Collective::single(cpu());
    let tensor = Tensor::from_slice(&[1.0_f32, 2.0]);
    group.all_reduce(std::slice::from_ref(&tensor)).unwrap();
    group.broadcast(&tensor, 0).unwrap();
    group.barrier().unwrap();
    assert_eq!(values(&group.all_gather_rows(&tensor, &[2]).unwrap()), [1.0, 2.0]);
    assert_eq!((group.bytes(), group.time()), (0, Duration::ZERO));
}

/// Runs a scenario on three ranks that fails on all but rank `failed`, and returns what they print.
fn failures(scenario: &str, failed: usize, timeout: Duration) -> Vec<String> {
    let port = free_port();
    let mut ranks: Vec<RankProcess> =
        (0..3).map(|rank| RankProcess::start("worker", scenario, rank, 3, port, timeout)).collect();
    let failed = ranks.remove(failed);
    let finished = ranks.into_iter().map(|rank| {
        let (success, text) = rank.finish();
        assert!(!success, "{text}");
        text
    });
    let texts = finished.collect();
    // Ends the rank that hangs.
    drop(failed);
    texts
}

#[test]
fn killed_rank_is_named_by_the_others() {
    // The patience of a timeout would show: the closed connection is noticed at once.
    let began = Instant::now();
    for text in failures("killed", 1, PATIENT) {
        assert!(text.contains("failed: the process group failed during all-reduce: rank 1 does not answer"), "{text}");
    }
    assert!(began.elapsed() < PATIENT, "{:?}", began.elapsed());
}

#[test]
fn hanging_rank_is_named_after_the_timeout() {
    let began = Instant::now();
    for text in failures("hanging", 1, SHORT) {
        assert!(text.contains("rank 1 does not answer"), "{text}");
    }
    assert!(began.elapsed() < SHORT_TEST, "{:?}", began.elapsed());
}

/// c10d waits without limit for a store that is stopped.
#[test]
fn stopped_rank_with_the_store_is_named_after_the_timeout() {
    let began = Instant::now();
    for text in failures("stopped", 0, SHORT) {
        assert!(text.contains("during all-reduce: rank 0 does not answer; it hosts the store"), "{text}");
    }
    assert!(began.elapsed() < SHORT_TEST, "{:?}", began.elapsed());
}

#[test]
fn leaving_rank_reports_its_reason() {
    for text in failures("leaving", 1, PATIENT) {
        assert!(text.contains("rank 1 has ended: cannot read `a.jpg`"), "{text}");
    }
}

#[test]
fn different_values_are_refused_by_name_on_all_ranks() {
    for text in run("worker", "differing", 3) {
        let expected = "rank 1 has another seed\n  expected: 7\n  found: 8";
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn missing_ranks_are_listed() {
    let port = free_port();
    let ranks = [0, 2].map(|rank| RankProcess::start("worker", "operations", rank, 4, port, SHORT));
    let texts = ranks.map(RankProcess::finish);
    for (success, text) in &texts {
        assert!(!success, "{text}");
    }
    // Rank 2 may find that rank 0 has ended.
    let expected = "not all ranks have joined\n  expected: 4 ranks\n  found: 2; missing: 1, 3";
    assert!(texts[0].1.contains(expected), "{}", texts[0].1);
}

#[test]
fn different_world_sizes_are_refused() {
    let port = free_port();
    let ranks =
        [(0, 2), (1, 3)].map(|(rank, size)| RankProcess::start("worker", "operations", rank, size, port, PATIENT));
    let texts = ranks.map(RankProcess::finish);
    for (success, text) in &texts {
        assert!(!success, "{text}");
    }
    let expected = "expected: WORLD_SIZE=2 on all ranks\n  found: WORLD_SIZE=3 on rank 1";
    assert!(texts[0].1.contains(expected), "{}", texts[0].1);
}

/// c10d waits for such a server without limit.
#[test]
fn silent_server_ends_in_an_error() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let accepted = std::thread::spawn(move || server.accept().unwrap());
    let began = Instant::now();
    let (success, text) = RankProcess::start("worker", "operations", 1, 2, port, SHORT).finish();
    assert!(!success && text.contains("failed: rank 1 cannot join the process group"), "{text}");
    assert!(began.elapsed() < SHORT_TEST, "{:?}", began.elapsed());
    drop(accepted.join().unwrap());
}

#[test]
fn absent_server_ends_in_an_error() {
    let began = Instant::now();
    let (success, text) = RankProcess::start("worker", "operations", 1, 2, free_port(), SHORT).finish();
    assert!(!success && text.contains("failed: rank 1 cannot join the process group"), "{text}");
    assert!(began.elapsed() < SHORT_TEST, "{:?}", began.elapsed());
}
