//! Graphs of encoders that ONNX Runtime has optimised, in the cache folder. A second start neither exports nor optimises.
//!
//! An optimised graph fits one kind of CPU: ONNX Runtime arranges the weights of convolutions in blocks as wide as the vector
//! registers, 8 values with AVX2 and 16 with AVX-512, and replaces the operators by those of its version that read them. So
//! the key has the features of the CPU and the build of ONNX Runtime.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fs_err as fs;
use laps_files::{TemporaryFolder, sha256_hex};
use serde::{Deserialize, Serialize};

use super::{ExportRequest, PackageManifest};
use crate::{
    graph::GraphKind,
    runtime::{DISABLED_OPTIMIZERS, environment, weights_file},
};

/// Version of the folders; it changes when their contents change.
const FORMAT: u32 = 1;
/// The graphs that were not used for the longest time are deleted above this size: ten entries of ViT-B and BERT.
const MAX_BYTES: u64 = 8 << 30;
/// Age from which the folder of a process that was killed is deleted.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes at the start of a file that are hashed. It covers the graphs, but not their weights.
const HEAD_BYTES: u64 = 1 << 20;
/// Name of the description of a folder. It is written last, and its modification time is that of the last use.
const RECORD_FILE: &str = "graphs.json";

/// Cache of optimised graphs.
#[derive(Clone, Debug)]
pub struct GraphCache {
    folder: PathBuf,
}

/// The optimised graphs of the encoders of an entry.
#[derive(Clone, Debug)]
pub struct CachedGraphs {
    /// Folder.
    pub folder: PathBuf,
    /// Manifest of the export. It does not describe the optimised files.
    pub manifest: PackageManifest,
    /// Size of the files in bytes.
    pub bytes: u64,
}

/// A folder for graphs that are being written.
#[derive(Debug)]
pub struct PendingGraphs {
    cache: GraphCache,
    key: String,
    folder: TemporaryFolder,
}

/// `graphs.json`.
#[derive(Serialize, Deserialize)]
struct Record {
    manifest: PackageManifest,
    files: Vec<FileRecord>,
}

/// Size and start of a file.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct FileRecord {
    name: String,
    bytes: u64,
    /// SHA-256 of the first [`HEAD_BYTES`].
    head_sha256: String,
}

impl GraphCache {
    /// The graphs in the cache folder `cache`, which need not exist.
    pub fn new(cache: &Path) -> Self {
        Self { folder: cache.join("graphs") }
    }

    /// Name of the graphs of a request, whose checkpoint has the hash `checkpoint_sha256`. None if the features of the CPU
    /// are not known: the system is not Linux, or ONNX Runtime is missing.
    pub fn key(request: &ExportRequest, checkpoint_sha256: &str) -> Option<String> {
        let (_, library, build) = environment().ok()?;
        let ExportRequest { entry, target, precision, .. } = request;
        let text = [
            FORMAT.to_string(),
            env!("CARGO_PKG_VERSION").to_owned(),
            env!("LAPS_ZOO_EXPORT_FINGERPRINT").to_owned(),
            entry.config_sha256.clone(),
            checkpoint_sha256.to_owned(),
            format!("{}, {precision}, opset {}", target.flavour, target.opset.number()),
            format!("all optimisations without {DISABLED_OPTIMIZERS}"),
            format!("{:?}, {}", library.version, build.info),
            cpu()?,
        ];
        Some(sha256_hex(text.join("\n").as_bytes())[..32].to_owned())
    }

    /// The graphs with a key, if they are complete, unchanged in size and start, and in a folder that can be written.
    pub fn find(&self, key: &str) -> Option<CachedGraphs> {
        let folder = self.folder.join(key);
        let record = Record::read(&folder)?;
        let unchanged = |file: &FileRecord| FileRecord::of(&folder, &file.name).is_ok_and(|found| found == *file);
        let touched = || fs::File::open(folder.join(RECORD_FILE))?.file().set_modified(SystemTime::now());
        (record.files.iter().all(unchanged) && touched().is_ok()).then(|| record.describe(folder))
    }

