//! Search for the shared library of ONNX Runtime.
//!
//! [`find`] only looks at files. [`Library::load`] loads the library into the process, which can be done once: the first
//! library stays loaded.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fs_err as fs;
use ort::ep::{self, ExecutionProvider as _};

use super::{Provider, RuntimeError};

/// Environment variable with the path of the library.
const VARIABLE: &str = "ORT_DYLIB_PATH";
const NAME: &str = "libonnxruntime.so";
/// Folder that `make setup` fills, in a checkout of the workspace.
const SETUP_FOLDER: &str = ".runtime/onnxruntime";
/// Folders of packages below `lib/python3.*`; the second one is Debian's.
const PACKAGE_FOLDERS: [&str; 2] = ["site-packages", "dist-packages"];
/// Folder of the library in the Python package.
const PYTHON_FOLDER: &str = "onnxruntime/capi";

/// Folders that the program has added to the search.
static ADDED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A shared library of ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Absolute path with symbolic links resolved.
    pub path: PathBuf,
    /// Version from the file name, such as `libonnxruntime.so.1.32.0`; None if the name has none.
    pub version: Option<String>,
    /// Where the library was found.
    pub origin: LibraryOrigin,
}

/// Where a library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LibraryOrigin {
    /// `ORT_DYLIB_PATH`.
    Variable,
    /// A folder that the program has [added](add_folder).
    Added,
    /// Next to the executable, in its `../lib`, or in the Python packages below it.
    Executable,
    /// `.runtime/onnxruntime` of the checkout that the executable was built in, written by `make setup`.
    Setup,
    /// The active virtual or Conda environment.
    PythonEnvironment,
    /// A folder of the system's loader.
    System,
}

impl fmt::Display for LibraryOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Variable => VARIABLE,
            Self::Added => "Python package onnxruntime",
            Self::Executable => "installed with the executable",
            Self::Setup => "make setup",
            Self::PythonEnvironment => "active Python environment",
            Self::System => "system library",
        })
    }
}

/// Version and build of a loaded library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// Build line: commit, build type, flags.
    pub info: String,
    /// Execution providers compiled into the library. One that needs a device or more libraries can still fail to start.
    pub providers: Vec<Provider>,
}

/// Adds a folder to the search, before that of the executable. For libraries whose executable is the program of someone
/// else: that of the Python module is the interpreter.
pub fn add_folder(folder: PathBuf) {
    ADDED.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
}

/// Finds the library to use, without loading it. No path of the build is searched. The search order is:
///
/// 1. the file that `ORT_DYLIB_PATH` names; if it does not exist, the search fails
/// 2. folders from [`add_folder`]
/// 3. the folder of the executable (symbolic links resolved), its `../lib`, and `onnxruntime/capi` of the Python packages
///    in `../lib/python3.*` (virtual environments, user installs, Conda, tools of uv and pipx)
/// 4. `.runtime/onnxruntime` of the checkout, if the executable lies in its folder `target`
/// 5. the environment that `VIRTUAL_ENV` or `CONDA_PREFIX` names
/// 6. the folders of the system's loader
///
/// # Errors
/// [`RuntimeError::Named`] if `ORT_DYLIB_PATH` names no file, [`RuntimeError::Missing`] if nothing is found.
pub fn find() -> Result<Library, RuntimeError> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    Search {
        named: variable(VARIABLE).map(PathBuf::from),
        added: ADDED.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        executable: env::current_exe().ok(),
        environments: ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).map(PathBuf::from).collect(),
        system: loader_folders(variable("LD_LIBRARY_PATH"), Path::new("/etc")),
    }
    .run()
}

/// Inputs of the search.
#[derive(Clone, Debug, Default)]
struct Search {
    named: Option<PathBuf>,
    added: Vec<PathBuf>,
    executable: Option<PathBuf>,
    environments: Vec<PathBuf>,
    system: Vec<PathBuf>,
}

