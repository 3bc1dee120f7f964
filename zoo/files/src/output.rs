//! Output files that are complete or absent.
//!
//! Every output of laps-zoo is written by [`OutputFile`]. What it does depends on what the path names:
//!
//! | path | what happens |
//! |---|---|
//! | a regular file, or nothing | written to a temporary file in the same folder, synced, renamed |
//! | a symbolic link | the file that the link points to is written as above; the link stays |
//! | a device, FIFO or socket | written into |
//! | `-`, `/dev/stdout` | written to standard output |
//! | `/dev/fd/N` | written into |
//!
//! A temporary file has the permissions of any new file (`0666 & !umask`), because the user and not only this process reads
//! the result. It is removed when the writer fails.

use std::{
    ffi::{OsStr, OsString},
    fs::TryLockError,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use fs_err::{File, OpenOptions};

use crate::{Error, FileLock, IoError, Result, lock::is_same, temporary::TemporaryPath};

/// Maximum number of symbolic links that are followed, as in Linux.
const MAX_LINKS: usize = 40;

/// Longest file name that a temporary name repeats. Most file systems allow 255 bytes.
const MAX_REPEATED_NAME: usize = 200;

/// Number of the next temporary file of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// An output that is being written. Call [`persist`](Self::persist) when it is complete; if it is dropped before that, the
/// target is unchanged and the temporary file is removed.
///
/// It does not buffer: wrap it in a [`BufWriter`](io::BufWriter) for small writes.
///
/// ```
/// use std::io::Write;
/// use laps_files::OutputFile;
///
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("scores.csv");
/// let mut output = OutputFile::create(&path)?;
/// writeln!(output, "image,score")?;
/// assert!(!path.exists());
/// output.persist()?;
/// assert_eq!(std::fs::read_to_string(&path)?, "image,score\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    /// `temporary` is renamed to `target`. `file` is locked, so that no other writer takes it for an abandoned one.
    Staged {
        file: File,
        temporary: TemporaryPath,
        target: PathBuf,
        /// Released after the rename.
        lock: Option<FileLock>,
    },
    /// A device, FIFO or descriptor.
    Stream(File),
    Stdout(io::Stdout),
}

/// The kind of target that a path names.
enum OutputTarget {
    /// A regular file, or nothing.
    File(PathBuf),
    /// A device or FIFO, which is written from its start.
    Stream(PathBuf),
    /// An open descriptor, which is appended to.
    Descriptor(PathBuf),
    Stdout,
}

impl OutputFile {
    /// Opens `path` for writing.
    ///
    /// # Errors
    /// [`Error::Io`] if the path cannot be written, for example because it is a folder.
    pub fn create(path: &Path) -> Result<Self> {
        remove_abandoned_files(path);
        Self::create_among_many(path)
    }

    /// As [`create`](Self::create), but does not list the folder to find what killed writers of `path` left, for many files
    /// in one folder.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_among_many(path: &Path) -> Result<Self> {
        let open = || OutputTarget::find(path)?.open();
        let sink = open().map_err(|source| write_error(path, source))?;
        Ok(Self { path: path.to_owned(), sink })
    }

    /// Opens `path` for a writer that goes back in the file. Nothing but a regular file is opened, so a FIFO without a reader
    /// is not waited for.
    ///
    /// # Errors
    /// [`Error::NotSeekable`] if `path` is not a regular file (or absent); otherwise as [`create`](Self::create).
    pub fn create_seekable(path: &Path) -> Result<Self> {
        seekable_target(path)?;
        Self::create(path)
    }

    /// Keeps other processes from writing the same file until this is persisted or dropped, for outputs that take long. A
    /// device, a FIFO and standard output have no lock.
    ///
    /// # Errors
    /// [`Error::Held`] if another process is writing it; [`Error::Io`] if the lock file cannot be written.
    pub fn exclusive(mut self) -> Result<Self> {
        if let Sink::Staged { target, lock, .. } = &mut self.sink {
            *lock = Some(FileLock::try_acquire(target)?);
        }
        Ok(self)
    }

    /// The temporary file, if the target is a regular file. A device, a FIFO and standard output have none, and cannot go
    /// back.
    pub fn regular_file(&self) -> Option<&File> {
        match &self.sink {
            Sink::Staged { file, .. } => Some(file),
            Sink::Stream(_) | Sink::Stdout(_) => None,
        }
    }

    /// Completes the output: syncs the temporary file to the disk and renames it to the target.
    ///
    /// # Errors
    /// [`Error::Io`]; the target is unchanged then.
    pub fn persist(self) -> Result<()> {
        let Self { path, sink } = self;
        sink.persist(persist).map_err(|source| write_error(&path, source))
    }

    /// As [`persist`](Self::persist), but does not sync, for many files that are synced together afterwards.
    ///
    /// # Errors
    /// As [`persist`](Self::persist).
    pub fn persist_unsynced(self) -> Result<()> {
        let Self { path, sink } = self;
        sink.persist(|temporary, target| fs_err::rename(temporary, target)).map_err(|source| write_error(&path, source))
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Staged { file, .. } | Sink::Stream(file) => file.write(bytes),
            Sink::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Staged { file, .. } | Sink::Stream(file) => file.flush(),
            Sink::Stdout(stdout) => stdout.flush(),
        }
    }
}

