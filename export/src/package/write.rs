//! Writing a package.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
};

use fs_err as fs;
use laps_data::{Vocabulary, image::Preprocessing};
use laps_files::{FileLock, TemporaryFolder};
use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::{
    array::Array,
    models::config::{ModelConfig, TextType},
    params::Parameter,
};

use super::{
    Drift, FileEntry, GraphFile, NodeDrift, PackageManifest, TextPreprocessing,
    alignment::{write_alignment, write_head, write_vocabulary},
    files::{write_file, write_graph_file},
    golden::Golden,
    manifest::{MANIFEST_FILE, SCHEMA},
    sensitivity::{select, smooth},
};
use crate::{
    Error, Result, file,
    graph::{Graph, GraphKind, GraphPrecision, Target},
    passes,
    record::record,
    runtime::{RuntimeError, Session, SessionOptions},
};

/// The inputs and options of an export.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Entry.
    pub entry: Entry,
    /// Checkpoint, already checked against the entry.
    pub checkpoint: Rc<Checkpoint>,
    /// Operators and opset of the graphs.
    pub target: Target,
    /// Precision of the graphs.
    pub precision: GraphPrecision,
    /// Number of threads for measurements and the comparison in ONNX Runtime.
    pub threads: usize,
    /// WordPiece vocabulary of the text encoder to include in the package.
    pub vocabulary: Option<Vocabulary>,
}

/// The outcome of an export.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Manifest.
    pub manifest: PackageManifest,
    /// Why the graphs were not compared with the model; None if they were.
    pub unchecked: Option<String>,
    /// Graphs whose output exceeds the tolerance of the precision.
    pub out_of_tolerance: Vec<GraphKind>,
}

/// Exports an entry to `folder`, which must be absent or empty. The files are written to a temporary folder next to it,
/// compared with the model in ONNX Runtime if that is found, and then renamed, so that `folder` is complete or absent. A
/// symbolic link is followed: the folder that it points to is written, and the link stays.
///
/// # Errors
/// [`Error::Folder`] for a folder that is not empty; [`Error::Files`] if another process is writing it; [`laps_model::Error`] for a model that cannot be recorded.
pub fn export(request: &ExportRequest, folder: &Path) -> Result<Exported> {
    check_free(folder)?;
    let target = target(folder)?;
    let _lock = FileLock::try_acquire(&target)?;
    // Another process may have written it before this one got the lock.
    check_free(folder)?;
    let parent = parent(&target);
    let temporary = TemporaryFolder::create_in(parent).map_err(|error| Error::io("write", parent, error))?;
    // The temporary folder is for this user alone. A folder inside has the mode of the umask.
    let complete = temporary.path().join("graphs");
    fs::create_dir(&complete).map_err(|error| Error::io("write", &complete, error))?;
    let exported = write(request, &complete)?;
    // The rename replaces an empty folder.
    fs::rename(&complete, &target).map_err(|error| Error::io("write", folder, error))?;
    Ok(exported)
}

/// The folder that is written for `folder`, with links followed.
fn target(folder: &Path) -> Result<PathBuf> {
    laps_files::folder_target(folder).map_err(|error| Error::io("write", folder, error))
}

/// Verifies that a package can be written to `folder`.
///
/// # Errors
/// [`Error::Folder`] for a folder that is not empty or has no parent.
pub fn check_free(folder: &Path) -> Result<()> {
    let refused = |reason, hint| Err(Error::Folder { path: folder.to_owned(), reason, hint });
    let target = target(folder)?;
    if !parent(&target).is_dir() {
        return refused("its parent folder does not exist", "create the parent folder first");
    }
    match fs::read_dir(&target).map(Iterator::count) {
        Ok(1..) => refused("the folder is not empty", "choose a new or an empty folder"),
        Err(_) if target.exists() => refused("it is not a folder", "choose a new folder"),
        _ => Ok(()),
    }
}