impl Search {
    fn run(self) -> Result<Library, RuntimeError> {
        if let Some(path) = self.named {
            return library(&path, LibraryOrigin::Variable).ok_or(RuntimeError::Named { path });
        }
        let mut searched = Vec::new();
        for (folders, description, origin) in self.folders() {
            if let Some(library) = folders.iter().find_map(|folder| in_folder(folder, origin)) {
                return Ok(library);
            }
            searched.push(description);
        }
        Err(RuntimeError::Missing { searched })
    }

    /// Folders in search order, with a description for messages.
    fn folders(&self) -> Vec<(Vec<PathBuf>, String, LibraryOrigin)> {
        let mut all = Vec::new();
        let mut push = |folder: &Path, origin| all.push((vec![folder.to_owned()], quoted(folder), origin));
        self.added.iter().for_each(|folder| push(folder, LibraryOrigin::Added));
        let executable = self.executable.as_ref().map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone()));
        if let Some(folder) = executable.as_deref().and_then(Path::parent) {
            push(folder, LibraryOrigin::Executable);
            // The parent, so that messages name `lib` without `..`.
            let prefix = folder.parent().unwrap_or(folder);
            push(&prefix.join("lib"), LibraryOrigin::Executable);
            all.push(python_folders(prefix, LibraryOrigin::Executable));
            if let Some(checkout) = checkout(folder) {
                let setup = checkout.join(SETUP_FOLDER);
                all.push((vec![setup.clone()], quoted(&setup), LibraryOrigin::Setup));
            }
        }
        for prefix in &self.environments {
            all.push(python_folders(prefix, LibraryOrigin::PythonEnvironment));
            let folder = prefix.join("lib");
            all.push((vec![folder.clone()], quoted(&folder), LibraryOrigin::PythonEnvironment));
        }
        if !self.system.is_empty() {
            all.push((self.system.clone(), "the folders of the system's loader".to_owned(), LibraryOrigin::System));
        }
        all
    }
}

fn quoted(path: &Path) -> String {
    format!("`{}`", path.display())
}

/// The checkout whose folder `target` contains `folder`, unless other users can create files in it.
fn checkout(folder: &Path) -> Option<&Path> {
    let targets = folder.ancestors().filter(|folder| folder.ends_with("target"));
    targets.filter_map(Path::parent).find(|root| root.join("Cargo.toml").is_file() && !is_shared(root))
}

/// Folders of the Python package `onnxruntime` below `prefix`, the newest Python first.
fn python_folders(prefix: &Path, origin: LibraryOrigin) -> (Vec<PathBuf>, String, LibraryOrigin) {
    let lib = prefix.join("lib");
    let mut minors: Vec<u32> =
        names(&lib).iter().filter_map(|name| name.to_str()?.strip_prefix("python3.")?.parse().ok()).collect();
    minors.sort_unstable_by(|a, b| b.cmp(a));
    let folder =
        |version: &str, packages: &str| lib.join(format!("python3.{version}")).join(packages).join(PYTHON_FOLDER);
    let versions = minors.iter().flat_map(|minor| PACKAGE_FOLDERS.map(|packages| folder(&minor.to_string(), packages)));
    (versions.collect(), quoted(&folder("*", PACKAGE_FOLDERS[0])), origin)
}

/// Returns true for folders such as `/tmp`, in which every user can create files: a library there is not trusted.
#[cfg(unix)]
fn is_shared(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const STICKY_AND_WRITABLE: u32 = 0o1002;
    fs::metadata(folder)
        .is_ok_and(|metadata| metadata.permissions().mode() & STICKY_AND_WRITABLE == STICKY_AND_WRITABLE)
}

#[cfg(not(unix))]
fn is_shared(_: &Path) -> bool {
    false
}

/// Folders that the dynamic loader searches: `LD_LIBRARY_PATH`, those of `ld.so.conf.d`, and the defaults.
fn loader_folders(variable: Option<OsString>, etc: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = variable.iter().flat_map(env::split_paths).collect();
    let configuration = etc.join("ld.so.conf.d");
    let mut files: Vec<PathBuf> = names(&configuration).iter().map(|name| configuration.join(name)).collect();
    files.sort();
    for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
        folders.extend(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from));
    }
    folders.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    folders.retain(|folder| folder.is_absolute());
    folders
}

