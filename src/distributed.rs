//! Options of commands that run as several processes.

use std::{num::NonZeroU32, rc::Rc, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use laps::{Backends, CommBackend, GradientOverlap, ProcessGroup, RankGroup, SingleRank};
use laps_bench::machine::processors;
use laps_model::encoder::Device;

/// How the processes of a distributed run communicate.
#[derive(Args)]
pub(crate) struct DistributedArgs {
    /// Library that the processes of a distributed run communicate with
    #[arg(long, value_enum, value_name = "NAME", default_value = "auto")]
    dist_backend: DistBackend,
    /// Seconds after which a process that does not answer ends a distributed run
    #[arg(long, value_name = "SECONDS", default_value = "1800")]
    dist_timeout: NonZeroU32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DistBackend {
    /// NCCL on GPUs and Gloo on CPUs
    Auto,
    /// Over TCP
    Gloo,
    /// One GPU per process
    Nccl,
}

/// When a distributed run sums gradients.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DistOverlap {
    /// With NCCL, and with Gloo if the processes are on several machines
    Auto,
    /// During the backward pass
    On,
    /// After the backward pass
    Off,
}

impl From<DistOverlap> for GradientOverlap {
    fn from(overlap: DistOverlap) -> Self {
        match overlap {
            DistOverlap::Auto => Self::Auto,
            DistOverlap::On => Self::On,
            DistOverlap::Off => Self::Off,
        }
    }
}

impl DistributedArgs {
    /// The process group of the environment; None if `WORLD_SIZE` is not set.
    pub(crate) fn process_group(&self) -> Result<Option<ProcessGroup>> {
        let backend = match self.dist_backend {
            DistBackend::Auto => CommBackend::Auto,
            DistBackend::Gloo => CommBackend::Gloo,
            DistBackend::Nccl => CommBackend::Nccl,
        };
        let timeout = Duration::from_secs(self.dist_timeout.get().into());
        let group = ProcessGroup::from_environment()?;
        Ok(group.map(|group| ProcessGroup { backend, timeout, ..group }))
    }
}

/// Whether the environment describes a run of several processes, which need libtorch to communicate. A description that
/// cannot be used is reported by the command itself.
pub(crate) fn is_distributed() -> bool {
    ProcessGroup::from_environment().is_ok_and(|group| group.is_some_and(|group| group.is_distributed()))
}

/// Whether this process is alone, or rank 0 of a distributed run. The other ranks print nothing but errors.
pub(crate) fn is_first() -> bool {
    ProcessGroup::from_environment().is_ok_and(|group| group.is_none_or(|group| group.rank == 0))
}

/// Joins the group of a command whose processes share its work.
pub(crate) fn join(group: Option<&ProcessGroup>, backends: Backends, device: Device) -> Result<Rc<dyn RankGroup>> {
    match group {
        Some(group) if group.is_distributed() => Ok(backends.libtorch()?.join(group, device)?),
        _ => Ok(Rc::new(SingleRank)),
    }
}

/// Default number of threads: the processes of a machine share its CPUs.
pub(crate) fn threads(group: Option<&ProcessGroup>) -> usize {
    (processors() / group.map_or(1, |group| group.local_world_size)).max(1)
}