fn parent(folder: &Path) -> &Path {
    folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write(request: &ExportRequest, folder: &Path) -> Result<Exported> {
    let mut manifest = describe(request)?;
    for kind in GraphKind::ALL {
        let graph = write_graph(request, &manifest, folder, kind)?;
        manifest.graphs.insert(kind.to_string(), graph);
    }
    let model = &request.entry.model;
    match model.head.is_laps() {
        true => manifest.alignment = Some(write_alignment(model, &request.checkpoint, folder)?),
        false => manifest.head_file = Some(write_head(model, &request.checkpoint, folder)?),
    }
    if let Some(vocabulary) = &request.vocabulary {
        let (file, config) = write_vocabulary(model, vocabulary, folder)?;
        (manifest.vocabulary, manifest.tokenizer_config) = (Some(file), config);
    }
    let golden = Golden::compute(model, reader(request))?;
    let path = folder.join(&manifest.golden.file);
    let bytes = golden.encode().map_err(|error| Error::io("write", &path, std::io::Error::other(error)))?;
    manifest.golden = write_file(folder, &manifest.golden.file, &bytes)?;

    let (unchecked, out_of_tolerance) = compare(request, folder, &golden, &mut manifest)?;
    let path = folder.join(MANIFEST_FILE);
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| Error::io("write", &path, error))?;
    write_file(folder, MANIFEST_FILE, format!("{text}\n").as_bytes())?;
    Ok(Exported { manifest, unchecked, out_of_tolerance })
}

/// Writes the graphs of both encoders to `folder`, without a manifest, for sessions that open at once.
///
/// # Errors
/// As [`export`].
pub fn write_encoders(request: &ExportRequest, folder: &Path) -> Result<PackageManifest> {
    let mut manifest = describe(request)?;
    for kind in [GraphKind::Image, GraphKind::Text] {
        let graph = write_graph(request, &manifest, folder, kind)?;
        manifest.graphs.insert(kind.to_string(), graph);
    }
    Ok(manifest)
}

/// Describes the graphs of both encoders for sessions that open at once, without a file: [`encode_graph`] makes them.
///
/// # Errors
/// As [`export`].
pub fn describe_encoders(request: &ExportRequest) -> Result<PackageManifest> {
    describe(request)
}

/// The contents of the file of a graph.
///
/// # Errors
/// As [`export`].
pub fn encode_graph(request: &ExportRequest, manifest: &PackageManifest, kind: GraphKind) -> Result<Vec<u8>> {
    let (graph, _) = make_graph(request, kind)?;
    let mut bytes = Vec::new();
    file::write(&graph, &metadata(manifest, kind)?, &mut bytes)?;
    Ok(bytes)
}

pub(super) fn reader(request: &ExportRequest) -> impl Fn(&Parameter) -> laps_model::Result<Array> + 'static {
    let checkpoint = Rc::clone(&request.checkpoint);
    move |parameter| Ok(checkpoint.read(&parameter.name)?)
}

/// Builds a graph in a precision without measurements: [`GraphPrecision::Int8`] quantises all products and takes all
/// channels as equal. `read` returns the parameters.
///
/// # Errors
/// As [`record`].
pub fn build_graph(
    kind: GraphKind,
    config: &ModelConfig,
    target: Target,
    precision: GraphPrecision,
    read: impl Fn(&Parameter) -> laps_model::Result<Array> + 'static,
) -> Result<Graph> {
    let mut graph = record(kind, config, target, read)?;
    if precision == GraphPrecision::Int8 && kind != GraphKind::Score {
        passes::smooth(&mut graph, &[])?;
    }
    convert(&mut graph, kind, precision, &BTreeSet::new())?;
    Ok(graph)
}

/// Converts a graph from fp32 to `precision`; int8 leaves the products `left_out` in fp32.
fn convert(graph: &mut Graph, kind: GraphKind, precision: GraphPrecision, left_out: &BTreeSet<String>) -> Result<()> {
    match precision {
        GraphPrecision::Fp32 => {}
        GraphPrecision::Fp16 => passes::half(graph),
        // The score is a sum of maxima of cosines, and its products with weights are small.
        GraphPrecision::Int8 if kind == GraphKind::Score => {}
        GraphPrecision::Int8 => {
            passes::int8(graph, left_out)?;
            passes::lower(graph);
        }
    }
    Ok(())
}

