//! [`Collective`]: operations on all ranks of a group.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc, Mutex,
        mpsc::{RecvTimeoutError, channel},
    },
    thread::Builder,
    time::{Duration, Instant},
};

use laps::{CommBackend, GradientOverlap, ProcessGroup, RankGroup};
use tch::{Kind, Tensor as Tch};

use super::{
    DistributedError,
    raw_group::{self, GroupOptions, RawGroup},
    raw_sum::{RawSum, SummedWeight},
};
use crate::{Error, Result, TorchDevice};

#[cfg(test)]
mod tests;

impl RankGroup for Collective {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_gather_f32(&self, own: &[f32], counts: &[usize]) -> laps::Result<Vec<f32>> {
        Ok(self.gather_values(own, counts)?)
    }

    fn all_gather_u32(&self, own: &[u32], counts: &[usize]) -> laps::Result<Vec<u32>> {
        // The tensors have no unsigned type that every backend can send.
        let own: Vec<i64> = own.iter().copied().map(i64::from).collect();
        Ok(self.gather_values(&own, counts)?.into_iter().map(|value| value as u32).collect())
    }

    fn all_gather_text(&self, text: &str) -> laps::Result<Vec<String>> {
        Ok(Self::all_gather_text(self, text)?)
    }

    fn sum_u32(&self, own: &[u32]) -> laps::Result<Vec<u32>> {
        if self.group.is_none() {
            return Ok(own.to_vec());
        }
        let own: Vec<i64> = own.iter().copied().map(i64::from).collect();
        let tensor = Tch::f_from_slice(&own).map_err(Error::from)?;
        let tensor = tensor.f_to_device(self.device()).map_err(Error::from)?;
        self.all_reduce(std::slice::from_ref(&tensor))?;
        let sums = tensor.f_to_device(tch::Device::Cpu).map_err(Error::from)?;
        let sums = Vec::<i64>::try_from(&sums).map_err(Error::from)?;
        Ok(sums.into_iter().map(|value| value as u32).collect())
    }

    fn require_equal(&self, what: &'static str, value: &str) -> laps::Result<()> {
        Ok(Self::require_equal(self, what, value)?)
    }

    fn leave(&self, reason: &str) {
        Self::leave(self, reason);
    }
}

/// Longest time that ranks wait for each other to find out who failed.
const DIAGNOSIS: Duration = Duration::from_secs(5);
/// Longest time that rank 0 waits until a rank has read what it found.
const READING: Duration = Duration::from_secs(1);

/// A group of processes. A single process has no backend unless it names one. Without a backend, every
/// operation does nothing.
#[derive(Debug)]
pub struct Collective {
    rank: usize,
    world_size: usize,
    device: TorchDevice,
    timeout: Duration,
    /// Whether torchrun hosts the store; otherwise rank 0 does.
    agent_store: bool,
    overlap: bool,
    /// Locked by the thread that uses it.
    group: Option<Arc<Mutex<RawGroup>>>,
    time: Cell<Duration>,
    bytes: Cell<u64>,
    /// Whether an operation failed, so the other ranks know about it.
    failed: Cell<bool>,
}

impl Collective {
    /// A group of this process alone.
    pub fn single(device: TorchDevice) -> Self {
        Self {
            rank: 0,
            world_size: 1,
            device,
            timeout: Duration::ZERO,
            agent_store: false,
            overlap: false,
            group: None,
            time: Cell::default(),
            bytes: Cell::default(),
            failed: Cell::default(),
        }
    }

