//! Errors of a process group.

use std::time::Duration;

/// An error of a process group.
#[derive(Debug, thiserror::Error)]
pub enum DistributedError {
    /// The group cannot be opened.
    #[error("rank {rank} cannot join the process group at {address}: {reason}")]
    Join {
        /// This rank.
        rank: usize,
        /// Host and port of the store.
        address: String,
        /// The reason.
        reason: String,
    },
    /// The store does not answer.
    #[error(
        "rank {rank} cannot join the process group\n  expected: the store of a group at {address}\n  found: no answer within {} s",
        timeout.as_secs_f64()
    )]
    NoAnswer {
        /// This rank.
        rank: usize,
        /// Host and port of the store.
        address: String,
        /// The timeout.
        timeout: Duration,
    },
    /// An operation on all ranks failed.
    #[error("the process group failed during {operation}: {ranks}\n  caused by: {reason}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// The ranks that failed, and how.
        ranks: String,
        /// The error of the communication library.
        reason: String,
    },
    /// Ranks differ in what has to be the same.
    #[error(
        "the ranks do not run the same work: rank {rank} has another {what}\n  expected: {expected}\n  found: {found}"
    )]
    Different {
        /// The value that differs.
        what: &'static str,
        /// The rank that differs from rank 0.
        rank: usize,
        /// The value of rank 0.
        expected: String,
        /// The value of `rank`.
        found: String,
    },
    /// A backend that cannot be used.
    #[error("the communication backend `{backend}` cannot be used: {reason}")]
    Backend {
        /// The backend.
        backend: &'static str,
        /// The reason.
        reason: &'static str,
        /// Suggested fix.
        hint: &'static str,
    },
    /// A batch that has fewer pairs than there are ranks.
    #[error(
        "the batch cannot be split\n  expected: at least {world_size} pairs, one per rank\n  found: {batch_size} pairs"
    )]
    SmallBatch {
        /// Pairs of a batch.
        batch_size: usize,
        /// Number of ranks.
        world_size: usize,
    },
}

impl DistributedError {
    /// Hint for the user, if there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoAnswer { .. } => "check MASTER_ADDR and MASTER_PORT, and that rank 0 is running".to_owned(),
            Self::Failed { .. } => {
                "start all ranks again and resume the run; its last saved state is intact".to_owned()
            }
            Self::Different { .. } => "start all ranks with the same program, command and data".to_owned(),
            Self::Backend { hint, .. } => (*hint).to_owned(),
            Self::SmallBatch { world_size, .. } => format!("set `train.batch_size` to {world_size} or more"),
            Self::Join { .. } => return None,
        })
    }
}