/// Fails for everything but a regular file; see [`OutputFile::create_seekable`].
impl Seek for OutputFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        match &mut self.sink {
            Sink::Staged { file, .. } => file.seek(position),
            Sink::Stream(_) | Sink::Stdout(_) => Err(Error::NotSeekable { path: self.path.clone() }.into()),
        }
    }
}

impl OutputTarget {
    fn find(path: &Path) -> io::Result<Self> {
        // `Path` drops the slash, and the rename would fail at the end of the work.
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is the name of a folder"));
        }
        let mut target = path.to_owned();
        for _ in 0..MAX_LINKS {
            // Descriptors before links: on Linux they are links to the file that the shell opened, which is not ours to
            // replace.
            if is_stdout_name(&target) {
                return Ok(Self::Stdout);
            }
            if is_descriptor(&target) {
                return Ok(Self::Descriptor(target));
            }
            let kind = match fs_err::symlink_metadata(&target) {
                Ok(metadata) => metadata.file_type(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::File(target)),
                Err(error) => return Err(error),
            };
            if kind.is_symlink() {
                target = read_link(&target)?;
            } else if kind.is_file() {
                return Ok(Self::File(target));
            } else if kind.is_dir() {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
            } else {
                return Ok(Self::Stream(target));
            }
        }
        Err(too_many_links())
    }

    fn open(self) -> io::Result<Sink> {
        match self {
            Self::File(target) => Sink::stage(target),
            Self::Stream(path) => OpenOptions::new().write(true).open(&path).map(Sink::Stream),
            Self::Descriptor(path) => OpenOptions::new().append(true).open(&path).map(Sink::Stream),
            Self::Stdout => Ok(Sink::Stdout(io::stdout())),
        }
    }
}

impl Sink {
    fn stage(target: PathBuf) -> io::Result<Self> {
        let Some(name) = target.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name"));
        };
        let prefix = temporary_prefix(name);
        loop {
            let mut temporary = prefix.clone();
            temporary.push(format!("{}-{}.part", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            match TemporaryPath::create(target.with_file_name(temporary)) {
                // Another writer may have removed the file before it was locked.
                Ok((file, temporary)) if lock(&file) && is_same(&file, temporary.path())? => {
                    return Ok(Self::Staged { file, temporary, target, lock: None });
                }
                Ok(_) => {}
                // Left by a killed process that had the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn persist(self, rename: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
        match self {
            // `file` stays locked until the rename.
            Self::Staged { file: _file, temporary, target, lock: _lock } => rename(temporary.path(), &target),
            Self::Stream(mut file) => file.flush(),
            Self::Stdout(mut stdout) => stdout.flush(),
        }
    }
}

/// Whether `name` is that of a temporary file of an [`OutputFile`], which a process that was killed leaves behind.
pub fn is_temporary_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
    stem.and_then(|stem| stem.rsplit_once('.')).is_some_and(|(_, number)| is_temporary_number(number))
}

/// Whether `number` is the process id and the count of a temporary file.
fn is_temporary_number(number: &str) -> bool {
    number.split_once('-').is_some_and(|(pid, count)| pid.parse::<u32>().is_ok() && count.parse::<u32>().is_ok())
}

/// Removes the temporary files of outputs at `path` whose writers were killed. [`OutputFile::create`] does it too.
pub fn remove_abandoned_files(path: &Path) {
    let Some(name) = path.file_name() else { return };
    let prefix = temporary_prefix(name);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let number = number.and_then(|number| str::from_utf8(number.strip_suffix(b".part")?).ok());
        if number.is_some_and(is_temporary_number) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else { continue };
            // Removed while it is locked, so that its writer cannot lock it before.
            if file.file().try_lock().is_ok() {
                // What cannot be removed does not affect the new output.
                let _ = fs_err::remove_file(entry.path());
            }
        }
    }
}