    /// Joins a group whose tensors are on `device`. A group of one opens nothing, unless it names its backend and the host of
    /// its store: then its operations go through that backend, which is how one GPU runs NCCL.
    ///
    /// # Errors
    /// A backend that the device or the build does not support; ranks that are missing, there twice, or count differently;
    /// a store that does not answer within the timeout.
    pub fn open(group: &ProcessGroup, device: TorchDevice) -> Result<Self> {
        let nccl_device = nccl_device(group, device)?;
        let mut collective = Self { rank: group.rank, world_size: group.world_size, ..Self::single(device) };
        let is_named = group.backend != CommBackend::Auto && !group.master_addr.is_empty();
        if !group.is_distributed() && !is_named {
            return Ok(collective);
        }
        (collective.timeout, collective.agent_store) = (group.timeout, group.agent_store);
        collective.overlap = overlaps(group, nccl_device.is_some());
        let options = GroupOptions {
            host: group.master_addr.clone(),
            port: group.master_port,
            // torchrun keeps its store over restarts.
            prefix: format!("laps-zoo/{}", group.restart_count),
            timeout: group.timeout,
            rank: group.rank,
            world_size: group.world_size,
            hosts_store: group.rank == 0 && !group.agent_store,
            nccl_device,
        };
        collective.group = Some(Arc::new(Mutex::new(join(options)?)));
        Ok(collective)
    }

    /// Number of this process.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// Whether operations go through a backend.
    pub fn communicates(&self) -> bool {
        self.group.is_some()
    }

    /// Device of the tensors that the ranks exchange.
    pub fn device(&self) -> tch::Device {
        self.device.device()
    }

    /// Whether this is rank 0, which prints, writes and decides.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Whether sums of gradients start during the backward pass. Ranks may differ: the order of their operations does not.
    pub(crate) fn overlaps(&self) -> bool {
        self.overlap
    }

    /// Time spent in operations so far, including the wait for other ranks. What runs during a backward pass is not included.
    pub fn time(&self) -> Duration {
        self.time.get()
    }

    /// Bytes that this rank has contributed to operations so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Replaces each tensor by its sum over all ranks. The sum has the same bits on all ranks.
    pub fn all_reduce(&self, tensors: &[Tch]) -> Result<()> {
        self.operate(SUM, tensors.iter().map(bytes).sum(), |group| group.all_reduce(tensors))
    }

    /// Prepares the sums of the gradients of all weights over all ranks, which have the same `buckets`. During the backward
    /// passes that follow, a bucket starts when its gradients are final and the buckets before it have started.
    /// [`finish_sum`](Self::finish_sum) replaces the gradients by their sums. No other operation is allowed in between. None
    /// without a backend.
    pub(crate) fn begin_sum(&self, buckets: &[Vec<SummedWeight<'_>>]) -> Result<Option<GradientSum>> {
        let Some(group) = &self.group else { return Ok(None) };
        let opened = match group.try_lock() {
            Ok(group) => RawSum::open(&group, buckets),
            Err(_) => Err(UNUSABLE.to_owned()),
        };
        let raw = opened.map_err(|reason| self.operation_failed(SUM, group, reason))?;
        Ok(Some(GradientSum { raw, bytes: buckets.iter().flatten().map(|weight| bytes(weight.tensor)).sum() }))
    }

    /// Starts the buckets that have not started, waits for all, and replaces the gradients by their sums, which have the same
    /// bits on all ranks.
    pub(crate) fn finish_sum(&self, sum: GradientSum) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let GradientSum { raw, bytes } = sum;
        raw.start().map_err(|reason| self.operation_failed(SUM, group, reason))?;
        self.operate(SUM, bytes, |_| raw.wait())?;
        raw.copy().map_err(|reason| self.operation_failed(SUM, group, reason))
    }

    /// Replaces a tensor by that of rank `root`.
    pub fn broadcast(&self, tensor: &Tch, root: usize) -> Result<()> {
        self.operate("broadcast", bytes(tensor), |group| group.broadcast(tensor, root))
    }

    /// Waits for all ranks.
    pub fn barrier(&self) -> Result<()> {
        self.operate("barrier", 0, RawGroup::barrier)
    }

    /// The tensors of all ranks, which have the same shape, concatenated along the first dimension.
    pub fn all_gather(&self, tensor: &Tch) -> Result<Tch> {
        if self.group.is_none() {
            return Ok(tensor.shallow_clone());
        }
        // Gloo wants a flat output.
        let input = tensor.f_contiguous()?.f_reshape([-1])?;
        let output = Tch::f_empty([input.size()[0] * self.world_size as i64], (tensor.kind(), tensor.device()))?;
        self.operate("all-gather", bytes(&input), |group| group.all_gather(&output, &input))?;
        let mut shape = tensor.size();
        match shape.first_mut() {
            Some(rows) => *rows *= self.world_size as i64,
            None => shape.push(self.world_size as i64),
        }
        Ok(output.f_reshape(shape)?)
    }