/// Names in a folder; none if it cannot be read.
fn names(folder: &Path) -> Vec<OsString> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

/// Version of the Python package `onnxruntime-gpu` whose library is in `folder`. The package shares its folder with the
/// package `onnxruntime`, whose library may be newer and cannot use a GPU.
fn gpu_package_version(folder: &Path) -> Option<String> {
    let packages = folder.parent()?.parent()?;
    names(packages)
        .iter()
        .find_map(|name| name.to_str()?.strip_prefix("onnxruntime_gpu-")?.strip_suffix(".dist-info").map(str::to_owned))
}

/// The library in `folder`: `libonnxruntime.so`, or else that of the package `onnxruntime-gpu`, or else the newest
/// `libonnxruntime.so.N`, as Python packages have it.
fn in_folder(folder: &Path, origin: LibraryOrigin) -> Option<Library> {
    let numbers = |name: &OsString| -> Option<Vec<u32>> {
        name.to_str()?.strip_prefix(NAME)?.strip_prefix('.')?.split('.').map(|number| number.parse().ok()).collect()
    };
    let gpu = || library(&folder.join(format!("{NAME}.{}", gpu_package_version(folder)?)), origin);
    library(&folder.join(NAME), origin).or_else(gpu).or_else(|| {
        let mut versions: Vec<_> = names(folder).into_iter().filter_map(|name| Some((numbers(&name)?, name))).collect();
        versions.sort();
        versions.iter().rev().find_map(|(_, name)| library(&folder.join(name), origin))
    })
}

fn library(path: &Path, origin: LibraryOrigin) -> Option<Library> {
    let path = fs::canonicalize(path).ok().filter(|path| path.is_file())?;
    let version = path.file_name()?.to_str().and_then(|name| name.strip_prefix(NAME)?.strip_prefix('.'));
    let version = version.filter(|version| version.contains('.')).map(str::to_owned);
    Some(Library { path, version, origin })
}

impl Library {
    /// Loads the library into this process and reads its build information.
    ///
    /// # Errors
    /// [`RuntimeError::Load`] for a file that cannot be loaded, [`RuntimeError::Providers`] if the library does not list its
    /// execution providers.
    pub fn load(&self) -> Result<BuildInfo, RuntimeError> {
        let failed = |source| RuntimeError::Load { path: self.path.clone(), source };
        // Only loads the library and checks its version; an environment, with threads and telemetry, is not created.
        ort::init_from(&self.path).map_err(|error| failed(error.to_string().into()))?;
        let mut providers = Vec::new();
        let available = [
            (Provider::Cpu, ep::CPU::is_available()),
            (Provider::Cuda, ep::CUDA::is_available()),
            (Provider::TensorRt, ep::TensorRT::is_available()),
        ];
        for (provider, available) in available {
            if available.map_err(RuntimeError::Providers)? {
                providers.push(provider);
            }
        }
        Ok(BuildInfo { info: ort::info().trim_start_matches("ORT Build Info: ").to_owned(), providers })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        path::{Path, PathBuf},
    };

    use fs_err as fs;

    use super::{Library, LibraryOrigin, Provider, RuntimeError, Search, find, loader_folders};

    /// Writes `files` into `root/name`.
    fn folder(root: &Path, name: &str, files: &[&str]) -> PathBuf {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        files.iter().for_each(|file| fs::write(folder.join(file), b"not a library").unwrap());
        folder
    }

    fn versioned(root: &Path, name: &str, version: &str) -> PathBuf {
        folder(root, name, &[&format!("libonnxruntime.so.{version}")])
    }

