//! Where the shared library of ONNX Runtime is, and what is in it.
//!
//! [`find`] only looks at files. [`Library::load`] brings the library into the process, which happens once: the first
//! one loaded stays.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use fs_err as fs;
use ort::ep::{self, ExecutionProvider as _};

use crate::runtime::{Provider, RuntimeError};

/// The folder that `make setup` fills, of the workspace that this was built in.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.runtime/onnxruntime");
const NAME: &str = "libonnxruntime.so";

/// A shared library of ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The file itself: absolute, links followed.
    pub path: PathBuf,
    /// From the file's name, `libonnxruntime.so.1.32.0`; not known where the name has none.
    pub version: Option<String>,
    /// Why this one was taken.
    pub origin: Origin,
}

/// Why a library was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `ORT_DYLIB_PATH` names it.
    Environment,
    /// `make setup` put it into `.runtime/`.
    Setup,
    /// It lies in `../lib`, seen from the executable.
    Installed,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "ORT_DYLIB_PATH",
            Self::Setup => "make setup",
            Self::Installed => "installed beside the executable",
        })
    }
}

/// What a loaded library says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Its own line about its build: commit, type, flags.
    pub info: String,
    /// The execution providers compiled into it. One that needs a device or further libraries may still fail to start.
    pub providers: Vec<Provider>,
}

/// The library to use: the one that `ORT_DYLIB_PATH` names, else that of `make setup`, else one in `../lib` beside the
/// executable. Loads nothing.
pub fn find() -> Result<Library, RuntimeError> {
    let executable = env::current_exe().ok();
    let installed = executable.as_deref().and_then(Path::parent).map(|folder| folder.join("../lib"));
    let folders = [(Some(PathBuf::from(WORKSPACE)), Origin::Setup), (installed, Origin::Installed)];
    search(
        env::var_os("ORT_DYLIB_PATH").filter(|value| !value.is_empty()).map(PathBuf::from),
        folders.into_iter().filter_map(|(folder, origin)| Some((folder?, origin))),
    )
}

fn search(named: Option<PathBuf>, folders: impl Iterator<Item = (PathBuf, Origin)>) -> Result<Library, RuntimeError> {
    if let Some(path) = named {
        return library(&path, Origin::Environment).ok_or(RuntimeError::Named { path });
    }
    let mut searched = Vec::new();
    for (folder, origin) in folders {
        let path = folder.join(NAME);
        match library(&path, origin) {
            Some(library) => return Ok(library),
            None => searched.push(path),
        }
    }
    Err(RuntimeError::Missing { searched })
}

fn library(path: &Path, origin: Origin) -> Option<Library> {
    let path = fs::canonicalize(path).ok().filter(|path| path.is_file())?;
    let version = path.file_name()?.to_str().and_then(|name| name.strip_prefix(NAME)?.strip_prefix('.'));
    let version = version.filter(|version| version.contains('.')).map(str::to_owned);
    Some(Library { path, version, origin })
}

impl Library {
    /// Loads the library into this process and asks it what it is.
    pub fn load(&self) -> Result<Build, RuntimeError> {
        let failed = |source| RuntimeError::Load { path: self.path.clone(), source };
        // Only loads and checks the version; an environment, with its threads and telemetry, is not made.
        ort::init_from(&self.path).map_err(|error| failed(error.to_string().into()))?;
        let mut providers = Vec::new();
        let asked = [
            (Provider::Cpu, ep::CPU::is_available()),
            (Provider::Cuda, ep::CUDA::is_available()),
            (Provider::TensorRt, ep::TensorRT::is_available()),
        ];
        for (provider, available) in asked {
            if available.map_err(RuntimeError::Providers)? {
                providers.push(provider);
            }
        }
        Ok(Build { info: ort::info().trim_start_matches("ORT Build Info: ").to_owned(), providers })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use fs_err as fs;

    use super::{Origin, Provider, RuntimeError, WORKSPACE, find, search};

    fn folder(root: &Path, name: &str, version: Option<&str>) -> PathBuf {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        if let Some(version) = version {
            let file = format!("libonnxruntime.so.{version}");
            fs::write(folder.join(&file), b"not a library").unwrap();
            std::os::unix::fs::symlink(file, folder.join("libonnxruntime.so")).unwrap();
        }
        folder
    }

    #[test]
    fn the_first_folder_with_a_library_is_taken_and_the_link_names_its_version() {
        let root = tempfile::tempdir().unwrap();
        let empty = folder(root.path(), "empty", None);
        let old = folder(root.path(), "old", Some("1.22.0"));
        let new = folder(root.path(), "new", Some("1.32.0"));
        let folders = [(empty, Origin::Setup), (new, Origin::Installed), (old.clone(), Origin::Setup)];
        let found = search(None, folders.clone().into_iter()).unwrap();
        assert_eq!((found.version.as_deref(), found.origin), (Some("1.32.0"), Origin::Installed));
        assert!(found.path.ends_with("new/libonnxruntime.so.1.32.0"), "{}", found.path.display());

        let named = search(Some(old.join("libonnxruntime.so")), folders.into_iter()).unwrap();
        assert_eq!((named.version.as_deref(), named.origin), (Some("1.22.0"), Origin::Environment));
    }

    #[test]
    fn a_name_without_a_version_has_none() {
        let root = tempfile::tempdir().unwrap();
        for name in ["libonnxruntime.so", "libonnxruntime.so.1", "onnxruntime-custom.so"] {
            fs::write(root.path().join(name), b"").unwrap();
            let found = search(Some(root.path().join(name)), std::iter::empty()).unwrap();
            assert_eq!(found.version, None, "{name}");
        }
    }

    #[test]
    fn a_named_library_that_is_not_there_is_not_replaced_by_another() {
        let root = tempfile::tempdir().unwrap();
        let there = folder(root.path(), "there", Some("1.32.0"));
        for absent in [root.path().join("absent.so"), there.clone()] {
            let error = search(Some(absent), [(there.clone(), Origin::Setup)].into_iter()).unwrap_err();
            assert!(matches!(error, RuntimeError::Named { .. }), "{error}");
        }
    }

    #[test]
    fn nothing_found_says_where_and_what_to_do() {
        let error = search(None, [(PathBuf::from("/no/such"), Origin::Setup)].into_iter()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ONNX Runtime was not found\n  expected: `/no/such/libonnxruntime.so`\n  found: nothing there"
        );
        assert_eq!(error.hint().as_deref(), Some("make setup"));
    }

    /// One test, for a process loads one library: a file that is none fails and leaves the place free.
    #[test]
    fn the_library_of_the_set_up_loads_and_has_a_cpu() {
        let root = tempfile::tempdir().unwrap();
        let fake = folder(root.path(), "fake", Some("1.32.0"));
        let error = search(None, [(fake, Origin::Setup)].into_iter()).unwrap().load().unwrap_err();
        assert!(matches!(error, RuntimeError::Load { .. }), "{error}");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("libonnxruntime.so.1.32.0"));

        if std::env::var_os("ORT_DYLIB_PATH").is_none() && !Path::new(WORKSPACE).exists() {
            println!("skipped: `make setup` has not been run");
            return;
        }
        let build = find().unwrap().load().unwrap();
        assert!(build.providers.contains(&Provider::Cpu), "{build:?}");
        assert!(build.info.contains("git-commit-id"), "{build:?}");
    }
}