    /// The tensors of all ranks concatenated along the first dimension, in which rank `i` has `rows[i]` rows.
    pub fn all_gather_rows(&self, tensor: &Tch, rows: &[usize]) -> Result<Tch> {
        let longest = rows.iter().copied().max().unwrap_or(0) as i64;
        let mut shape = tensor.size();
        if self.group.is_none() || longest == 0 {
            return Ok(tensor.shallow_clone());
        }
        let own = shape[0];
        shape[0] = longest;
        let padded = match own == longest {
            true => tensor.shallow_clone(),
            false => {
                let padded = Tch::f_zeros(&shape[..], (tensor.kind(), tensor.device()))?;
                padded.f_narrow(0, 0, own)?.f_copy_(tensor)?;
                padded
            }
        };
        let gathered = self.all_gather(&padded)?;
        let parts = rows.iter().enumerate().filter(|(_, rows)| **rows > 0);
        let parts = parts.map(|(rank, &rows)| gathered.f_narrow(0, rank as i64 * longest, rows as i64));
        Ok(Tch::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?)
    }

    /// The values of all ranks one after the other, of which rank `i` has `counts[i]`.
    fn gather_values<T: tch::kind::Element + Copy>(&self, own: &[T], counts: &[usize]) -> Result<Vec<T>>
    where
        Vec<T>: for<'a> TryFrom<&'a Tch, Error = tch::TchError>,
    {
        if self.group.is_none() {
            return Ok(own.to_vec());
        }
        let own = Tch::f_from_slice(own)?.f_to_device(self.device())?;
        let all = self.all_gather_rows(&own, counts)?;
        Ok(Vec::try_from(&all.f_to_device(tch::Device::Cpu)?)?)
    }

    /// One number of each rank, in the order of the ranks.
    pub fn all_gather_number(&self, number: i64) -> Result<Vec<i64>> {
        Ok(self.all_gather_numbers([number])?.into_iter().flatten().collect())
    }

    /// Some numbers of each rank, in the order of the ranks.
    pub fn all_gather_numbers<const N: usize>(&self, numbers: [i64; N]) -> Result<Vec<[i64; N]>> {
        if self.group.is_none() {
            return Ok(vec![numbers]);
        }
        let own = Tch::f_from_slice(&numbers)?.f_to_device(self.device.device())?;
        let all: Vec<i64> = Vec::try_from(&self.all_gather(&own)?.f_to_device(tch::Device::Cpu)?)?;
        let (ranks, _) = all.as_chunks::<N>();
        Ok(ranks.to_vec())
    }

    /// One text of each rank, in the order of the ranks.
    pub fn all_gather_text(&self, text: &str) -> Result<Vec<String>> {
        if self.group.is_none() {
            return Ok(vec![text.to_owned()]);
        }
        let lengths = self.all_gather_number(text.len() as i64)?;
        let lengths: Vec<usize> = lengths.iter().map(|&length| length as usize).collect();
        let own = Tch::f_from_slice(text.as_bytes())?.f_to_device(self.device.device())?;
        let all = self.all_gather_rows(&own, &lengths)?.f_to_device(tch::Device::Cpu)?;
        let mut all: &[u8] = &Vec::try_from(&all)?;
        let mut texts = Vec::with_capacity(lengths.len());
        for length in lengths {
            let (text, rest) = all.split_at(length.min(all.len()));
            texts.push(String::from_utf8_lossy(text).into_owned());
            all = rest;
        }
        Ok(texts)
    }

    /// Whether `value` is true on any rank.
    pub fn any(&self, value: bool) -> Result<bool> {
        if self.group.is_none() {
            return Ok(value);
        }
        let sum = Tch::f_from_slice(&[f32::from(value)])?.f_to_device(self.device.device())?;
        self.all_reduce(std::slice::from_ref(&sum))?;
        Ok(sum.f_double_value(&[0])? > 0.0)
    }