/// Prefix of the temporary files of an output with the file name `name`.
fn temporary_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    if name.len() <= MAX_REPEATED_NAME {
        prefix.push(name);
    }
    prefix.push(".");
    prefix
}

/// Locks `file`; false if another process holds the lock. On a file system without locks, no writer removes the files of
/// others.
fn lock(file: &File) -> bool {
    !matches!(file.file().try_lock(), Err(TryLockError::WouldBlock))
}

/// The regular file that is written for the output `path`, which need not exist: `path`, or the end of its links. For
/// writers that keep a partial file beside it, and then [`persist`] that file. Nothing is opened.
///
/// # Errors
/// [`Error::NotSeekable`] if `path` is a device, a FIFO, an open descriptor or standard output; [`Error::Io`] if it is a
/// folder or a circle of links.
pub fn seekable_target(path: &Path) -> Result<PathBuf> {
    match OutputTarget::find(path).map_err(|source| write_error(path, source))? {
        OutputTarget::File(target) => Ok(target),
        OutputTarget::Stream(_) | OutputTarget::Descriptor(_) | OutputTarget::Stdout => {
            Err(Error::NotSeekable { path: path.to_owned() })
        }
    }
}

/// The folder that is written for the output `path`, which need not exist: `path`, or the end of its links.
///
/// # Errors
/// A circle of links, and what the operating system refuses.
pub fn folder_target(path: &Path) -> io::Result<PathBuf> {
    // The components are without a slash at the end, which would follow the last link.
    let mut target: PathBuf = path.components().collect();
    for _ in 0..MAX_LINKS {
        match fs_err::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_symlink() => target = read_link(&target)?,
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(error);
            }
            _ => return Ok(target),
        }
    }
    Err(too_many_links())
}

/// The path that the symbolic link `path` names.
fn read_link(path: &Path) -> io::Result<PathBuf> {
    let link = fs_err::read_link(path)?;
    // `join` keeps `link` alone if it is absolute.
    Ok(path.parent().map_or_else(|| link.clone(), |folder| folder.join(&link)))
}

fn too_many_links() -> io::Error {
    io::Error::other(format!("more than {MAX_LINKS} symbolic links"))
}

/// Whether an [`OutputFile`] at `path` is standard output, by its name or by a link, so that nothing else can be printed to
/// it.
pub fn is_stdout(path: &Path) -> bool {
    matches!(OutputTarget::find(path), Ok(OutputTarget::Stdout))
}

fn is_stdout_name(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].into_iter().any(|stdout| path == Path::new(stdout))
}

/// Whether `path` names an open descriptor of a process.
pub(crate) fn is_descriptor(path: &Path) -> bool {
    path == Path::new("/dev/stderr")
        || path.parent().is_some_and(|folder| {
            folder == Path::new("/dev/fd") || (folder.starts_with("/proc") && folder.ends_with("fd"))
        })
}

fn write_error(path: &Path, source: io::Error) -> Error {
    Error::Io(IoError::new("write", path, source))
}

/// Writes `path` with `write` as an [`OutputFile`], which is persisted if `write` succeeds and discarded if it fails.
///
/// ```
/// use std::io::Write;
///
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("report.md");
/// laps_files::write_output(&path, |output| writeln!(output, "# Report"))?;
/// assert_eq!(std::fs::read_to_string(&path)?, "# Report\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_output<T, E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&mut OutputFile) -> Result<T, E>,
) -> Result<T, E> {
    let mut output = OutputFile::create(path)?;
    let value = write(&mut output)?;
    output.persist()?;
    Ok(value)
}

/// Writes `bytes` to `path` as [`write_output`] does.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_output(path, |output| output.write_all(bytes))
}

