//! What a long piece of work tells while it runs.

/// Hears of stages as they begin, advance and end. `()` listens to nothing.
pub trait Progress: Sync {
    /// A stage of `total` steps begins.
    fn begin(&self, stage: &str, total: usize) {
        let _ = (stage, total);
    }

    /// `steps` more of the stage are done.
    fn advance(&self, steps: usize) {
        let _ = steps;
    }

    /// `parts` of `all` are kept, whatever comes.
    fn saved(&self, parts: usize, all: usize) {
        let _ = (parts, all);
    }

    /// The stage is over; `summary` says what came out of it.
    fn end(&self, summary: &str) {
        let _ = summary;
    }
}

impl Progress for () {}
