//! Sums of gradients that start during a backward pass.

use std::time::Duration;

use laps::{CommBackend, GradientOverlap, ProcessGroup};
use laps_model::encoder::Device;
use tch::{Kind, Tensor as Tch};

use super::{
    super::{
        ranks,
        raw_sum::{SummedWeight, has_hook, run_backward_early},
    },
    Collective, GradientSum, overlaps,
};
use crate::TorchDevice;

const COUNT: i64 = 3;

/// A leaf tensor with a gradient.
fn weight() -> Tch {
    Tch::ones([COUNT], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true)
}

/// A backward pass that adds `gradient` to the gradient of each value.
fn backward(weight: &Tch, gradient: f64) {
    (weight * gradient).sum(Kind::Float).backward();
}

/// A group of several ranks whose gradients are their number and 1.
struct Sums {
    group: Collective,
    own: f64,
    /// Sum of `own` over all ranks.
    all: f64,
}

impl Sums {
    fn new(group: Collective) -> Self {
        let own = (group.rank() + 1) as f64;
        let all = (1..=group.world_size()).map(|number| number as f64).sum();
        Self { group, own, all }
    }

    /// Begins the sums of buckets, to each of whose weights `passes` backward passes add.
    fn begin(&self, buckets: &[&[&Tch]], passes: i32) -> GradientSum {
        let buckets =
            buckets.iter().map(|bucket| bucket.iter().map(|&tensor| SummedWeight { tensor, passes }).collect());
        self.group.begin_sum(&buckets.collect::<Vec<_>>()).unwrap().unwrap()
    }

    fn assert_sum(&self, weight: &Tch, passes: f64) {
        let gradient = Vec::<f32>::try_from(weight.grad()).unwrap();
        assert_eq!(gradient, vec![(passes * self.all) as f32; COUNT as usize]);
        assert!(!has_hook(weight));
    }
}

/// Runs a scenario as one rank; passes at once when it is run as a test.
#[test]
fn worker() {
    let Some((scenario, environment)) = ranks::scenario() else { return };
    let sums = Sums::new(Collective::open(&environment, TorchDevice::open(Device::Cpu).unwrap()).unwrap());
    match scenario.as_str() {
        "sums" => {
            buckets_start_in_their_order(&sums);
            weight_without_gradient_delays_its_bucket(&sums);
            bucket_waits_for_all_passes(&sums);
            sums_without_overlap_start_at_the_end(&sums);
            dropped_sum_leaves_no_hook(&sums);
            failed_backward_pass_leaves_no_hook(&sums);
            println!("all sums agree");
        }
        "changed" => {
            let weight = weight();
            let sum = sums.begin(&[&[&weight]], 1);
            backward(&weight, sums.own);
            backward(&weight, sums.own);
            println!("failed: {}", sums.group.finish_sum(sum).unwrap_err());
            assert!(!has_hook(&weight));
        }
        "killed" => {
            let [first, second] = [weight(), weight()];
            let sum = sums.begin(&[&[&first], &[&second]], 1);
            backward(&first, sums.own);
            assert_eq!(sum.started(), 1);
            if sums.group.rank() == 1 {
                std::process::abort();
            }
            backward(&second, sums.own);
            println!("failed: {}", sums.group.finish_sum(sum).unwrap_err());
            assert!(!has_hook(&first) && !has_hook(&second));
        }
        other => panic!("{other}"),
    }
}

fn buckets_start_in_their_order(sums: &Sums) {
    let [first, second, third] = [weight(), weight(), weight()];
    let (time, bytes) = (sums.group.time(), sums.group.bytes());
    let sum = sums.begin(&[&[&first, &second], &[&third]], 1);
    // The last one is ready first.
    for (weight, started) in [(&third, 0), (&second, 0), (&first, 2)] {
        backward(weight, sums.own);
        assert_eq!(sum.started(), started);
    }
    // The operations of a backward pass are not waited for.
    assert_eq!((sums.group.time(), sums.group.bytes()), (time, bytes));
    sums.group.finish_sum(sum).unwrap();
    assert!(sums.group.time() > time);
    assert_eq!(sums.group.bytes() - bytes, 3 * 4 * COUNT as u64);
    [&first, &second, &third].into_iter().for_each(|weight| sums.assert_sum(weight, 1.0));
}

fn weight_without_gradient_delays_its_bucket(sums: &Sums) {
    let [unused, second] = [weight(), weight()];
    let sum = sums.begin(&[&[&unused], &[&second]], 1);
    backward(&second, sums.own);
    assert_eq!(sum.started(), 0);
    sums.group.finish_sum(sum).unwrap();
    sums.assert_sum(&second, 1.0);
    assert!(!unused.grad().defined());
}

