//! Writing the folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    rc::Rc,
};

use fs_err as fs;
use laps_data::image::Preprocessing;
use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::{array::Array, models::config::ModelConfig, params::Parameter};
use sha2::{Digest, Sha256};

use super::{
    Drift, Golden, GraphFile, Manifest, Precision, SCHEMA,
    manifest::{FileEntry, TextPreprocessing},
    product,
    selection::{select, smooth},
};
use crate::{
    Error, Result, file,
    graph::{Graph, Target},
    passes,
    record::{Part, record},
    runtime::{RuntimeError, Session, SessionOptions},
};

/// What is to be exported.
#[derive(Clone, Debug)]
pub struct Request {
    /// The entry.
    pub entry: Entry,
    /// Its checkpoint, which was checked against the entry.
    pub checkpoint: Rc<Checkpoint>,
    /// What the graphs are written for.
    pub target: Target,
    /// In which numbers they compute.
    pub precision: Precision,
    /// Threads of the check.
    pub threads: usize,
    /// The WordPiece vocabulary of the text encoder, to be part of the folder.
    pub vocabulary: Option<Vec<u8>>,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The manifest.
    pub manifest: Manifest,
    /// Why the graphs were not compared, where they were not.
    pub unchecked: Option<String>,
    /// The parts whose output is not within the tolerance of the precision.
    pub outside: Vec<Part>,
}

/// Writes the graphs of an entry to `folder`, which must not be there or be empty. It is there when everything in it is:
/// the files are written beside it, and compared in ONNX Runtime where that is found.
///
/// # Errors
/// [`Error::Folder`] for a folder that holds something; [`laps_model::Error`] for a model that can not be recorded.
pub fn export(request: &Request, folder: &Path) -> Result<Exported> {
    check_free(folder)?;
    let parent = parent(folder);
    let temporary = tempfile::Builder::new()
        .prefix(".laps-zoo-export-")
        .tempdir_in(parent)
        .map_err(|error| Error::io("write", parent, error))?;
    let exported = write(request, temporary.path())?;
    // An empty folder is replaced; `mkdtemp` makes folders that others can not read.
    let place = temporary.path().to_owned();
    open_to_others(&place)?;
    fs::rename(&place, folder).map_err(|error| Error::io("write", folder, error))?;
    // Nothing is left under the old name.
    let _ = temporary.keep();
    Ok(exported)
}

/// Sees that `folder` could be written.
///
/// # Errors
/// [`Error::Folder`].
pub fn check_free(folder: &Path) -> Result<()> {
    let refused = |reason, hint| Err(Error::Folder { path: folder.to_owned(), reason, hint });
    if !parent(folder).is_dir() {
        return refused("the folder around it is not there", "make that folder first");
    }
    match fs::read_dir(folder).map(Iterator::count) {
        Ok(1..) => refused("it holds something already", "name a new folder as --out, or remove this one"),
        Err(_) if folder.exists() => refused("it is no folder", "name a new folder as --out"),
        _ => Ok(()),
    }
}

fn parent(folder: &Path) -> &Path {
    folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn open_to_others(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder, permissions).map_err(|error| Error::io("write", folder, error))
}

#[cfg(not(unix))]
fn open_to_others(_: &Path) -> Result<()> {
    Ok(())
}

fn write(request: &Request, folder: &Path) -> Result<Exported> {
    let mut manifest = describe(request)?;
    for part in Part::ALL {
        let graph = write_graph(request, &manifest, folder, part)?;
        manifest.graphs.insert(part.to_string(), graph);
    }
    product::write(request, folder, &mut manifest)?;
    let golden = Golden::compute(&request.entry.model, reader(request))?;
    let path = folder.join(&manifest.golden.file);
    let bytes = golden.encode().map_err(|error| Error::io("write", &path, error))?;
    manifest.golden = write_file(folder, &manifest.golden.file, &bytes)?;

    let (unchecked, outside) = compare(request, folder, &golden, &mut manifest)?;
    let path = folder.join("manifest.json");
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| Error::io("write", &path, error))?;
    write_file(folder, "manifest.json", format!("{text}\n").as_bytes())?;
    Ok(Exported { manifest, unchecked, outside })
}

/// Writes the graphs of both encoders to `folder`, without a manifest: for a session that is opened right away.
///
/// # Errors
/// As [`export`].
pub fn write_encoders(request: &Request, folder: &Path) -> Result<Manifest> {
    let manifest = describe(request)?;
    for part in [Part::Image, Part::Text] {
        write_graph(request, &manifest, folder, part)?;
    }
    Ok(manifest)
}

pub(super) fn reader(request: &Request) -> impl Fn(&Parameter) -> laps_model::Result<Array> + 'static {
    let checkpoint = Rc::clone(&request.checkpoint);
    move |parameter| Ok(checkpoint.read(&parameter.name)?)
}

/// The graph of a part in the numbers of `precision`. In [`Precision::Int8`] it is the one that leaves no product out of 8
/// bits and takes all channels to be of one size, which needs no measuring.
///
/// # Errors
/// As [`record`].
pub fn graph(
    part: Part,
    config: &ModelConfig,
    (target, precision): (Target, Precision),
    read: impl Fn(&Parameter) -> laps_model::Result<Array> + 'static,
) -> Result<Graph> {
    let mut graph = record(part, config, target, read)?;
    if precision == Precision::Int8 && part != Part::Score {
        passes::smooth(&mut graph, &[])?;
    }
    rewrite(&mut graph, part, precision, &BTreeSet::new())?;
    Ok(graph)
}

