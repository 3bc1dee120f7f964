//! `laps-zoo evaluate`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{ArgGroup, Args, ValueEnum};
use laps_align::Protocol;
use laps_bench::{
    files::{check_writable, write_atomic},
    foreign::{ForeignInput, ForeignRequest, HeadSource, JudgementRequest, JudgementSet, evaluate},
    reproduce::table,
    statistics::bootstrap,
};
use laps_data::{Split, splits};
use laps_hub::registry::describe_folder;

use crate::{
    data_source::DataSource,
    fetching,
    report::{CommandStatus, print_summary},
};

/// Judgements of the COCO test split.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum JudgementName {
    Eccv,
    Cxc,
    Pmrp,
}

/// Compute recalls of a similarity matrix, or of embeddings and a head, from another program
#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).multiple(true).args(["embeddings", "sims"]))]
pub(crate) struct EvaluateArgs {
    /// Embeddings: one safetensors file with `images`, `captions` and `lengths`, or two .npy files, images first
    #[arg(value_name = "EMBEDDINGS", num_args = 0..=2)]
    embeddings: Vec<PathBuf>,
    /// Similarity matrix, images x captions (.npy, .npz or .safetensors), or a run file of TREC (.run or .trec); with
    /// EMBEDDINGS, the file to write the matrix to
    #[arg(long, value_name = "FILE")]
    sims: Option<PathBuf>,
    /// The matrix has captions as rows
    #[arg(long, conflicts_with = "embeddings")]
    transposed: bool,
    /// Head that compares the embeddings: a type such as scan_t2i, a YAML file with the mapping of a head, or an entry
    #[arg(long, requires = "embeddings")]
    head: Option<String>,
    /// Parameters of the head (.safetensors or .pth)
    #[arg(long, value_name = "FILE", requires = "head")]
    checkpoint: Option<PathBuf>,
    /// Whether the first token of an image is a class token [default: if the other tokens are a square grid]
    #[arg(long, value_name = "BOOL", requires = "head")]
    class_token: Option<bool>,
    /// Captions that say which caption belongs to which image: a folder, or a file with --data-source [default: five
    /// captions an image]
    #[arg(long, value_name = "DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    source: DataSource,
    /// Split of the caption files
    #[arg(long, default_value = "test", requires = "data")]
    split: String,
    /// Comma-separated protocols: f30k, coco_5k, coco_1k [default: those that fit the sizes]
    #[arg(long, value_name = "PROTOCOLS", value_delimiter = ',')]
    protocol: Vec<String>,
    /// Name of the model in the result [default: the name of the first file]
    #[arg(long)]
    name: Option<String>,
    /// Also compute metrics by judgements, comma-separated: eccv (ECCV Caption), cxc, pmrp (plausible matches); downloaded on
    /// first use
    #[arg(long, value_name = "SETS", value_delimiter = ',')]
    judgements: Vec<JudgementName>,
    /// Also compute 95% confidence intervals of the recalls from N bootstrap samples of the queries
    #[arg(long, value_name = "N")]
    bootstrap: Option<NonZeroUsize>,
    /// Random seed of the bootstrap samples
    #[arg(long, value_name = "N", default_value = "0", requires = "bootstrap")]
    seed: u64,
    /// Write the first 100 candidates of each query as a run file of TREC: images by their id, captions as ID#NUMBER
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// Write the result files of MTEB's tasks Flickr30kI2TRetrieval and Flickr30kT2IRetrieval to DIR
    #[arg(long, value_name = "DIR", requires = "data")]
    mteb: Option<PathBuf>,
    /// Write the result and its provenance as JSON, for `table`, `report`, `card` and `bench --gate`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    access: fetching::NetworkArgs,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

impl EvaluateArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let protocols = self.protocol.iter().map(|name| protocol(name)).collect::<Result<Vec<_>>>()?;
        let split = self.data.as_deref().map(|data| open_split(data, self.source, &self.split)).transpose()?;
        let head = match &self.head {
            Some(name) => Some(HeadSource::find(name, self.checkpoint, self.class_token)?),
            None => None,
        };
        let (input, sims) = match (self.embeddings.is_empty(), self.sims) {
            (true, Some(path)) => (ForeignInput::Similarities { path, transposed: self.transposed }, None),
            (_, sims) => (ForeignInput::Embeddings { paths: self.embeddings, head }, sims),
        };
        [&sims, &self.json, &self.run].into_iter().flatten().try_for_each(|path| check_writable(path))?;
        let judgements = match self.judgements.is_empty() {
            true => None,
            false => {
                let sets = self.judgements.iter().map(|name| match name {
                    JudgementName::Eccv => JudgementSet::Eccv,
                    JudgementName::Cxc => JudgementSet::Cxc,
                    JudgementName::Pmrp => JudgementSet::Pmrp,
                });
                let package = fetching::judgements(self.access, self.quiet)?;
                let plausible_matches = match self.judgements.contains(&JudgementName::Pmrp) {
                    true => Some(fetching::plausible_matches(self.access, self.quiet)?),
                    false => None,
                };
                Some(JudgementRequest { sets: sets.collect(), package, plausible_matches })
            }
        };
        let request = ForeignRequest {
            name: self.name,
            input,
            split,
            protocols,
            judgements,
            sims,
            run: self.run,
            mteb: self.mteb,
        };
        let mut result = evaluate(&request)?;
        if let Some(samples) = self.bootstrap {
            result.intervals = bootstrap(&result, samples, self.seed)?;
        }
        if let Some(path) = &self.json {
            write_atomic(path, format!("{}\n", serde_json::to_string_pretty(&result)?).as_bytes())?;
        }
        if !self.quiet {
            let outputs = [&request.sims, &self.json, &request.run];
            print_summary(outputs.into_iter().flatten(), &table::render(&result))?;
        }
        Ok(CommandStatus::Success)
    }
}

