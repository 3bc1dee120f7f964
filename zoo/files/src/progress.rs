//! Progress reporting.

/// Reports the progress of long-running work. All methods default to doing nothing; `()` reports nothing.
///
/// ```
/// use laps_files::{Progress, ProgressUnit};
///
/// fn hash_all(files: &[&str], progress: &dyn Progress) {
///     progress.begin("hash files", 0, Some(files.len() as u64), ProgressUnit::Items);
///     for _ in files {
///         progress.advance("hash files", 1);
///     }
///     progress.end("hash files", "done");
/// }
///
/// hash_all(&["a", "b"], &());
/// ```
pub trait Progress: Sync {
    /// The task `task` starts, or resumes at `position` of `total` units. Called again after each interruption.
    fn begin(&self, task: &str, position: u64, total: Option<u64>, unit: ProgressUnit) {
        let _ = (task, position, total, unit);
    }

    /// The task advances by `amount` units.
    fn advance(&self, task: &str, amount: u64) {
        let _ = (task, amount);
    }

    /// Something the user should know about the task, such as a retry or a saved part.
    fn message(&self, task: &str, message: &str) {
        let _ = (task, message);
    }

    /// The task ends, with or without success; `summary` is its outcome in one line.
    fn end(&self, task: &str, summary: &str) {
        let _ = (task, summary);
    }
}

/// Unit of the progress of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressUnit {
    /// Bytes.
    Bytes,
    /// Images, captions, steps, ...
    Items,
}

impl Progress for () {}