fn write_graph(
    request: &ExportRequest,
    manifest: &PackageManifest,
    folder: &Path,
    kind: GraphKind,
) -> Result<GraphFile> {
    let (graph, products) = make_graph(request, kind)?;
    let (inputs, outputs) = (graph.inputs(), graph.outputs());
    let file = write_graph_file(folder, &kind.file(), &graph, &metadata(manifest, kind)?)?;
    let (inputs, outputs) = (inputs.iter().map(Into::into).collect(), outputs.iter().map(Into::into).collect());
    Ok(GraphFile { file, inputs, outputs, drift: None, products })
}

/// A graph in the precision of the request, and the products that were measured for it.
fn make_graph(request: &ExportRequest, kind: GraphKind) -> Result<(Graph, Vec<NodeDrift>)> {
    let ExportRequest { entry, target, precision, threads, .. } = request;
    let mut graph = record(kind, &entry.model, *target, reader(request))?;
    let products = match precision {
        GraphPrecision::Int8 if kind != GraphKind::Score => {
            smooth(kind, &mut graph, &entry.model, *threads)?;
            select(kind, &graph, &entry.model, *threads)?
        }
        _ => Vec::new(),
    };
    let left_out = products.iter().filter(|product| product.left_out).map(|product| product.node.clone());
    convert(&mut graph, kind, *precision, &left_out.collect())?;
    Ok((graph, products))
}

/// The manifest without files.
fn describe(request: &ExportRequest) -> Result<PackageManifest> {
    let ExportRequest { entry, checkpoint, target, precision, .. } = request;
    Ok(PackageManifest {
        schema: SCHEMA,
        producer: format!("laps-zoo {}", env!("CARGO_PKG_VERSION")),
        entry: entry.name.clone(),
        config_sha256: entry.config_sha256.clone(),
        checkpoint_sha256: checkpoint.sha256().map_err(laps_hub::Error::from)?,
        flavour: target.flavour.to_string(),
        windowed: entry.model.image.is_windowed(),
        precision: *precision,
        opset: target.opset.number(),
        image: Preprocessing::of(&entry.model.image),
        text: TextPreprocessing {
            tokenizer: match entry.model.text.model_type {
                TextType::Bert => "BERT, lower-cased: basic tokens, then WordPiece, between [CLS] and [SEP], not cut",
                TextType::ClipTextModel => {
                    "CLIP: NFC, white space, lower case, byte-pair encoding, between <|startoftext|> and <|endoftext|>, cut"
                }
            }
            .to_owned(),
            vocabulary: entry.model.text.vocab_size,
            longest: entry.model.text.max_position_embeddings,
            padding: 0,
        },
        graphs: BTreeMap::new(),
        golden: FileEntry { file: "golden.safetensors".to_owned(), bytes: 0, sha256: String::new() },
        head: entry.model.head,
        head_file: None,
        alignment: None,
        vocabulary: None,
        tokenizer_config: None,
    })
}

/// Metadata of a graph file, with everything that is needed to prepare its inputs.
fn metadata(manifest: &PackageManifest, kind: GraphKind) -> Result<Vec<(String, String)>> {
    let json = |value: serde_json::Result<String>| value.map_err(|error| Error::io("write", kind.file(), error));
    let pairs = [
        ("entry", manifest.entry.clone()),
        ("part", kind.to_string()),
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

/// Runs the graphs on the golden inputs. A missing library is not an error: the graphs are valid without it.
fn compare(
    request: &ExportRequest,
    folder: &Path,
    golden: &Golden,
    manifest: &mut PackageManifest,
) -> Result<(Option<String>, Vec<GraphKind>)> {
    let tolerance = request.precision.tolerance();
    let mut out_of_tolerance = Vec::new();
    for kind in GraphKind::ALL {
        let session = match Session::open(&folder.join(kind.file()), &SessionOptions::cpu(request.threads)) {
            Ok(session) => session,
            Err(error @ (RuntimeError::Missing { .. } | RuntimeError::Named { .. } | RuntimeError::Load { .. })) => {
                return Ok((Some(error.to_string()), Vec::new()));
            }
            Err(error) => return Err(error.into()),
        };
        let drift: Option<Drift> = golden.drift(kind, &session)?;
        if !drift.is_some_and(|drift| tolerance.allows(&drift)) {
            out_of_tolerance.push(kind);
        }
        if let Some(graph) = manifest.graphs.get_mut(kind.name()) {
            graph.drift = drift;
        }
    }
    Ok((None, out_of_tolerance))
}