    /// One library of its own version in every place, in search order.
    const PLACES: [(&str, &str, LibraryOrigin); 9] = [
        ("added", "1.30.0", LibraryOrigin::Added),
        ("work/target/release", "1.30.1", LibraryOrigin::Executable),
        ("work/target/lib", "1.30.2", LibraryOrigin::Executable),
        ("work/target/lib/python3.11/site-packages/onnxruntime/capi", "1.30.3", LibraryOrigin::Executable),
        ("work/target/lib/python3.11/dist-packages/onnxruntime/capi", "1.30.4", LibraryOrigin::Executable),
        ("work/.runtime/onnxruntime", "1.30.5", LibraryOrigin::Setup),
        ("venv/lib/python3.12/site-packages/onnxruntime/capi", "1.30.6", LibraryOrigin::PythonEnvironment),
        ("conda/lib", "1.30.7", LibraryOrigin::PythonEnvironment),
        ("system", "1.30.8", LibraryOrigin::System),
    ];

    /// The search of a program in the folder `target` of the checkout `root/work`.
    fn search(root: &Path) -> Search {
        fs::create_dir_all(root.join("work/target/release")).unwrap();
        fs::write(root.join("work/Cargo.toml"), "").unwrap();
        Search {
            named: None,
            added: vec![root.join("added")],
            executable: Some(root.join("work/target/release/program")),
            environments: ["venv", "conda"].map(|name| root.join(name)).to_vec(),
            system: vec![root.join("absent"), root.join("system")],
        }
    }

    fn version_and_origin(library: &Library) -> (Option<&str>, LibraryOrigin) {
        (library.version.as_deref(), library.origin)
    }

    #[test]
    fn places_are_searched_in_order() {
        let root = tempfile::tempdir().unwrap();
        for (place, version, _) in PLACES {
            versioned(root.path(), place, version);
        }
        for (place, version, origin) in PLACES {
            let library = search(root.path()).run().unwrap();
            assert_eq!(version_and_origin(&library), (Some(version), origin), "{place}");
            // Only the file: some places lie within others.
            fs::remove_file(root.path().join(place).join(format!("libonnxruntime.so.{version}"))).unwrap();
        }
        assert!(matches!(search(root.path()).run(), Err(RuntimeError::Missing { .. })));
    }

