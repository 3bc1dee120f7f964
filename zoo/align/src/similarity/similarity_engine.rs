//! The interface of similarity engines.

use super::{CaptionMatrix, Engine, ImageSource, Plan, RunOutcome, StageTimes, TileSink, whole_matrix};
use crate::Result;
use laps_model::array::Array;

/// Computes exact similarities: [`Engine`] on a CPU, or an engine on another device.
pub trait SimilarityEngine {
    /// The instruction set of a CPU engine; otherwise the library and its device.
    fn description(&self) -> String;

    /// All similarities, `(images, captions)`.
    ///
    /// # Errors
    /// Inputs that do not fit the model, and errors of `images`.
    fn similarities(&self, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<Array> {
        whole_matrix(images.len(), captions.len(), |sink| {
            self.run(images, captions, &self.plan(images.len(), captions)?, sink)
        })
    }

    /// The largest tiles that fit into the memory limit.
    ///
    /// # Errors
    /// A memory limit that is too small for one tile.
    fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan>;

    /// Computes the tiles of `plan` that `sink` wants.
    ///
    /// # Errors
    /// Inputs that do not fit the model, and errors of `images` and `sink`.
    fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        sink: &mut dyn TileSink,
    ) -> Result<RunOutcome>;

    /// Prepares the first `count` images and drops the result, so that preparation can be measured.
    ///
    /// # Errors
    /// Images that do not fit the model.
    fn prepare_only(&self, images: &dyn ImageSource, count: usize) -> Result<()>;

    /// Times of the stages of comparing the first images with the first captions on one thread. None for an engine whose
    /// stages cannot be timed.
    ///
    /// # Errors
    /// Inputs that do not fit the model.
    fn stage_times(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        image_count: usize,
        caption_count: usize,
    ) -> Result<Option<StageTimes>>;
}

impl SimilarityEngine for Engine {
    fn description(&self) -> String {
        self.instruction_set().to_owned()
    }

    fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        Self::plan(self, images, captions)
    }

    fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        sink: &mut dyn TileSink,
    ) -> Result<RunOutcome> {
        Self::run(self, images, captions, plan, sink)
    }

    fn prepare_only(&self, images: &dyn ImageSource, count: usize) -> Result<()> {
        self.prepare(images, 0..count).map(drop)
    }

    fn stage_times(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        image_count: usize,
        caption_count: usize,
    ) -> Result<Option<StageTimes>> {
        let prepared = self.prepare(images, 0..image_count)?;
        Ok(Some(self.stages(&prepared, captions, 0..caption_count)?))
    }
}