/// Renames the complete file `part` to `path`. The contents are synced to the disk before the rename and the folder after
/// it, so `path` never names an incomplete file, even after a loss of power.
pub fn persist(part: &Path, path: &Path) -> io::Result<()> {
    File::open(part)?.sync_all()?;
    fs_err::rename(part, path)?;
    sync_folder(path)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// Folders cannot be opened as files on other systems.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// `path` with `suffix` appended to its file name.
///
/// ```
/// # use std::path::Path;
/// assert_eq!(laps_files::with_suffix(Path::new("a/model.pth"), ".partial"), Path::new("a/model.pth.partial"));
/// ```
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn temporary_names_are_recognised() {
        for (name, expected) in [
            (".entry.yaml.28807-0.part", true),
            ("..28807-12.part", true),
            ("entry.yaml.28807-0.part", false),
            (".entry.part", false),
            (".entry.yaml", false),
        ] {
            assert_eq!(super::is_temporary_name(name.as_ref()), expected, "{name}");
        }
    }

    use std::{
        io::{self, Seek, Write},
        path::Path,
    };

    use super::{OutputFile, replace, write_output};
    use crate::Error;

    /// The names in `folder`.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs_err::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn absent_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let mut output = OutputFile::create(&path).unwrap();
        output.write_all(b"one").unwrap();
        assert!(!path.exists());
        output.persist().unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"one");
        assert_eq!(names(folder.path()), ["new"]);
    }

    #[test]
    fn existing_file_is_replaced_when_the_output_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        fs_err::write(&path, "a long old content").unwrap();
        let mut output = OutputFile::create(&path).unwrap();
        output.write_all(b"new").unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"a long old content");
        output.persist().unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"new");
    }

    #[test]
    fn failed_writer_leaves_the_target_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        fs_err::write(&path, "kept").unwrap();
        let result: io::Result<()> = write_output(&path, |output| {
            output.write_all(b"lost")?;
            Err(io::Error::other("full"))
        });
        assert_eq!(result.unwrap_err().to_string(), "full");
        assert_eq!(fs_err::read(&path).unwrap(), b"kept");
        assert_eq!(names(folder.path()), ["kept"]);
    }

    #[test]
    fn two_outputs_of_one_path_do_not_share_a_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shared");
        let [mut first, mut second] = [(); 2].map(|()| OutputFile::create(&path).unwrap());
        first.write_all(b"first").unwrap();
        second.write_all(b"second").unwrap();
        second.persist().unwrap();
        first.persist().unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"first");
        assert_eq!(names(folder.path()), ["shared"]);
    }

    #[test]
    fn writer_removes_the_temporary_files_of_killed_writers_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let live = OutputFile::create(&path).unwrap();
        let other = [".model.json.7-0.part", ".model.part", "model.7-0.part"];
        for name in other.into_iter().chain([".model.7-0.part", ".model.7-12.part"]) {
            fs_err::write(folder.path().join(name), "left").unwrap();
        }
        replace(&path, b"x").unwrap();
        live.persist().unwrap();
        assert_eq!(names(folder.path()), [".model.json.7-0.part", ".model.part", "model", "model.7-0.part"]);
    }

    #[test]
    fn longest_file_name_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        replace(&path, b"x").unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"x");
    }

    #[test]
    fn folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = OutputFile::create(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write `{}`", folder.path().display()));
        assert!(OutputFile::create(&folder.path().join("absent/file")).is_err());
    }

    #[test]
    fn seekable_output_supports_seek() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut output = OutputFile::create_seekable(&path).unwrap();
        output.write_all(b"??body").unwrap();
        output.rewind().unwrap();
        output.write_all(b"my").unwrap();
        output.persist().unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"mybody");
    }

    #[test]
    fn standard_output_is_not_seekable() {
        for name in ["-", "/dev/stdout", "/dev/fd/1"] {
            let error = OutputFile::create_seekable(Path::new(name)).unwrap_err();
            assert!(matches!(&error, Error::NotSeekable { path } if path == Path::new(name)), "{error}");
            assert!(OutputFile::create(Path::new(name)).unwrap().rewind().is_err());
        }
    }

    #[cfg(unix)]
    mod unix {
        use std::{
            fs::Permissions,
            io::{Read, Write},
            os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
            path::Path,
            process::Command,
            thread,
        };

        use super::names;
        use crate::{Error, OutputFile, folder_target, is_stdout, replace, seekable_target};

        #[test]
        fn mode_follows_the_umask() {
            let folder = tempfile::tempdir().unwrap();
            let [plain, output] = ["plain", "output"].map(|name| folder.path().join(name));
            fs_err::write(&plain, "").unwrap();
            fs_err::write(&output, "").unwrap();
            fs_err::set_permissions(&output, Permissions::from_mode(0o600)).unwrap();
            replace(&output, b"x").unwrap();
            let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&output), mode(&plain));
        }

        #[test]
        fn link_stays_and_its_target_is_replaced() {
            let folder = tempfile::tempdir().unwrap();
            let real = folder.path().join("real");
            fs_err::create_dir(&real).unwrap();
            fs_err::write(real.join("file"), "old").unwrap();
            symlink("real/file", folder.path().join("inner")).unwrap();
            let link = folder.path().join("link");
            symlink(folder.path().join("inner"), &link).unwrap();
            replace(&link, b"new").unwrap();
            assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(fs_err::read(real.join("file")).unwrap(), b"new");
            assert_eq!(names(&real), ["file"]);
        }

        #[test]
        fn target_of_a_dangling_link_is_created() {
            let folder = tempfile::tempdir().unwrap();
            let link = folder.path().join("link");
            symlink("absent", &link).unwrap();
            assert_eq!(seekable_target(&link).unwrap(), folder.path().join("absent"));
            replace(&link, b"new").unwrap();
            assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(fs_err::read(folder.path().join("absent")).unwrap(), b"new");
        }

        #[test]
        fn links_to_folders_are_followed() {
            let root = tempfile::tempdir().unwrap();
            let [first, second, folder] = ["first", "second", "folder"].map(|name| root.path().join(name));
            symlink("second", &first).unwrap();
            symlink(&folder, &second).unwrap();
            assert_eq!(folder_target(&first).unwrap(), folder);
            fs_err::create_dir(&folder).unwrap();
            for path in [first.clone(), first.join(""), folder.clone()] {
                assert_eq!(folder_target(&path).unwrap(), folder);
            }
        }

        #[test]
        fn circle_of_links_is_an_error() {
            let folder = tempfile::tempdir().unwrap();
            let link = folder.path().join("link");
            symlink("link", &link).unwrap();
            assert!(folder_target(&link).unwrap_err().to_string().contains("symbolic links"));
            assert!(replace(&link, b"x").unwrap_err().to_string().contains("symbolic links"));
        }

        #[test]
        fn device_is_written_into() {
            replace(Path::new("/dev/null"), b"x").unwrap();
            assert!(fs_err::metadata("/dev/null").unwrap().file_type().is_char_device());
            assert!(matches!(OutputFile::create_seekable(Path::new("/dev/null")), Err(Error::NotSeekable { .. })));
            assert!(matches!(seekable_target(Path::new("/dev/null")), Err(Error::NotSeekable { .. })));
        }

        #[test]
        fn link_to_standard_output_is_standard_output() {
            let folder = tempfile::tempdir().unwrap();
            let link = folder.path().join("result.json");
            symlink("/dev/stdout", &link).unwrap();
            assert!(is_stdout(&link) && is_stdout(Path::new("-")));
            assert!(!is_stdout(Path::new("/dev/null")) && !is_stdout(&folder.path().join("absent")));
        }

        #[test]
        fn link_to_a_device_is_written_into() {
            let folder = tempfile::tempdir().unwrap();
            let link = folder.path().join("null");
            symlink("/dev/null", &link).unwrap();
            replace(&link, b"x").unwrap();
            assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
        }

        #[test]
        fn fifo_is_written_into() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("fifo");
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            // Without waiting for a reader.
            assert!(matches!(OutputFile::create_seekable(&path), Err(Error::NotSeekable { .. })));
            let reader = thread::spawn({
                let path = path.clone();
                move || fs_err::read(path).unwrap()
            });
            replace(&path, b"through the pipe").unwrap();
            assert_eq!(reader.join().unwrap(), b"through the pipe");
            assert!(fs_err::symlink_metadata(&path).unwrap().file_type().is_fifo());
        }

        #[test]
        fn descriptor_is_written_into() {
            use std::os::fd::AsRawFd;
            let (mut reader, writer) = std::io::pipe().unwrap();
            let path = format!("/dev/fd/{}", writer.as_raw_fd());
            if !Path::new(&path).exists() {
                return println!("skipped: there is no `{path}`");
            }
            let mut output = OutputFile::create(Path::new(&path)).unwrap();
            output.write_all(b"into the pipe").unwrap();
            output.persist().unwrap();
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "into the pipe");
        }

        #[test]
        fn name_of_a_folder_is_rejected_before_the_work() {
            let folder = tempfile::tempdir().unwrap();
            let path = format!("{}/new/", folder.path().display());
            let error = OutputFile::create(Path::new(&path)).unwrap_err();
            assert!(error.to_string().contains("cannot write"), "{error}");
            assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
        }

        /// The shell opened the file: its other contents stay, and its name is not taken from it.
        #[test]
        fn descriptor_of_a_file_is_appended_to() {
            use std::os::{fd::AsRawFd, unix::fs::MetadataExt};
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("file");
            let mut held = fs_err::File::create(&file).unwrap();
            held.write_all(b"before ").unwrap();
            let path = format!("/dev/fd/{}", held.file().as_raw_fd());
            if !Path::new(&path).exists() {
                return println!("skipped: there is no `{path}`");
            }
            replace(Path::new(&path), b"after").unwrap();
            assert_eq!(fs_err::read(&file).unwrap(), b"before after");
            assert_eq!(fs_err::metadata(&file).unwrap().ino(), held.metadata().unwrap().ino());
        }
    }
}