    /// A folder for the graphs with a key. None if it cannot be created.
    pub fn create(&self, key: &str) -> Option<PendingGraphs> {
        fs::create_dir_all(&self.folder).ok()?;
        let folder = TemporaryFolder::create_in(&self.folder).ok()?;
        Some(PendingGraphs { cache: self.clone(), key: key.to_owned(), folder })
    }

    /// All graphs, the one that was used last first.
    pub fn list(&self) -> Vec<CachedGraphs> {
        let folders = self.folders();
        let used = |folder: &Path| fs::metadata(folder.join(RECORD_FILE)).ok()?.modified().ok();
        let graphs =
            folders.into_iter().filter_map(|folder| Some((used(&folder)?, Record::read(&folder)?.describe(folder))));
        let mut graphs: Vec<(SystemTime, CachedGraphs)> = graphs.collect();
        graphs.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        graphs.into_iter().map(|(_, graphs)| graphs).collect()
    }

    /// Deletes the graphs with a key, for example because they cannot be loaded.
    pub fn remove(&self, key: &str) {
        // Without it the next start meets the same graphs, and exports again.
        let _ = fs::remove_dir_all(self.folder.join(key));
    }

    /// Deletes all graphs and what killed processes left, and returns the deleted folders with their sizes. A process that
    /// has loaded graphs keeps them.
    ///
    /// # Errors
    /// That of the operating system.
    pub fn clear(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        self.folders()
            .into_iter()
            .map(|folder| {
                let bytes = size(&folder);
                fs::remove_dir_all(&folder)?;
                Ok((folder, bytes))
            })
            .collect()
    }

    fn folders(&self) -> Vec<PathBuf> {
        let Ok(items) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut folders: Vec<PathBuf> = items.flatten().map(|item| item.path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    }

    /// Deletes the graphs that were not used for the longest time until the others take at most `limit` bytes.
    fn trim(&self, limit: u64) {
        let mut total = 0;
        for CachedGraphs { folder, bytes, .. } in self.list() {
            total += bytes;
            if total > limit {
                let _ = fs::remove_dir_all(folder);
            }
        }
        for folder in self.folders().into_iter().filter(|folder| !folder.join(RECORD_FILE).exists()) {
            let modified = fs::metadata(&folder).and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED)) {
                let _ = fs::remove_dir_all(folder);
            }
        }
    }
}

impl PendingGraphs {
    /// Where ONNX Runtime writes an optimised graph; its weights go beside it.
    pub fn path(&self, kind: GraphKind) -> PathBuf {
        self.folder.path().join(kind.file())
    }

    /// Completes the folder: syncs its files to the disk, describes them and renames the folder. Nothing is kept if that
    /// fails, or if another process was first.
    pub fn keep(self, manifest: &PackageManifest) {
        if self.complete(manifest).is_ok() {
            let kept = self.cache.folder.join(&self.key);
            if fs::rename(self.folder.path(), kept).is_ok() {
                self.folder.keep();
                self.cache.trim(MAX_BYTES);
            }
        }
    }

    fn complete(&self, manifest: &PackageManifest) -> io::Result<()> {
        let folder = self.folder.path();
        let mut files = Vec::new();
        for kind in [GraphKind::Image, GraphKind::Text] {
            let path = self.path(kind);
            // A graph whose parameters are all small has no file of weights.
            for path in [weights_file(&path), path].into_iter().filter(|path| path.exists()) {
                fs::File::open(&path)?.sync_all()?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push(FileRecord::of(folder, &name)?);
            }
        }
        let text = serde_json::to_vec(&Record { manifest: manifest.clone(), files })?;
        laps_files::replace(&folder.join(RECORD_FILE), &text)
    }
}

impl Record {
    fn read(folder: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&fs::read(folder.join(RECORD_FILE)).ok()?).ok()?;
        // A record must not name files of other folders.
        record.files.iter().all(|file| laps_files::is_file_name(&file.name)).then_some(record)
    }

    fn describe(self, folder: PathBuf) -> CachedGraphs {
        let bytes = self.files.iter().map(|file| file.bytes).sum();
        CachedGraphs { folder, manifest: self.manifest, bytes }
    }
}

