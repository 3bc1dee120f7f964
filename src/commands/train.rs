//! `laps-zoo train`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use laps::{Backends, InitialWeights, ProcessGroup, Resume, TrainRequest, Trained, embedded};
use laps_data::LongCaptions;
use laps_hub::registry::Validation;
use laps_model::encoder::Device;

use crate::{
    distributed::{self, DistOverlap, DistributedArgs},
    fetching, interrupt,
    report::{CommandStatus, print},
    training,
};

/// Train the model of an entry
#[derive(Args)]
pub(crate) struct TrainArgs {
    /// Entry name, or path to an entry YAML file
    entry: String,
    /// Run folder: checkpoints, training state and logs
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Root of the caption and image folders [default: the folder of the entry file]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    source: crate::data_source::DataSource,
    /// Truncate captions that are longer than the text encoder has positions, and count them
    #[arg(long)]
    truncate: bool,
    /// Device: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Random seed [default: the entry's]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Number of threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Resume training from `--out`; with `=auto`, start a new run if there is none
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always"
    )]
    resume: Option<ResumeWhen>,
    /// Override a key of the entry, for example `train.epochs=1`; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Split on which the best epoch is selected [default: the entry's]
    #[arg(long, value_enum)]
    select_on: Option<SelectOn>,
    /// Start from this checkpoint (.safetensors or .pth)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image_backbone", "text_backbone"])]
    checkpoint: Option<PathBuf>,
    /// Start from this image encoder (safetensors, Hugging Face tensor names)
    #[arg(long, value_name = "FILE")]
    image_backbone: Option<PathBuf>,
    /// Start from this text encoder (safetensors, Hugging Face tensor names)
    #[arg(long, value_name = "FILE")]
    text_backbone: Option<PathBuf>,
    /// Start from random weights; without it, built-in entries start from downloaded pretrained encoders
    #[arg(long, conflicts_with_all = ["checkpoint", "image_backbone", "text_backbone"])]
    from_scratch: bool,
    #[command(flatten)]
    access: fetching::NetworkArgs,
    #[command(flatten)]
    distributed: DistributedArgs,
    /// Sum the gradients of the processes of a distributed run during the backward pass
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    dist_overlap: DistOverlap,
    /// Hide progress output
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SelectOn {
    Dev,
    Test,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ResumeWhen {
    /// There has to be a run
    Always,
    /// Resume if there is a run
    Auto,
}

impl TrainArgs {
    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let torch = backends.libtorch()?;
        let group = self.distributed.process_group()?;
        let group = group.map(|group| ProcessGroup { overlap: self.dist_overlap.into(), ..group });
        let rank = group.as_ref().map_or(0, |group| group.rank);
        let threads = self.threads.map_or_else(|| distributed::threads(group.as_ref()), NonZeroUsize::get);
        let device = self.device.parse::<Device>()?;
        let entry = self.source.apply(laps_hub::registry::find(&self.entry)?)?;
        let mut entry = entry.with_settings(&self.set)?;
        entry.train.seed = self.seed.unwrap_or(entry.train.seed);
        entry.train.select_on = match self.select_on {
            None => entry.train.select_on,
            Some(SelectOn::Dev) => Validation::Dev,
            Some(SelectOn::Test) => Validation::Test,
        };
        let quiet = self.quiet || rank > 0;
        let mut observer = training::choose(quiet);
        if entry.train.select_on == Validation::Test {
            observer.note(
                "the best epoch is selected on the test split, as in the authors' released code: its recalls on that split \
                 are optimistic, so do not compare them with recalls of an epoch selected on other data",
            );
        }
        backends.set_threads(threads)?;
        let mut request = TrainRequest {
            paths: entry.data_paths(Some(Path::new("")))?,
            entry,
            out: self.out,
            device,
            threads,
            long_captions: if self.truncate { LongCaptions::Truncate } else { LongCaptions::Refuse },
            resume: match self.resume {
                None => Resume::Never,
                Some(ResumeWhen::Always) => Resume::Always,
                Some(ResumeWhen::Auto) => Resume::Auto,
            },
            group,
            version: laps_bench::version(),
            start: InitialWeights {
                checkpoint: self.checkpoint,
                image_backbone: self.image_backbone,
                text_backbone: self.text_backbone,
            },
        };
        {
            let splits = [request.entry.data.train.as_str(), request.select_on()];
            fetching::texts(&request.entry, self.data.as_deref(), &splits, self.access, quiet)?;
            let InitialWeights { checkpoint, image_backbone, text_backbone } = &request.start;
            let is_given = checkpoint.is_some() || image_backbone.is_some() || text_backbone.is_some();
            // A resumed run needs them too: they are a part of its configuration.
            if !is_given && !self.from_scratch && laps_hub::store::data_set(&request.entry).is_some() {
                let (image, text) = fetching::backbones(&request.entry, self.access, quiet)?;
                (request.start.image_backbone, request.start.text_backbone) = (image, Some(text));
            }
        }
        let splits = [request.entry.data.train.as_str(), request.select_on()];
        fetching::images(&request.entry, self.data.as_deref(), &splits, self.access, quiet)?;
        request.paths = embedded::split_paths(&request.entry, self.data.as_deref(), &splits)?;
        let stop = interrupt::flag(interrupt::Deadline::StateSaved);
        let trained = torch.train(&request, &stop, observer.as_mut())?;
        if rank > 0 {
            return Ok(CommandStatus::Success);
        }
        let best = trained.best.map_or_else(String::new, |(rsum, epoch)| {
            format!(", best on `{}`: rSum {rsum:.1} after epoch {epoch}", request.select_on())
        });
        let Trained { steps, configuration, truncated_captions, .. } = &trained;
        let truncated = match truncated_captions {
            0 => String::new(),
            count => format!("; truncated captions: {count}"),
        };
        print(&format!(
            "{steps} steps{best}{truncated}\nconfiguration {}\nrun {}\n",
            &configuration[..16],
            request.out.display()
        ))?;
        Ok(CommandStatus::Success)
    }
}
