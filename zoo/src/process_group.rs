//! The process group of a distributed run, as torchrun, PyTorchJob and `laps-zoo launch` describe it in the environment.

use std::{str::FromStr, time::Duration};

use laps_model::encoder::Device;

use crate::{Error, Result};

/// One process of a distributed run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessGroup {
    /// `RANK`: number of this process among all.
    pub rank: usize,
    /// `WORLD_SIZE`: number of all processes.
    pub world_size: usize,
    /// `LOCAL_RANK`: number of this process among those of its machine, which is that of its GPU.
    pub local_rank: usize,
    /// `LOCAL_WORLD_SIZE`: processes of this machine.
    pub local_world_size: usize,
    /// `MASTER_ADDR`: the host of the key-value store.
    pub master_addr: String,
    /// `MASTER_PORT`: the port of the store.
    pub master_port: u16,
    /// `TORCHELASTIC_RESTART_COUNT`: restarts of the group so far. The store may survive them.
    pub restart_count: usize,
    /// `TORCHELASTIC_USE_AGENT_STORE`: whether torchrun hosts the store; otherwise rank 0 does.
    pub agent_store: bool,
    /// The communication library.
    pub backend: CommBackend,
    /// When the gradients of a training step are summed over all processes.
    pub overlap: GradientOverlap,
    /// Time after which a rank that does not answer is an error.
    pub timeout: Duration,
}

/// Library that ranks communicate with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommBackend {
    /// NCCL on GPUs and Gloo on CPUs.
    #[default]
    Auto,
    /// Gloo, over TCP.
    Gloo,
    /// NCCL, with one GPU per rank.
    Nccl,
}

/// Whether the gradients of a training step are summed during the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradientOverlap {
    /// With NCCL, and with Gloo if the processes are on several machines.
    #[default]
    Auto,
    /// During the backward pass.
    On,
    /// After the backward pass.
    Off,
}

impl ProcessGroup {
    /// The default of [`timeout`](Self::timeout): that of torch's Gloo backend.
    pub const TIMEOUT: Duration = Duration::from_secs(1800);

    /// Reads the variables of this process. None if `WORLD_SIZE` is not set.
    ///
    /// # Errors
    /// [`Error::Environment`]: a variable that is missing or invalid.
    pub fn from_environment() -> Result<Option<Self>> {
        Self::read(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        if variable("WORLD_SIZE").is_none_or(|value| value.is_empty()) {
            return Ok(None);
        }
        let world_size: usize = parse(&variable, "WORLD_SIZE", "a number of processes", None)?;
        if world_size == 0 {
            return Err(invalid("WORLD_SIZE", "at least 1", "0"));
        }
        let rank: usize = parse(&variable, "RANK", "a number from 0", None)?;
        if rank >= world_size {
            return Err(invalid("RANK", &format!("less than WORLD_SIZE={world_size}"), &rank.to_string()));
        }
        let alone = world_size == 1;
        let master_addr = match variable("MASTER_ADDR").filter(|value| !value.is_empty()) {
            Some(address) => address,
            None if alone => String::new(),
            None => return Err(invalid("MASTER_ADDR", "the host of rank 0", "none")),
        };
        Ok(Some(Self {
            rank,
            world_size,
            // PyTorchJob starts one process per machine and sets neither.
            local_rank: parse(&variable, "LOCAL_RANK", "a number from 0", Some(0))?,
            local_world_size: parse(&variable, "LOCAL_WORLD_SIZE", "a number of processes", Some(1))?.max(1),
            master_addr,
            master_port: parse(&variable, "MASTER_PORT", "a port", alone.then_some(0))?,
            restart_count: parse(&variable, "TORCHELASTIC_RESTART_COUNT", "a number", Some(0))?,
            agent_store: variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            backend: CommBackend::Auto,
            overlap: GradientOverlap::Auto,
            timeout: Self::TIMEOUT,
        }))
    }

    /// The device of this process. `Device::Auto` is the GPU of the local rank, if there are GPUs.
    pub fn device(&self, requested: Device, gpus: usize) -> Device {
        match requested {
            Device::Auto if gpus > 0 => Device::Cuda(self.local_rank),
            device => device,
        }
    }

    /// Whether other processes belong to the run.
    pub fn is_distributed(&self) -> bool {
        self.world_size > 1
    }
}

fn parse<T: FromStr>(
    variable: impl Fn(&str) -> Option<String>,
    name: &'static str,
    expected: &str,
    default: Option<T>,
) -> Result<T> {
    match variable(name).filter(|value| !value.is_empty()) {
        Some(value) => value.trim().parse().map_err(|_| invalid(name, expected, &format!("`{value}`"))),
        None => default.ok_or_else(|| invalid(name, expected, "none")),
    }
}

fn invalid(variable: &'static str, expected: &str, found: &str) -> Error {
    Error::Environment { variable, expected: expected.to_owned(), found: found.to_owned() }
}

#[cfg(test)]
mod tests {
    use laps_model::encoder::Device;