    /// Fails if `value` differs from that of rank 0 on any rank. All ranks name the same rank.
    pub fn require_equal(&self, what: &'static str, value: &str) -> Result<()> {
        let values = self.all_gather_text(value)?;
        match values.iter().position(|other| *other != values[0]) {
            None => Ok(()),
            Some(rank) => {
                self.failed.set(true);
                let [expected, found] = [0, rank].map(|rank| values[rank].clone());
                Err(DistributedError::Different { what, rank, expected, found }.into())
            }
        }
    }

    /// Tells the other ranks why this one ends. Their next operation fails and names it. Does nothing after an operation
    /// failed.
    pub fn leave(&self, reason: &str) {
        if let Some(group) = &self.group
            && !self.failed.get()
            && let Ok(group) = group.try_lock()
        {
            let reason = reason.lines().next().unwrap_or_default();
            // Without a store nobody can be told.
            let _ = group.set(&state_key(self.rank), &format!("{ENDED}{reason}"));
        }
    }

    fn operate(
        &self,
        operation: &'static str,
        bytes: u64,
        run: impl FnOnce(&RawGroup) -> Result<(), String>,
    ) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let began = Instant::now();
        let result = match group.try_lock() {
            Ok(group) => run(&group),
            Err(_) => Err(UNUSABLE.to_owned()),
        };
        self.time.set(self.time.get() + began.elapsed());
        self.bytes.set(self.bytes.get() + bytes);
        result.map_err(|reason| self.operation_failed(operation, group, reason))
    }

    /// The error of an operation, which names the ranks that failed.
    fn operation_failed(&self, operation: &'static str, group: &Arc<Mutex<RawGroup>>, reason: String) -> Error {
        self.failed.set(true);
        let ranks = self.failed_ranks(group);
        DistributedError::Failed { operation, ranks, reason }.into()
    }

    /// The ranks that do not answer or have ended. A store that does not answer is left to the thread that asked it.
    fn failed_ranks(&self, group: &Arc<Mutex<RawGroup>>) -> String {
        let patience = DIAGNOSIS.min(self.timeout);
        let diagnosis = Diagnosis { rank: self.rank, world_size: self.world_size, patience };
        let group = Arc::clone(group);
        let failed =
            within(diagnosis.limit(), move || group.lock().ok().and_then(|group| diagnosis.failed_ranks(&group)));
        failed.ok().flatten().flatten().unwrap_or_else(|| match self.agent_store {
            true => "the store of torchrun does not answer".to_owned(),
            false => "rank 0 does not answer; it hosts the store".to_owned(),
        })
    }
}

/// Sums of gradients between [`Collective::begin_sum`] and [`Collective::finish_sum`]. When it is dropped, no weight has a hook.
#[derive(Debug)]
pub(crate) struct GradientSum {
    raw: RawSum,
    bytes: u64,
}

impl GradientSum {
    /// Number of buckets that have started.
    #[cfg(test)]
    pub(crate) fn started(&self) -> usize {
        self.raw.started()
    }
}

/// The operation of a [`GradientSum`].
const SUM: &str = "all-reduce";
/// Why a group is not available: a thread that asked its store still holds it.
const UNUSABLE: &str = "the store did not answer after an earlier operation failed";

/// Whether sums of gradients start during the backward pass. NCCL sums on a stream of its own. Gloo sums on the cores that
/// compute the backward pass, so starting early pays only if the time is spent on a network.
fn overlaps(group: &ProcessGroup, nccl: bool) -> bool {
    match group.overlap {
        GradientOverlap::On => true,
        GradientOverlap::Off => false,
        GradientOverlap::Auto => nccl || group.world_size > group.local_world_size,
    }
}

/// How a rank finds out over the store which ranks have failed.
#[derive(Clone, Copy)]
struct Diagnosis {
    rank: usize,
    world_size: usize,
    /// Longest time that rank 0 waits for the others.
    patience: Duration,
}

impl Diagnosis {
    /// Longest time that it takes if the store answers.
    fn limit(self) -> Duration {
        let waits = match self.rank {
            0 => self.patience + READING * self.world_size as u32,
            _ => 2 * self.patience,
        };
        waits + self.patience / 2
    }