/// Takes a graph from single precision to `precision`, but for the products `left_out` of 8 bits.
fn rewrite(graph: &mut Graph, part: Part, precision: Precision, left_out: &BTreeSet<String>) -> Result<()> {
    match precision {
        Precision::Fp32 => {}
        Precision::Fp16 => passes::half(graph),
        // The score is a sum of maxima of cosines, and its products with weights are small.
        Precision::Int8 if part == Part::Score => {}
        Precision::Int8 => {
            passes::int8(graph, left_out)?;
            passes::lower(graph);
        }
    }
    Ok(())
}

fn write_graph(request: &Request, manifest: &Manifest, folder: &Path, part: Part) -> Result<GraphFile> {
    let Request { entry, target, precision, threads, .. } = request;
    let mut graph = record(part, &entry.model, *target, reader(request))?;
    let products = match precision {
        Precision::Int8 if part != Part::Score => {
            smooth(part, &mut graph, &entry.model, *threads)?;
            select(part, &graph, &entry.model, *threads)?
        }
        _ => Vec::new(),
    };
    let left_out = products.iter().filter(|product| product.left_out).map(|product| product.node.clone());
    rewrite(&mut graph, part, *precision, &left_out.collect())?;
    let (inputs, outputs) = (graph.inputs(), graph.outputs());
    let file = write_onnx(&graph, &metadata(manifest, part)?, folder, part)?;
    let (inputs, outputs) = (inputs.iter().map(Into::into).collect(), outputs.iter().map(Into::into).collect());
    Ok(GraphFile { file, inputs, outputs, drift: None, products })
}

/// A manifest without files.
fn describe(request: &Request) -> Result<Manifest> {
    let Request { entry, checkpoint, target, precision, .. } = request;
    Ok(Manifest {
        schema: SCHEMA,
        producer: format!("laps-zoo {}", env!("CARGO_PKG_VERSION")),
        entry: entry.name.clone(),
        config_sha256: entry.config_sha256.clone(),
        checkpoint_sha256: checkpoint.sha256().map_err(laps_hub::Error::from)?,
        flavour: target.flavour.to_string(),
        windowed: entry.model.image.is_windowed(),
        precision: *precision,
        opset: target.opset.number(),
        image: Preprocessing::imagenet(entry.model.image.image_size()),
        text: TextPreprocessing {
            tokenizer: "BERT, lower-cased: basic tokens, then WordPiece, between [CLS] and [SEP], not cut".to_owned(),
            vocabulary: entry.model.text.vocab_size,
            longest: entry.model.text.max_position_embeddings,
            padding: 0,
        },
        graphs: BTreeMap::new(),
        golden: FileEntry { file: "golden.safetensors".to_owned(), bytes: 0, sha256: String::new() },
        alignment: None,
        vocabulary: None,
    })
}

/// What the file of a graph says of itself, so that it can be fed without anything else.
fn metadata(manifest: &Manifest, part: Part) -> Result<Vec<(String, String)>> {
    let json = |value: serde_json::Result<String>| value.map_err(|error| Error::io("write", part.file(), error));
    let pairs = [
        ("entry", manifest.entry.clone()),
        ("part", part.to_string()),
        ("config_sha256", manifest.config_sha256.clone()),
        ("checkpoint_sha256", manifest.checkpoint_sha256.clone()),
        ("flavour", manifest.flavour.clone()),
        ("precision", manifest.precision.to_string()),
        ("opset", manifest.opset.to_string()),
        ("image_preprocessing", json(serde_json::to_string(&manifest.image))?),
        ("text_preprocessing", json(serde_json::to_string(&manifest.text))?),
    ];
    Ok(pairs.into_iter().map(|(key, value)| (format!("laps_zoo.{key}"), value)).collect())
}

/// Runs the graphs on the golden inputs. A library that is not there is no error: the graphs are as good without it.
fn compare(
    request: &Request,
    folder: &Path,
    golden: &Golden,
    manifest: &mut Manifest,
) -> Result<(Option<String>, Vec<Part>)> {
    let tolerance = request.precision.tolerance();
    let mut outside = Vec::new();
    for part in Part::ALL {
        let session = match Session::open(&folder.join(part.file()), &SessionOptions::cpu(request.threads)) {
            Ok(session) => session,
            Err(error @ (RuntimeError::Missing { .. } | RuntimeError::Named { .. } | RuntimeError::Load { .. })) => {
                return Ok((Some(error.to_string()), Vec::new()));
            }
            Err(error) => return Err(error.into()),
        };
        let drift: Option<Drift> = golden.drift(part, &session)?;
        if !drift.is_some_and(|drift| tolerance.holds(&drift)) {
            outside.push(part);
        }
        if let Some(graph) = manifest.graphs.get_mut(part.name()) {
            graph.drift = drift;
        }
    }
    Ok((None, outside))
}

/// Writes a graph as it is put together, and hashes it on the way.
fn write_onnx(graph: &Graph, metadata: &[(String, String)], folder: &Path, part: Part) -> Result<FileEntry> {
    let path = folder.join(part.file());
    let failed = |error: std::io::Error| Error::io("write", &path, error);
    let mut hashed =
        Hashed { file: BufWriter::new(fs::File::create(&path).map_err(failed)?), hash: Sha256::new(), bytes: 0 };
    file::write(graph, metadata, &mut hashed)?;
    hashed.flush().map_err(failed)?;
    Ok(FileEntry { file: part.file(), bytes: hashed.bytes, sha256: hexadecimal(&hashed.hash.finalize()) })
}

/// A file, and the hash of what was written to it.
struct Hashed {
    file: BufWriter<fs::File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

pub(super) fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<FileEntry> {
    let path: PathBuf = folder.join(name);
    fs::write(&path, bytes).map_err(|error| Error::io("write", &path, error))?;
    Ok(FileEntry { file: name.to_owned(), bytes: bytes.len() as u64, sha256: sha256(bytes) })
}

/// In hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