    use super::ProcessGroup;

    fn read(variables: &[(&str, &str)]) -> crate::Result<Option<ProcessGroup>> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        ProcessGroup::read(find)
    }

    #[test]
    fn environment_of_torchrun_is_read() {
        let torchrun = [
            ("WORLD_SIZE", "4"),
            ("RANK", "3"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "node-0"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
        ];
        let group = read(&torchrun).unwrap().unwrap();
        assert_eq!((group.rank, group.world_size, group.local_rank, group.local_world_size), (3, 4, 1, 2));
        assert_eq!((group.master_addr.as_str(), group.master_port), ("node-0", 29500));
        assert_eq!((group.restart_count, group.agent_store, group.is_distributed()), (2, true, true));
    }

    #[test]
    fn environment_of_pytorchjob_is_read() {
        let job = [("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "job-master-0"), ("MASTER_PORT", "23456")];
        let group = read(&job).unwrap().unwrap();
        assert_eq!((group.local_rank, group.local_world_size, group.agent_store), (0, 1, false));
    }

    #[test]
    fn local_rank_chooses_the_gpu() {
        let torchrun = [
            ("WORLD_SIZE", "4"),
            ("RANK", "3"),
            ("LOCAL_RANK", "1"),
            ("MASTER_ADDR", "node-0"),
            ("MASTER_PORT", "29500"),
        ];
        let group = read(&torchrun).unwrap().unwrap();
        assert_eq!(group.device(Device::Auto, 2), Device::Cuda(1));
        assert_eq!(group.device(Device::Auto, 0), Device::Auto);
        for requested in [Device::Cpu, Device::Cuda(0)] {
            assert_eq!(group.device(requested, 2), requested);
        }
    }

    #[test]
    fn unset_world_size_means_one_process() {
        assert_eq!(read(&[("RANK", "1")]).unwrap(), None);
        let alone = read(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap().unwrap();
        assert!(!alone.is_distributed());
    }

    #[test]
    fn missing_and_invalid_variables_are_named() {
        let message = |variables: &[(&str, &str)]| read(variables).unwrap_err().to_string();
        let expect = |name: &str, expected: &str, found: &str| {
            format!("the environment variable `{name}` cannot be used\n  expected: {expected}\n  found: {found}")
        };
        assert_eq!(message(&[("WORLD_SIZE", "2")]), expect("RANK", "a number from 0", "none"));
        let two = [("WORLD_SIZE", "2"), ("RANK", "1")];
        assert_eq!(message(&two), expect("MASTER_ADDR", "the host of rank 0", "none"));
        assert_eq!(message(&[("WORLD_SIZE", "2"), ("RANK", "2")]), expect("RANK", "less than WORLD_SIZE=2", "2"));
        assert_eq!(message(&[("WORLD_SIZE", "two")]), expect("WORLD_SIZE", "a number of processes", "`two`"));
        let port = [two[0], two[1], ("MASTER_ADDR", "a"), ("MASTER_PORT", "99999")];
        assert_eq!(message(&port), expect("MASTER_PORT", "a port", "`99999`"));
    }
}