fn protocol(name: &str) -> Result<Protocol> {
    let found = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name);
    Ok(found.ok_or_else(|| laps_bench::Error::Argument {
        argument: "--protocol",
        expected: Protocol::ALL.map(|protocol| format!("`{}`", protocol.name())).join(", "),
        found: format!("`{name}`"),
    })?)
}

/// The split of the caption files in `data` or below it, or of data in another layout.
fn open_split(data: &Path, source: DataSource, split: &str) -> Result<Split> {
    let folder = match source.kind() {
        Some(kind) => laps::sources::folders_of(data, kind)?.captions,
        None => caption_folder(data, split)?,
    };
    let split = Split::open(&folder, split).map_err(laps::Error::from)?;
    split.check_captions().map_err(laps::Error::from)?;
    Ok(split)
}

/// The folder of a split: `data` itself or `captions` in it, else the only such folder of a data set in `data`, as in the
/// trees `f30k/captions/` and `f30k/`.
fn caption_folder(data: &Path, split: &str) -> Result<PathBuf> {
    let has_split = |folder: &PathBuf| splits(folder).iter().any(|name| name == split);
    let places = |folder: &Path| [folder.join("captions"), folder.to_owned()];
    if let Some(folder) = places(data).into_iter().find(has_split) {
        return Ok(folder);
    }
    let sets = fs_err::read_dir(data).into_iter().flatten().flatten().map(|set| set.path());
    let mut sets: Vec<PathBuf> = sets.collect();
    sets.sort();
    let found: Vec<PathBuf> = sets.iter().filter_map(|set| places(set).into_iter().find(has_split)).collect();
    match found.as_slice() {
        [] => {
            // Opening the split there names its missing file and the other splits.
            let mut folders = places(data).into_iter().chain(sets.iter().flat_map(|set| places(set)));
            let has_captions = |folder: &PathBuf| folder.join("id_mapping.json").is_file();
            Ok(folders.find(has_captions).ok_or_else(|| laps_bench::Error::Argument {
                argument: "--data",
                expected: format!(
                    "`{split}_ids.txt`, `{split}_caps.txt` and `id_mapping.json` in the folder, or in `captions`, `SET` \
                     or `SET/captions` in it"
                ),
                found: describe_folder(Some(data).filter(|data| data.is_dir()), data),
            })?)
        }
        [only] => Ok(only.clone()),
        several => Err(laps_bench::Error::Argument {
            argument: "--data",
            expected: format!("a folder with one split `{split}`"),
            found: several.iter().map(|folder| format!("`{}`", folder.display())).collect::<Vec<_>>().join(", "),
        }
        .into()),
    }
}
