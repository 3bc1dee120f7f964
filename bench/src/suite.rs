//! Suites: lists of evaluations whose results are kept, so that none is computed twice.

use std::{
    collections::BTreeSet,
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
};

use laps::{embedded, open_checkpoint};
use laps_align::Protocol;
use laps_data::{Split, hash_data, sources::SourceKind};
use laps_hub::{
    checkpoint::Checkpoint,
    registry::{self, Entry},
};
use laps_onnx::graph::GraphPrecision;
use serde::Deserialize;

use crate::{
    Error, Result,
    foreign::{ForeignInput, HeadSource},
    reproduce::{Reproduction, SourceFile, recalls},
    results,
};

/// A suite file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The evaluations.
    pub runs: Vec<SuiteRun>,
}

/// An evaluation of an entry, or of what another program computed. Paths are relative to the suite file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteRun {
    /// Name, different from those of the other runs. Default: made of the other fields.
    pub name: Option<String>,
    /// Name of an entry, or path of an entry file.
    pub entry: Option<String>,
    /// Similarity matrix or run file of another program.
    pub sims: Option<PathBuf>,
    /// Whether the rows of `sims` are captions.
    #[serde(default)]
    pub transposed: bool,
    /// Embeddings of another program: one safetensors file, or two `.npy` files, images first.
    #[serde(default)]
    pub embeddings: Vec<PathBuf>,
    /// Head that compares `embeddings`: a type, an entry, or a YAML file; default: the cosine of pooled vectors.
    pub head: Option<String>,
    /// Whether the first token of an image in `embeddings` is a class token; see [`HeadSource::class_token`].
    pub class_token: Option<bool>,
    /// Result of `reproduce` or `evaluate`, which is used as it is.
    pub result: Option<PathBuf>,
    /// Checkpoint of the entry, or parameters of the head.
    pub checkpoint: Option<PathBuf>,
    /// Root of the data.
    pub data: Option<PathBuf>,
    /// Layout of the data.
    pub source: Option<SourceKind>,
    /// Split; default: the test split of the entry, or `test`.
    pub split: Option<String>,
    /// Evaluate only the first images.
    pub limit: Option<NonZeroUsize>,
    /// Protocols; default: those of the entry, or those that fit the sizes.
    #[serde(default)]
    pub protocol: Vec<Protocol>,
    /// Engine of an entry: `auto`, `torch`, `rust` or `ort`.
    pub engine: Option<String>,
    /// Precision of an entry with the engine `ort`: `fp32`, `fp16` or `int8`.
    pub precision: Option<String>,
    /// Whether captions that are longer than the text encoder of the entry has positions are truncated.
    #[serde(default)]
    pub truncate: bool,
}

/// Some runs of a suite: every `of`-th one from number `index`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSpec {
    index: usize,
    of: usize,
}

impl ShardSpec {
    /// All items.
    pub const ALL: Self = Self { index: 1, of: 1 };

    /// The items of a rank of a distributed run, from 0.
    pub fn of_rank(rank: usize, world_size: usize) -> Self {
        Self { index: rank + 1, of: world_size }
    }

    /// Whether item `number`, from 0, belongs to it.
    pub fn has(self, number: usize) -> bool {
        number % self.of == self.index - 1
    }
}

impl FromStr for ShardSpec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err("expected I/N with I from 1 to N, such as 2/8".to_owned()),
        }
    }
}

impl fmt::Display for ShardSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.index, self.of)
    }
}