    /// The ranks that do not answer or have ended; None if the store refuses to tell. Rank 0 asks the others and publishes
    /// what it found, because the store ends with it.
    fn failed_ranks(self, group: &RawGroup) -> Option<String> {
        group.set(&state_key(self.rank), ALIVE).ok()?;
        if self.rank > 0 {
            let verdict = group.get(VERDICT, 2 * self.patience);
            // Rank 0 waits for this.
            let _ = group.set(&heard_key(self.rank), "");
            return Some(verdict.unwrap_or_else(|_| "rank 0 does not answer".to_owned()));
        }
        let deadline = Instant::now() + self.patience;
        let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let (mut failed, mut alive) = (Vec::new(), Vec::new());
        for rank in 1..self.world_size {
            match group.get(&state_key(rank), left()) {
                Ok(state) => match state.strip_prefix(ENDED) {
                    Some(reason) => failed.push(format!("rank {rank} has ended: {reason}")),
                    None => alive.push(rank),
                },
                Err(_) => failed.push(format!("rank {rank} does not answer")),
            }
        }
        let verdict = if failed.is_empty() { "all ranks answer".to_owned() } else { failed.join(", ") };
        if group.set(VERDICT, &verdict).is_ok() {
            for rank in alive {
                let _ = group.get(&heard_key(rank), READING);
            }
        }
        Some(verdict)
    }
}

/// Keys and values of the store for [`Diagnosis::failed_ranks`].
const VERDICT: &str = "verdict";
const ALIVE: &str = "alive";
const ENDED: &str = "ended: ";

fn state_key(rank: usize) -> String {
    format!("state/{rank}")
}

fn heard_key(rank: usize) -> String {
    format!("heard/{rank}")
}

fn bytes(tensor: &Tch) -> u64 {
    let size = match tensor.kind() {
        Kind::Double | Kind::Int64 => 8,
        Kind::Half | Kind::BFloat16 => 2,
        Kind::Uint8 | Kind::Int8 | Kind::Bool => 1,
        _ => 4,
    };
    tensor.numel() as u64 * size
}

/// The GPU for NCCL; None for Gloo.
fn nccl_device(group: &ProcessGroup, device: TorchDevice) -> Result<Option<usize>, DistributedError> {
    let refused = |reason, hint| Err(DistributedError::Backend { backend: "nccl", reason, hint });
    match (group.backend, device.cuda_index()) {
        // It opens nothing.
        (CommBackend::Auto, _) if !group.is_distributed() => Ok(None),
        (CommBackend::Gloo, _) | (CommBackend::Auto, None) => Ok(None),
        (CommBackend::Nccl, None) => refused("the device is not a GPU", "use a GPU, or the backend `gloo`"),
        (_, Some(index)) if raw_group::has_nccl() => Ok(Some(index)),
        _ => refused(
            "this build has no NCCL",
            "build with the CUDA libtorch and the headers of CUDA and NCCL, or use the backend `gloo`",
        ),
    }
}

/// Opens the group.
fn join(options: GroupOptions) -> Result<RawGroup, DistributedError> {
    let GroupOptions { rank, timeout, .. } = options;
    let address = format!("{}:{}", options.host, options.port);
    let refused = |reason| DistributedError::Join { rank, address: address.clone(), reason };
    // The steps of joining share one deadline. The rest is time for the error of the step that missed it.
    match within(timeout + timeout / 2, move || RawGroup::open(&options)) {
        Ok(Some(result)) => result.map_err(refused),
        Ok(None) => Err(DistributedError::NoAnswer { rank, address, timeout }),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Runs `work` on a thread of its own: a server that accepts connections and never answers blocks c10d without limit. None
/// after `limit`; the thread is left behind then, with what it holds.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Option<T>> {
    let (sender, receiver) = channel();
    Builder::new().name("process group".to_owned()).spawn(move || {
        // The receiver is gone if it has given up.
        let _ = sender.send(work());
    })?;
    match receiver.recv_timeout(limit) {
        Ok(result) => Ok(Some(result)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("its thread ended")),
    }
}
