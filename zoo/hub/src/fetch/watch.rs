//! What a fetch tells while it runs.

/// Hears of files as they come. `()` listens to nothing.
pub trait Watch: Sync {
    /// A file begins, or goes on at `at` bytes; `total` where its size is known. Called again after each interruption.
    fn begin(&self, file: &str, at: u64, total: Option<u64>) {
        let _ = (file, at, total);
    }

    /// So many bytes more of it are here.
    fn advance(&self, file: &str, bytes: u64) {
        let _ = (file, bytes);
    }

    /// Something that the user may want to know: an interruption, a wait.
    fn note(&self, file: &str, note: &str) {
        let _ = (file, note);
    }

    /// The file is complete and verified, or will not be.
    fn end(&self, file: &str, summary: &str) {
        let _ = (file, summary);
    }
}

impl Watch for () {}