fn bucket_waits_for_all_passes(sums: &Sums) {
    let weight = weight();
    let sum = sums.begin(&[&[&weight]], 2);
    backward(&weight, sums.own);
    assert_eq!(sum.started(), 0);
    backward(&weight, sums.own);
    assert_eq!(sum.started(), 1);
    sums.group.finish_sum(sum).unwrap();
    sums.assert_sum(&weight, 2.0);
}

fn sums_without_overlap_start_at_the_end(sums: &Sums) {
    let weight = weight();
    let sum = sums.begin(&[&[&weight]], 0);
    assert!(!has_hook(&weight));
    backward(&weight, sums.own);
    assert_eq!(sum.started(), 0);
    sums.group.finish_sum(sum).unwrap();
    sums.assert_sum(&weight, 1.0);
}

/// As after an error of the backward pass. The group stays usable if all ranks have started the same.
fn dropped_sum_leaves_no_hook(sums: &Sums) {
    let [first, second] = [weight(), weight()];
    let sum = sums.begin(&[&[&first], &[&second]], 1);
    backward(&first, sums.own);
    assert_eq!(sum.started(), 1);
    assert!(has_hook(&first) && has_hook(&second));
    drop(sum);
    assert!(!has_hook(&first) && !has_hook(&second));
    sums.group.barrier().unwrap();
}

/// The backward pass ends at a tensor that was changed. A weight that was converted before the forward pass has its gradient by
/// then only with `run_backward_early`.
fn failed_backward_pass_leaves_no_hook(sums: &Sums) {
    for is_early in [false, true] {
        let weight = weight();
        let sum = sums.begin(&[&[&weight]], 1);
        let cast = weight.to_kind(Kind::BFloat16);
        if is_early {
            run_backward_early(&cast).unwrap();
        }
        let input = Tch::ones([COUNT], (Kind::BFloat16, tch::Device::Cpu)).set_requires_grad(true);
        let loss = (&input * &input * cast).sum(Kind::Float);
        let _ = tch::no_grad(|| input.shallow_clone().fill_(2.0));
        let error = loss.f_backward().unwrap_err().to_string();
        assert!(error.contains("modified by an inplace operation"), "{error}");
        assert_eq!(sum.started(), usize::from(is_early));
        drop(sum);
        assert!(!has_hook(&weight));
        sums.group.barrier().unwrap();
    }
}

const WORKER: &str = "distributed::collective::tests::worker";

#[test]
fn sums_start_during_the_backward_pass_of_two_and_three_ranks() {
    for world_size in [2, 3] {
        for text in ranks::run(WORKER, "sums", world_size) {
            assert!(text.contains("all sums agree"), "{text}");
        }
    }
}

#[test]
fn error_of_a_hook_is_that_of_the_sum() {
    for text in ranks::run(WORKER, "changed", 2) {
        let expected = "failed: the process group failed during all-reduce: all ranks answer\n  caused by: a gradient has \
                        changed after it was final";
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn rank_killed_during_the_backward_pass_is_named_by_the_others() {
    let port = ranks::free_port();
    let start = |rank| ranks::RankProcess::start(WORKER, "killed", rank, 3, port, ranks::PATIENT);
    for (rank, process) in [0, 1, 2].map(start).into_iter().enumerate() {
        let (success, text) = process.finish();
        assert_eq!(success, rank != 1, "{text}");
        let expected = "failed: the process group failed during all-reduce: rank 1 does not answer";
        assert_eq!(text.contains(expected), rank != 1, "{text}");
    }
}

#[test]
fn overlap_is_chosen_by_library_and_machines() {
    let group = |overlap, local_world_size| ProcessGroup {
        rank: 0,
        world_size: 4,
        local_rank: 0,
        local_world_size,
        master_addr: "node-0".to_owned(),
        master_port: 29500,
        restart_count: 0,
        agent_store: false,
        backend: CommBackend::Auto,
        overlap,
        timeout: Duration::from_secs(1),
    };
    for (local_world_size, nccl, expected) in [(4, false, false), (4, true, true), (2, false, true), (2, true, true)] {
        assert_eq!(overlaps(&group(GradientOverlap::Auto, local_world_size), nccl), expected);
        assert!(overlaps(&group(GradientOverlap::On, local_world_size), nccl));
        assert!(!overlaps(&group(GradientOverlap::Off, local_world_size), nccl));
    }
}