impl Suite {
    /// Reads a suite file and makes its paths relative to the current folder.
    ///
    /// # Errors
    /// [`Error::Suite`] for other content: unknown keys, a run without exactly one of `entry`, `sims`, `embeddings` and
    /// `result`, keys of another kind of run, names that occur twice.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |expected: &str, found: String| Error::Suite {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let text = laps_files::read_text(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let suite = serde_yaml::from_str(&text);
        let mut suite: Self = suite.map_err(|error| refuse("a list `runs` with known keys", error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut names = BTreeSet::new();
        for (number, run) in (1..).zip(&mut suite.runs) {
            let inputs = [run.entry.is_some(), run.sims.is_some(), !run.embeddings.is_empty(), run.result.is_some()];
            let given = inputs.into_iter().filter(|&given| given).count();
            if given != 1 {
                let found = format!("{given} of them in run {number}");
                return Err(refuse("one of `entry`, `sims`, `embeddings` and `result` in each run", found));
            }
            if let Some((key, input)) = run.misplaced() {
                return Err(refuse(&format!("`{key}` in runs with {input}"), format!("it in run {number}")));
            }
            let paths = [&mut run.sims, &mut run.result, &mut run.checkpoint, &mut run.data];
            for path in paths.into_iter().flatten().chain(&mut run.embeddings) {
                *path = folder.join(&*path);
            }
            for name in [&mut run.entry, &mut run.head].into_iter().flatten() {
                if is_yaml(name) {
                    *name = folder.join(&*name).to_string_lossy().into_owned();
                }
            }
            let name = run.label();
            if !laps_files::is_file_name(&name) {
                return Err(refuse("a `name` that can be the name of a file", format!("`{name}` in run {number}")));
            }
            if !names.insert(name.clone()) {
                return Err(refuse("a `name` of its own for each run", format!("`{name}` twice, in run {number}")));
            }
            run.name = Some(name);
        }
        match suite.runs.is_empty() {
            true => Err(refuse("at least one run", "none".to_owned())),
            false => Ok(suite),
        }
    }
}

/// Whether an entry or a head is the path of a file.
fn is_yaml(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

impl SuiteRun {
    /// A key that this kind of run does not have, and the input that it belongs to.
    fn misplaced(&self) -> Option<(&'static str, &'static str)> {
        let (is_entry, has_head) = (self.entry.is_some(), self.head.is_some());
        let keys = [
            ("engine", self.engine.is_some(), is_entry, "an `entry`"),
            ("precision", self.precision.is_some(), is_entry, "an `entry`"),
            ("limit", self.limit.is_some(), is_entry, "an `entry`"),
            ("truncate", self.truncate, is_entry, "an `entry`"),
            ("checkpoint", self.checkpoint.is_some(), is_entry || has_head, "an `entry` or a `head`"),
            ("class_token", self.class_token.is_some(), has_head, "a `head`"),
            ("head", has_head, !self.embeddings.is_empty(), "`embeddings`"),
            ("transposed", self.transposed, self.sims.is_some(), "`sims`"),
        ];
        keys.into_iter().find(|&(_, given, fits, _)| given && !fits).map(|(key, _, _, input)| (key, input))
    }

    /// The name, or one from the other fields.
    fn label(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let foreign = self.sims.as_deref().or(self.embeddings.first().map(PathBuf::as_path));
        let input = self.entry.as_deref().map(Path::new).or(foreign).or(self.result.as_deref());
        let limit = self.limit.map(|limit| limit.to_string());
        let head = self.head.as_deref().map(|head| stem(Path::new(head)));
        let parts = [head, self.split.clone(), limit, self.engine.clone(), self.precision.clone()];
        let first = input.map(stem).into_iter();
        first.chain(parts.into_iter().flatten()).collect::<Vec<_>>().join("-")
    }

    /// The entry with the layout and the protocols of the run.
    ///
    /// # Errors
    /// Errors of the registry; [`Error::Argument`] for a run without one.
    pub fn entry(&self) -> Result<Entry> {
        let name = self.entry.as_deref().ok_or_else(|| Error::Argument {
            argument: "entry",
            expected: "an entry".to_owned(),
            found: "none".to_owned(),
        })?;
        let mut entry = registry::find(name)?;
        if let Some(source) = self.source {
            entry = entry.with_source(source)?;
        }
        if !self.protocol.is_empty() {
            entry = entry.with_protocol(self.protocol.clone())?;
        }
        Ok(entry)
    }

    /// The files of another program; `None` for an entry or a result.
    ///
    /// # Errors
    /// Errors of [`HeadSource::find`].
    pub fn foreign_input(&self) -> Result<Option<ForeignInput>> {
        if let Some(path) = &self.sims {
            return Ok(Some(ForeignInput::Similarities { path: path.clone(), transposed: self.transposed }));
        }
        if self.embeddings.is_empty() {
            return Ok(None);
        }
        let find = |name: &str| HeadSource::find(name, self.checkpoint.clone(), self.class_token);
        let head = self.head.as_deref().map(find).transpose()?;
        Ok(Some(ForeignInput::Embeddings { paths: self.embeddings.clone(), head }))
    }

    /// Hashes of the head and its parameters.
    fn head_key(&self) -> Result<String> {
        let Some(head) = &self.head else { return Ok(String::new()) };
        let entry = registry::find(head).ok();
        let config = match &entry {
            Some(entry) => entry.config_sha256.clone(),
            None if is_yaml(head) => SourceFile::of(Path::new(head))?.sha256,
            None => head.clone(),
        };
        let embedded = entry.and_then(|entry| registry::embedded_checkpoint(&entry.name));
        let parameters = match &self.checkpoint {
            Some(path) => Checkpoint::open(path)?.sha256()?,
            None => embedded.map_or_else(String::new, |embedded| embedded.sha256()),
        };
        Ok(format!("head {config} {parameters} {:?}\n", self.class_token))
    }

    /// The precision; fp32 by default.
    ///
    /// # Errors
    /// An unknown precision.
    pub fn precision(&self) -> Result<GraphPrecision> {
        Ok(self.precision.as_deref().map_or(Ok(GraphPrecision::Fp32), str::parse)?)
    }

    /// The split of a run with `sims` or `embeddings`; `None` without data.
    ///
    /// # Errors
    /// Errors of the data.
    pub fn split(&self) -> Result<Option<Split>> {
        let Some(data) = &self.data else { return Ok(None) };
        let folders = laps::sources::folders_of(data, self.source.unwrap_or_default())?;
        Ok(Some(Split::open(&folders.captions, self.split.as_deref().unwrap_or("test"))?))
    }

    /// Hash of everything that determines the recalls: the configuration, checkpoint and data of an entry with `threads`
    /// threads to hash them, or the files of another program, and the options. Results of the same hash are the same.
    ///
    /// # Errors
    /// Inputs that cannot be read.
    pub fn key(&self, threads: usize) -> Result<String> {
        let mut text = format!(
            "suite 1\n{:?} {:?} {:?}\n",
            self.limit,
            self.protocol,
            self.name.as_ref().filter(|_| self.entry.is_none())
        );
        if self.entry.is_none() {
            for path in self.sims.iter().chain(&self.embeddings).chain(&self.result) {
                text += &format!("{}\n", SourceFile::of(path)?.sha256);
            }
            // Keys of runs without these options are those of earlier versions.
            text += &self.head_key()?;
            text += if self.transposed { "transposed\n" } else { "" };
            if let Some(split) = self.split()? {
                let ids: Vec<&str> = split.image_of().iter().map(|&image| split.images()[image].id.as_str()).collect();
                text += &format!("{} {}\n", split.name(), registry::sha256(ids.join("\n").as_bytes()));
            }
        } else {
            let entry = self.entry()?;
            let (checkpoint, _) = open_checkpoint(&entry, self.checkpoint.as_deref())?;
            let paths = embedded::data_paths(&entry, self.data.as_deref(), self.split.as_deref())?;
            let mut split = Split::open(&paths.captions, self.split.as_deref().unwrap_or(&entry.data.test))?;
            if let Some(limit) = self.limit {
                split = split.limit(limit);
            }
            let data = hash_data(&split, &paths.images, threads, || ())?.sha256;
            let engine = self.engine.as_deref().unwrap_or("auto");
            let precision = self.precision()?;
            let sha256 = checkpoint.sha256()?;
            text += &format!("{} {sha256} {data} {engine} {precision}\n{}\n", entry.config_sha256, split.name());
            // Keys of runs without it are those of earlier versions.
            text += if self.truncate { "truncate\n" } else { "" };
        }
        Ok(registry::sha256(text.as_bytes()))
    }

    /// Name of the result file.
    pub fn file_name(&self, key: &str) -> String {
        format!("{}.{}.json", self.name.as_deref().unwrap_or_default(), key.get(..16).unwrap_or(key))
    }
}

/// The committed result of the run `name` in `folder`: the file `NAME.HASH.json`.
///
/// # Errors
/// [`Error::Suite`] if there is none, or more than one.
pub fn committed(folder: &Path, name: &str) -> Result<Reproduction> {
    let read = |source| Error::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let hash = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".json"));
        if hash.is_some_and(|hash| laps_files::is_hex(hash, 16)) {
            found.push(path);
        }
    }
    match found.as_slice() {
        [path] => results::read(path),
        _ => Err(Error::Suite {
            path: folder.to_owned(),
            expected: format!("one result `{name}.HASH.json`"),
            found: found.len().to_string(),
        }),
    }
}