impl FileRecord {
    fn of(folder: &Path, name: &str) -> io::Result<Self> {
        let file = fs::File::open(folder.join(name))?;
        let bytes = file.metadata()?.len();
        let mut head = Vec::new();
        file.take(HEAD_BYTES).read_to_end(&mut head)?;
        Ok(Self { name: name.to_owned(), bytes, head_sha256: sha256_hex(&head) })
    }
}

/// Bytes of the files in `folder`.
fn size(folder: &Path) -> u64 {
    let Ok(items) = fs::read_dir(folder) else { return 0 };
    items.flatten().filter_map(|item| Some(item.metadata().ok()?.len())).sum()
}

/// Model and features of the first CPU, as Linux names them for x86-64 and aarch64. None on other systems.
fn cpu() -> Option<String> {
    const FIELDS: [&str; 6] = ["vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features"];
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let first = text.split("\n\n").next()?;
    let is_named = |line: &&str| FIELDS.contains(&line.split(':').next().unwrap_or_default().trim());
    let lines: Vec<&str> = first.lines().filter(is_named).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        time::{Duration, SystemTime},
    };

    use fs_err as fs;

    use super::{GraphCache, RECORD_FILE, cpu};
    use crate::{graph::GraphKind, package::PackageManifest};

    fn manifest() -> PackageManifest {
        serde_json::from_value(serde_json::json!({
            "schema": 1, "producer": "test", "entry": "shapes_vit", "config_sha256": "", "checkpoint_sha256": "",
            "flavour": "portable", "precision": "fp32", "opset": 18, "graphs": {},
            "image": { "size": 224, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0] },
            "text": { "tokenizer": "", "vocabulary": 1, "longest": 1, "padding": 0 },
            "golden": { "file": "golden.safetensors", "bytes": 0, "sha256": "" },
        }))
        .unwrap()
    }

    /// Keeps a folder `key` with a graph of `bytes` bytes, last used `age` seconds ago.
    fn keep(cache: &GraphCache, key: &str, bytes: usize, age: u64) {
        let pending = cache.create(key).unwrap();
        for kind in [GraphKind::Image, GraphKind::Text] {
            fs::write(pending.path(kind), vec![7; bytes / 2]).unwrap();
        }
        pending.keep(&manifest());
        let record = fs::File::open(cache.folder.join(key).join(RECORD_FILE)).unwrap();
        record.file().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }

    #[test]
    fn changed_graphs_are_not_found() {
        let root = tempfile::tempdir().unwrap();
        let cache = GraphCache::new(root.path());
        assert!(cache.find("key").is_none());
        keep(&cache, "key", 20, 0);
        let found = cache.find("key").unwrap();
        assert_eq!((found.manifest.entry.as_str(), found.bytes), ("shapes_vit", 20));
        let path = found.folder.join(GraphKind::Text.file());
        for damaged in [&[7; 9][..], &[8; 10]] {
            fs::write(&path, damaged).unwrap();
            assert!(cache.find("key").is_none());
        }
        fs::write(&path, [7; 10]).unwrap();
        assert!(cache.find("key").is_some());
    }

    #[test]
    fn graphs_without_recent_use_are_deleted_first() {
        let root = tempfile::tempdir().unwrap();
        let cache = GraphCache::new(root.path());
        for (key, age) in [("old", 300), ("new", 100), ("middle", 200)] {
            keep(&cache, key, 20, age);
        }
        // A lookup is a use.
        cache.find("old").unwrap();
        cache.trim(45);
        let names: Vec<_> = cache.list().iter().map(|graphs| graphs.folder.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["old", "new"]);
        assert_eq!(cache.clear().unwrap().len(), 2);
        assert!(cache.list().is_empty());
    }

    #[test]
    fn unwritable_cache_is_ignored() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(GraphCache::new(&file).create("key").is_none());
        assert!(GraphCache::new(&file).list().is_empty());
    }

    #[test]
    fn cpu_is_known_by_its_features() {
        if Path::new("/proc/cpuinfo").exists() {
            let cpu = cpu().unwrap();
            assert!(cpu.contains("flags") || cpu.contains("Features"), "{cpu}");
        }
    }
}