    #[test]
    fn named_library_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for (place, version, _) in PLACES {
            versioned(root.path(), place, version);
        }
        let named = versioned(root.path(), "named", "1.22.0").join("libonnxruntime.so.1.22.0");
        let library = Search { named: Some(named), ..search(root.path()) }.run().unwrap();
        assert_eq!(version_and_origin(&library), (Some("1.22.0"), LibraryOrigin::Variable));
    }

    #[test]
    fn missing_named_library_is_not_replaced_by_another() {
        let root = tempfile::tempdir().unwrap();
        let system = versioned(root.path(), "system", "1.32.0");
        for named in [root.path().join("absent.so"), system] {
            let error = Search { named: Some(named), ..search(root.path()) }.run().unwrap_err();
            assert!(matches!(error, RuntimeError::Named { .. }), "{error}");
        }
    }

    #[test]
    fn plain_name_comes_before_versions_and_newer_versions_before_older_ones() {
        let root = tempfile::tempdir().unwrap();
        let files = ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_cuda.so"];
        let folder = folder(root.path(), "work/target/release", &files);
        assert_eq!(search(root.path()).run().unwrap().version.as_deref(), Some("1.32.0"));
        symlink(files[0], folder.join("libonnxruntime.so")).unwrap();
        let library = search(root.path()).run().unwrap();
        assert_eq!(library.version.as_deref(), Some("1.9.0"), "the version of the link's target");
        assert!(library.path.ends_with("work/target/release/libonnxruntime.so.1.9.0"), "{}", library.path.display());
    }

    #[test]
    fn newest_python_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for (python, version) in [("python3.9", "1.19.0"), ("python3.12", "1.32.0"), ("python3.x", "1.33.0")] {
            versioned(root.path(), &format!("venv/lib/{python}/site-packages/onnxruntime/capi"), version);
        }
        assert_eq!(search(root.path()).run().unwrap().version.as_deref(), Some("1.32.0"));
    }

    /// Where installers put a program, where a link on PATH leads to it from, and where its ONNX Runtime is.
    const LAYOUTS: [(&str, &str, Option<&str>, &str); 7] = [
        ("venv", "env/bin", None, "env/lib/python3.12/site-packages"),
        ("pip install --user", "home/.local/bin", None, "home/.local/lib/python3.11/site-packages"),
        ("pip of Debian as root", "usr/local/bin", None, "usr/local/lib/python3.11/dist-packages"),
        (
            "uv tool install",
            "home/.local/share/uv/tools/laps-zoo/bin",
            Some("home/.local/bin"),
            "home/.local/share/uv/tools/laps-zoo/lib/python3.13/site-packages",
        ),
        (
            "uvx",
            "home/.cache/uv/archive-v0/hash/bin",
            None,
            "home/.cache/uv/archive-v0/hash/lib/python3.13/site-packages",
        ),
        (
            "pipx",
            "home/.local/share/pipx/venvs/laps-zoo/bin",
            Some("home/.local/bin"),
            "home/.local/share/pipx/venvs/laps-zoo/lib/python3.11/site-packages",
        ),
        ("conda", "conda/envs/laps/bin", None, "conda/envs/laps/lib/python3.12/site-packages"),
    ];

    #[test]
    fn library_of_the_same_installation_is_found() {
        for (layout, folder_of_program, folder_of_link, packages) in LAYOUTS {
            let root = tempfile::tempdir().unwrap();
            let mut executable = folder(root.path(), folder_of_program, &["laps-zoo"]).join("laps-zoo");
            if let Some(folder_of_link) = folder_of_link {
                let link = folder(root.path(), folder_of_link, &[]).join("laps-zoo");
                symlink(&executable, &link).unwrap();
                executable = link;
            }
            let library = versioned(root.path(), &format!("{packages}/onnxruntime/capi"), "1.32.0");
            let found = Search { executable: Some(executable), ..Search::default() }.run().unwrap();
            let expected = fs::canonicalize(library.join("libonnxruntime.so.1.32.0")).unwrap();
            assert_eq!((found.path, found.origin), (expected, LibraryOrigin::Executable), "{layout}");
        }
    }

    /// Conda's package `onnxruntime-cpp` has the library itself.
    #[test]
    fn library_of_a_conda_package_is_found() {
        let root = tempfile::tempdir().unwrap();
        versioned(root.path(), "conda/lib", "1.30.0");
        let executable = Some(folder(root.path(), "conda/bin", &["laps-zoo"]).join("laps-zoo"));
        let library = Search { executable, ..Search::default() }.run().unwrap();
        assert_eq!(version_and_origin(&library), (Some("1.30.0"), LibraryOrigin::Executable));
    }

    #[test]
    fn library_of_the_gpu_package_comes_before_a_newer_one() {
        let root = tempfile::tempdir().unwrap();
        let packages = "env/lib/python3.12/site-packages";
        let files = ["libonnxruntime.so.1.32.0", "libonnxruntime.so.1.31.1"];
        folder(root.path(), &format!("{packages}/onnxruntime/capi"), &files);
        let executable = Some(folder(root.path(), "env/bin", &["laps-zoo"]).join("laps-zoo"));
        let search = Search { executable, ..Search::default() };
        assert_eq!(search.clone().run().unwrap().version.as_deref(), Some("1.32.0"));
        folder(root.path(), &format!("{packages}/onnxruntime_gpu-1.31.1.dist-info"), &[]);
        assert_eq!(search.run().unwrap().version.as_deref(), Some("1.31.1"));
    }

    #[test]
    fn setup_folder_belongs_to_programs_built_in_its_checkout() {
        let root = tempfile::tempdir().unwrap();
        let setup = |executable: &str| {
            let executable = Some(root.path().join(executable));
            Search { executable, ..Search::default() }.run()
        };
        versioned(root.path(), "work/.runtime/onnxruntime", "1.32.0");
        let programs = ["work/target/release/program", "work/target/debug/deps/test"];
        for program in programs {
            assert!(matches!(setup(program), Err(RuntimeError::Missing { .. })), "{program}: there is no checkout");
        }
        fs::write(root.path().join("work/Cargo.toml"), "").unwrap();
        for program in programs {
            assert_eq!(setup(program).unwrap().origin, LibraryOrigin::Setup, "{program}");
        }
        for program in ["work/bin/program", "work/install/bin/program", "work/program"] {
            assert!(matches!(setup(program), Err(RuntimeError::Missing { .. })), "{program}");
        }
    }

    /// Another user could put a library into a folder like `/tmp`.
    #[test]
    fn setup_folder_in_a_shared_folder_is_ignored() {
        let root = tempfile::tempdir().unwrap();
        versioned(root.path(), "work/.runtime/onnxruntime", "1.32.0");
        assert_eq!(search(root.path()).run().unwrap().origin, LibraryOrigin::Setup);
        let shared = std::fs::Permissions::from_mode(0o1777);
        fs::set_permissions(root.path().join("work"), shared).unwrap();
        assert!(matches!(search(root.path()).run(), Err(RuntimeError::Missing { .. })));
    }

    #[test]
    fn loader_folders_come_from_the_variable_and_the_configuration() {
        let root = tempfile::tempdir().unwrap();
        let configuration = folder(root.path(), "ld.so.conf.d", &[]);
        fs::write(configuration.join("b.conf"), "/opt/b\n").unwrap();
        fs::write(configuration.join("a.conf"), "# comment\n/opt/a\nrelative\n").unwrap();
        let folders = loader_folders(Some("/first:relative:/second".into()), root.path());
        let expected = ["/first", "/second", "/opt/a", "/opt/b", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
        assert_eq!(folders, expected.map(PathBuf::from));
    }

    #[test]
    fn file_name_without_a_version_has_none() {
        let root = tempfile::tempdir().unwrap();
        for name in ["libonnxruntime.so", "libonnxruntime.so.1", "onnxruntime-custom.so"] {
            fs::write(root.path().join(name), b"").unwrap();
            let named = Some(root.path().join(name));
            assert_eq!(Search { named, ..Search::default() }.run().unwrap().version, None, "{name}");
        }
    }

    #[test]
    fn missing_library_names_every_place_and_what_to_do() {
        let environments = vec![PathBuf::from("/no/venv")];
        let executable = Some(PathBuf::from("/no/such/bin/program"));
        let system = vec![PathBuf::from("/no/lib")];
        let error = Search { executable, environments, system, ..Search::default() }.run().unwrap_err();
        insta::assert_snapshot!(error, @r"
        ONNX Runtime was not found
          expected: libonnxruntime.so in `/no/such/bin`, `/no/such/lib`, `/no/such/lib/python3.*/site-packages/onnxruntime/capi`, `/no/venv/lib/python3.*/site-packages/onnxruntime/capi`, `/no/venv/lib`, the folders of the system's loader
          found: none of these files
        ");
        let hint = error.hint().unwrap();
        assert!(hint.contains("make setup") && hint.contains("ORT_DYLIB_PATH"), "{hint}");
    }

    /// One test, because a process loads one library: a file that is not a library fails and leaves the process usable.
    #[test]
    fn installed_library_loads_and_has_the_cpu_provider() {
        let root = tempfile::tempdir().unwrap();
        versioned(root.path(), "work/target/release", "1.32.0");
        let error = search(root.path()).run().unwrap().load().unwrap_err();
        assert!(matches!(error, RuntimeError::Load { .. }), "{error}");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("libonnxruntime.so.1.32.0"));

        let library = match find() {
            Err(error @ RuntimeError::Missing { .. }) => return println!("skipped: {error}"),
            found => found.unwrap(),
        };
        let build = library.load().unwrap();
        assert!(build.providers.contains(&Provider::Cpu), "{build:?}");
        assert!(build.info.contains("git-commit-id"), "{build:?}");
    }
}
