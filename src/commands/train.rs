//! `laps-zoo train`

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::report::Finding;

/// Train an entry
#[derive(Args)]
pub(crate) struct Train {
    /// Name of an entry, or path of an entry file
    entry: String,
    /// The run folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Root of the caption and image folders [default: the folder of the entry file]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where: auto, cpu, cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Decides everything random [default: the entry's]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Go on with the run of the folder
    #[arg(long)]
    resume: bool,
    /// Change the entry, as in `train.epochs=1`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The split that the best epoch is selected on [default: the entry's]
    #[arg(long, value_enum)]
    select_on: Option<SelectOn>,
    /// Begin with this checkpoint: .safetensors or .pth
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image_backbone", "text_backbone"])]
    checkpoint: Option<PathBuf>,
    /// Begin with this image encoder, as Hugging Face names its tensors
    #[arg(long, value_name = "FILE")]
    image_backbone: Option<PathBuf>,
    /// Begin with this text encoder, as Hugging Face names its tensors
    #[arg(long, value_name = "FILE")]
    text_backbone: Option<PathBuf>,
    /// Begin with random weights; built-in entries begin with fetched encoders otherwise
    #[arg(long, conflicts_with_all = ["checkpoint", "image_backbone", "text_backbone"])]
    from_scratch: bool,
    #[cfg(feature = "fetch")]
    #[command(flatten)]
    access: crate::fetching::Access,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SelectOn {
    Dev,
    Test,
}

#[cfg(not(feature = "torch"))]
impl Train {
    pub(crate) fn run(self) -> Result<Finding> {
        let Self { entry, out: _, data: _, device: _, seed: _, threads: _, resume: _, set: _, .. } = self;
        let _ =
            (self.select_on, self.checkpoint, self.image_backbone, self.text_backbone, self.quiet, self.from_scratch);
        #[cfg(feature = "fetch")]
        let _ = self.access;
        anyhow::bail!(
            "entry `{entry}` can not be trained: this build has no libtorch\nhint: build with the feature `torch`"
        )
    }
}

#[cfg(feature = "torch")]
impl Train {
    pub(crate) fn run(self) -> Result<Finding> {
        use std::path::Path;

        use bench::{embedded, engine, machine::processors};
        use zoo::{
            encoder::Device,
            torch::train::{Request, Start, Trained, train},
            train::Validation,
        };

        use crate::{interrupt, report::print, training};

        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let device = self.device.parse::<Device>()?;
        let mut entry = zoo::registry::find(&self.entry)?.with_settings(&self.set)?;
        entry.train.seed = self.seed.unwrap_or(entry.train.seed);
        entry.train.select_on = match self.select_on {
            None => entry.train.select_on,
            Some(SelectOn::Dev) => Validation::Dev,
            Some(SelectOn::Test) => Validation::Test,
        };
        let mut observer = training::choose(self.quiet);
        if entry.train.select_on == Validation::Test {
            observer.note(
                "the best epoch is selected on the test split, as the authors' released code does it: its recalls there \
                 are too good to be compared with those of an epoch that was selected on other data",
            );
        }
        engine::set_threads(threads)?;
        let mut request = Request {
            paths: entry.data_paths(Some(Path::new("")))?,
            entry,
            out: self.out,
            device,
            threads,
            resume: self.resume,
            start: Start {
                checkpoint: self.checkpoint,
                image_backbone: self.image_backbone,
                text_backbone: self.text_backbone,
            },
        };
        #[cfg(feature = "fetch")]
        {
            use crate::fetching;

            let splits = [request.entry.data.train.as_str(), request.select_on()];
            fetching::texts(&request.entry, self.data.as_deref(), &splits, self.access, self.quiet)?;
            let Start { checkpoint, image_backbone, text_backbone } = &request.start;
            let is_given = checkpoint.is_some() || image_backbone.is_some() || text_backbone.is_some();
            if !is_given && !self.from_scratch && !request.resume && zoo::store::data_set(&request.entry).is_some() {
                let (image, text) = fetching::backbones(&request.entry, self.access, self.quiet)?;
                (request.start.image_backbone, request.start.text_backbone) = (image, Some(text));
            }
        }
        #[cfg(not(feature = "fetch"))]
        let _ = self.from_scratch;
        let splits = [request.entry.data.train.as_str(), request.select_on()];
        #[cfg(feature = "fetch")]
        crate::fetching::images(&request.entry, self.data.as_deref(), &splits, self.access, self.quiet)?;
        request.paths = embedded::split_paths(&request.entry, self.data.as_deref(), &splits)?;
        let stop = interrupt::flag()?;
        let trained = train(&request, &stop, observer.as_mut())?;
        let best = trained.best.map_or_else(String::new, |(rsum, epoch)| {
            format!(", best on `{}`: rSum {rsum:.1} after epoch {epoch}", request.select_on())
        });
        let Trained { steps, configuration, .. } = &trained;
        print(&format!(
            "{steps} steps{best}\nconfiguration {}\nrun {}\n",
            &configuration[..16],
            request.out.display()
        ))?;
        Ok(Finding::Done)
    }
}