/// Recalls of `result` that differ from those of `committed` by more than `tolerance` points, as lines.
pub fn differences(name: &str, result: &Reproduction, committed: &Reproduction, tolerance: f64) -> Vec<String> {
    let mut lines = Vec::new();
    let protocols = |result: &Reproduction| result.evaluations.iter().map(|found| found.protocol).collect::<Vec<_>>();
    if protocols(result) != protocols(committed) {
        lines.push(format!("{name}: the committed result has other protocols"));
        return lines;
    }
    for (found, expected) in result.evaluations.iter().zip(&committed.evaluations) {
        let names = ["i2t R@1", "i2t R@5", "i2t R@10", "t2i R@1", "t2i R@5", "t2i R@10", "rSum"];
        let values = |evaluation: &laps_align::Evaluation| {
            recalls(&evaluation.headline).into_iter().chain([evaluation.headline.rsum])
        };
        for ((column, found), expected) in names.into_iter().zip(values(found)).zip(values(expected)) {
            // Recalls are quotients of counts: the last digits may differ between versions.
            if (found - expected).abs() > tolerance + 1e-9 {
                lines.push(format!("{name}: {column} is {found:.2}, committed {expected:.2}"));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::ShardSpec;

    #[test]
    fn shards_share_all_runs() {
        let shards: Vec<ShardSpec> = (1..=3).map(|index| format!("{index}/3").parse().unwrap()).collect();
        for number in 0..10 {
            assert_eq!(shards.iter().filter(|shard| shard.has(number)).count(), 1, "{number}");
        }
        assert!((0..10).all(|number| ShardSpec::ALL.has(number)));
        for text in ["0/3", "4/3", "1/0", "1", "a/b", "1/2/3"] {
            assert!(text.parse::<ShardSpec>().is_err(), "{text}");
        }
    }
}
