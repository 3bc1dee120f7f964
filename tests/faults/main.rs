//! Seeded faults in every command that writes: nothing is lost, and nothing wrong is left.
//!
//! A library in C, loaded with `LD_PRELOAD`, makes one file operation of the command fail: the process is killed before it
//! or halfway, it fails with EIO, the disk is full from it on, it writes less than asked, or a signal interrupts it. The
//! operation is chosen at random from a seed. Other faults are real ones: a small tmpfs, and a folder without rights. After
//! each fault,
//! - the output is absent, the old one, or the complete new one;
//! - a run without fault succeeds and gives the same bytes as one that never failed.
//!
//! `LAPS_ZOO_TEST_FAULTS=1000` is the number of faults, 30 by default.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use laps_data::scenes::{self, DrawnConfig, DrawnSplit};
use laps_model::{
    params::{Init, Parameter},
    params_init,
    random::SplitMix64,
};
use tempfile::TempDir;

#[path = "../../zoo/hub/tests/fetch/server.rs"]
#[allow(dead_code, reason = "the tests of fetching use the rest")]
mod server;
#[path = "../../zoo/hub/tests/checkpoint/writer.rs"]
#[allow(dead_code, reason = "the tests of the reader use the rest")]
mod writer;

use server::{Reply, TestServer};

const PROGRAM: &str = env!("CARGO_BIN_EXE_laps-zoo");
const SWIN: &str = "swin-base-patch4-window7-224";
const SEED: u64 = 7;
/// A command that writes below one folder.
struct Case {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The folder it writes to.
    folder: PathBuf,
    /// The outputs, relative to the folder. Their bytes are a function of the inputs.
    outputs: Vec<&'static str>,
    /// Content of the outputs before the command in half of the cases: what is replaced, or an index that is updated.
    old: Option<Vec<u8>>,
    /// Share of all faults.
    weight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FaultKind {
    /// Killed before the operation.
    Kill,
    /// Killed after half of a write.
    Cut,
    /// The operation fails with EIO.
    Eio,
    /// This and all later operations fail with ENOSPC.
    Enospc,
    /// A write accepts half of its bytes.
    Short,
    /// A signal interrupts the write.
    Eintr,
    /// The folder is a small tmpfs. Needs root.
    Disk,
    /// A user without rights runs it in a folder that is not theirs. Needs root.
    Mode,
}

impl FaultKind {
    const ALL: [Self; 8] =
        [Self::Kill, Self::Cut, Self::Eio, Self::Enospc, Self::Short, Self::Eintr, Self::Disk, Self::Mode];

    /// The kinds that this machine allows.
    fn available(folder: &Path) -> Vec<Self> {
        let is_root = fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0);
        let disk = is_root && SmallDisk::mount(folder, 64).is_some();
        let run =
            unprivileged(Path::new(PROGRAM)).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let mode = is_root && run.is_ok_and(|status| status.success());
        for (available, what) in
            [(disk, "a small tmpfs, which needs root"), (mode, "a user without rights, which needs root")]
        {
            if !available {
                println!("skipped: {what}");
            }
        }
        let is_available = |kind: &Self| match kind {
            Self::Disk => disk,
            Self::Mode => mode,
            _ => true,
        };
        Self::ALL.into_iter().filter(is_available).collect()
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Whether a program must end as if nothing had happened: POSIX allows short and interrupted writes at any time.
    fn is_harmless(self) -> bool {
        matches!(self, Self::Short | Self::Eintr)
    }
}

/// Runs a program as a user without rights.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command
}

/// A mounted tmpfs.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, kilobytes: usize) -> Option<Self> {
        let size = format!("size={kilobytes}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned()))
    }

    fn grow(&self) {
        assert!(Command::new("mount").args(["-o", "remount,size=512m"]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

impl Case {
    fn command(&self) -> Command {
        self.arguments_of(Command::new(&self.program))
    }

    fn arguments_of(&self, mut command: Command) -> Command {
        command.args(&self.arguments).stdin(Stdio::null());
        command.env("LAPS_ZOO_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self) {
        let output = self.command().output().unwrap();
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
    }

    fn run_with(&self, library: &Path, kind: &str, at: u64, count: Option<&Path>) -> Output {
        let mut command = self.command();
        command.env("LD_PRELOAD", library).env("FAULT_FOLDER", &self.folder);
        command.env("FAULT_KIND", kind).env("FAULT_AT", at.to_string());
        command.envs(count.map(|count| ("FAULT_COUNT", count)));
        command.output().unwrap()
    }

    /// Empties the folder; with `old`, every output has the old content.
    fn reset(&self, old: bool) {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).unwrap();
        }
        fs::create_dir_all(&self.folder).unwrap();
        self.write_old(old);
    }

    fn write_old(&self, old: bool) {
        if let Some(content) = self.old.as_ref().filter(|_| old) {
            self.outputs.iter().for_each(|output| fs::write(self.folder.join(output), content).unwrap());
        }
    }

    /// Whether an output has the old content. After that of an index there may be a segment that is not finished: its first
    /// 8 bytes are 0.
    fn is_old(&self, found: &[u8]) -> bool {
        let rest = self.old.as_ref().and_then(|old| found.strip_prefix(&old[..]));
        let is_unfinished = |rest: &[u8]| self.name == "index" && rest.iter().take(8).all(|&byte| byte == 0);
        rest.is_some_and(|rest| rest.is_empty() || is_unfinished(rest))
    }

    /// Names of all files below the folder.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => names.push(path.strip_prefix(&self.folder).unwrap().display().to_string()),
                }
            }
        }
        names.sort();
        names
    }
}

/// Compiles the library, or says why the test is skipped.
fn library(folder: &Path) -> Option<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/shim.c");
    let library = folder.join("faults.so");
    let compiler = Command::new("cc").args(["-shared", "-fPIC", "-O1", source, "-ldl", "-o"]).arg(&library).output();
    match compiler {
        _ if !cfg!(target_os = "linux") => println!("skipped: LD_PRELOAD is of Linux"),
        Err(error) => println!("skipped: there is no C compiler: {error}"),
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            return Some(library);
        }
    }
    None
}

/// A downloadable checkpoint of 1 MB.
fn download() -> Arc<Vec<u8>> {
    let parameter = Parameter { name: "a".to_owned(), shape: vec![1 << 18], init: Init::Normal };
    let values = params_init::init_parameters(&[parameter], SEED).unwrap()[0].1.values().to_vec();
    Arc::new(writer::safetensors(&[("a", &[1 << 18], values)]))
}

fn cases(root: &Path, server: &TestServer) -> Vec<Case> {
    let data = root.join("data");
    let config = DrawnConfig { seed: SEED, train: 8, dev: 4, test: 6 };
    scenes::write(&data, &config, &[DrawnSplit::Train, DrawnSplit::Dev, DrawnSplit::Test]).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let folder = |name: &str| root.join(name);
    let case = |name: &'static str, outputs: &[&'static str], weight, arguments: &[&str]| Case {
        name,
        program: PROGRAM.into(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        environment: Vec::new(),
        folder: folder(name),
        outputs: outputs.to_vec(),
        old: Some(b"the old content".to_vec()),
        weight,
    };
    let output = |name: &str, file: &str| text(&folder(name).join(file));
    let checkpoint = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/vit_tiny_legacy.pth");
    let images = text(&data.join("images"));
    let of_images = |name: &'static str, file: &'static str, weight| {
        let out = output(name, file);
        let model = ["--entry", "shapes_vit", "--engine", "rust", "--threads", "1", "--quiet"];
        case(name, &[file], weight, &[&[name, &images, "--out", &out][..], &model].concat())
    };
    let first = root.join("first");
    fs::create_dir(&first).unwrap();
    for name in ["test_00000.png", "test_00002.png"] {
        fs::copy(data.join("images").join(name), first.join(name)).unwrap();
    }
    let mut cases = vec![
        case("convert", &["out.safetensors"], 6, &["convert", checkpoint, &output("convert", "out.safetensors")]),
        of_images("index", "photos.index", 4),
        of_images("embed", "photos.npy", 2),
        case(
            "reproduce",
            &["matrix.safetensors"],
            4,
            &[
                "reproduce",
                "shapes_vit",
                "--data",
                data.to_str().unwrap(),
                "--engine",
                "rust",
                "--threads",
                "1",
                "--batch-size",
                "2",
                "--quiet",
                "--sims",
                &output("reproduce", "matrix.safetensors"),
            ],
        ),
    ];
    // An index of two of the images, which the command updates.
    let index = &mut cases[1];
    index.reset(false);
    let arguments = index.arguments.clone();
    index.arguments[1] = text(&first);
    index.run();
    index.old = Some(fs::read(index.folder.join(index.outputs[0])).unwrap());
    index.arguments = arguments;
    cases.push(Case {
        environment: [
            ("LAPS_ZOO_CACHE", text(&folder("fetch"))),
            ("HF_HOME", text(&root.join("none"))),
            ("HF_ENDPOINT", server.url()),
        ]
        .to_vec(),
        // A cached file is verified and kept, so what lies there is not an old version to be replaced.
        old: None,
        ..case("fetch", &["backbones/swin-base-patch4-window7-224/model.safetensors"], 4, &["fetch", SWIN, "--quiet"])
    });
    // The program with libtorch is another package's; it is next to this one if that was built.
    let torch = Path::new(PROGRAM).with_file_name("laps-zoo-torch");
    if torch.exists() {
        let (data, out) = (text(&data), text(&folder("train")));
        let arguments = ["train", "shapes_vit", "--data", &data, "--out", &out, "--device", "cpu", "--threads", "1"];
        let recipe = ["--set=train.epochs=1", "--set=train.batch_size=8", "--set=train.save_every=2"];
        let more = ["--resume=auto", "--quiet"];
        cases.push(Case {
            program: torch,
            old: None,
            ..case("train", &["last.safetensors", "best.safetensors"], 1, &[&arguments[..], &recipe, &more].concat())
        });
    } else {
        println!("skipped: train, for laps-zoo-torch is not built");
    }
    cases
}

/// Bytes of the outputs, or None for one that is absent.
type OutputContents = BTreeMap<&'static str, Option<Vec<u8>>>;

fn contents(case: &Case) -> OutputContents {
    case.outputs.iter().map(|&output| (output, fs::read(case.folder.join(output)).ok())).collect()
}

#[test]
fn seeded_faults_keep_old_outputs() {
    let root = tempfile::tempdir().unwrap();
    let Some(library) = library(root.path()) else { return };
    let faults = std::env::var("LAPS_ZOO_TEST_FAULTS").map_or(30, |text| text.parse().expect("a number"));
    let bytes = download();
    let server = TestServer::start(move |request| match request.path.ends_with("/model.safetensors") {
        true => {
            Reply::file(request, &bytes, "\"abc\"").with("X-Repo-Commit", "86b5e0934494bd15c9632b12f734a8a67f723594")
        }
        false => Reply::new(404, "").with("X-Error-Code", "EntryNotFound"),
    });
    // For the user without rights.
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let cases = cases(root.path(), &server);
    let kinds = FaultKind::available(&root.path().join("data"));
    let references: Vec<_> =
        cases.iter().map(|case| [false, true].map(|old| FaultFreeRun::of(case, old, &library, &root))).collect();
    let turns: Vec<usize> = cases.iter().enumerate().flat_map(|(index, case)| vec![index; case.weight]).collect();
    let mut figures: BTreeMap<(&str, FaultKind), [usize; 2]> = BTreeMap::new();
    for fault in 0..faults {
        let mut random = SplitMix64::named(SEED, &format!("fault {fault}"));
        let index = match fault < cases.len() {
            true => fault,
            false => turns[random.below(turns.len())],
        };
        let case = &cases[index];
        let kind = kinds[random.below(kinds.len())];
        let old = case.old.is_some() && random.below(2) == 1;
        let FaultFreeRun { operations, outputs: wanted, names } = &references[index][usize::from(old)];
        let at = 1 + random.below(*operations) as u64;
        let about =
            format!("fault {fault}: {}, {kind:?} at operation {at} of {operations}, old output: {old}", case.name);
        case.reset(old);
        let mut disk = None;
        let output = match kind {
            FaultKind::Disk => {
                let bytes: usize = wanted.values().flatten().map(Vec::len).sum();
                let old_bytes = case.old.as_ref().map_or(0, Vec::len).next_multiple_of(4096) * case.outputs.len();
                let kilobytes = 4 + (old_bytes + random.below(bytes)) / 1024;
                disk = Some(SmallDisk::mount(&case.folder, kilobytes).expect("a mount as before"));
                case.write_old(old);
                case.command().output().unwrap()
            }
            FaultKind::Mode => {
                let output = case.arguments_of(unprivileged(&case.program)).output().unwrap();
                assert_eq!(output.status.code(), Some(2), "{about}\n{}", String::from_utf8_lossy(&output.stderr));
                output
            }
            _ => case.run_with(&library, &kind.name(), at, None),
        };
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let about = format!("{about}\n{:?}\n{message}", output.status);
        let complete = contents(case) == *wanted;
        for (name, found) in contents(case) {
            let is_old = old && found.as_ref().is_some_and(|found| case.is_old(found));
            assert!(found.is_none() && !old || is_old || found == wanted[name], "{about}\n{name} is wrong");
        }
        assert!(!output.status.success() || complete, "{about}\nit says that it succeeded");
        assert!(!kind.is_harmless() || output.status.success(), "{about}\na harmless fault");
        if matches!(kind, FaultKind::Eio | FaultKind::Enospc | FaultKind::Disk | FaultKind::Mode)
            && !output.status.success()
        {
            assert_eq!(output.status.code(), Some(2), "{about}");
            assert!(message.starts_with("error: "), "{about}");
        }
        let count = figures.entry((case.name, kind)).or_default();
        *count = [count[0] + 1, count[1] + usize::from(output.status.success())];

        disk.iter().for_each(SmallDisk::grow);
        let again = case.command().output().unwrap();
        assert!(again.status.success(), "{about}\nagain: {}", String::from_utf8_lossy(&again.stderr));
        assert!(contents(case) == *wanted, "{about}\nthe next run gives other bytes");
        // A killed process cannot remove its temporary file, whose name has its process id.
        // A resumed training run writes an event file of its own.
        let is_expected = |name: &String| names.contains(name) || name.starts_with("events.out.tfevents.");
        let left: Vec<String> = case.names().into_iter().filter(|name| !is_expected(name)).collect();
        let killed = matches!(kind, FaultKind::Kill | FaultKind::Cut);
        assert!(
            left.is_empty() || killed && left.iter().all(|name| name.ends_with(".part")),
            "{about}\nleft: {left:?}"
        );
    }
    for ((name, kind), [all, ended]) in figures {
        println!("{name}, {kind:?}: {all} faults, {ended} of them without effect on the run");
    }
}

/// A run without fault.
struct FaultFreeRun {
    operations: usize,
    outputs: OutputContents,
    /// All files below the folder afterwards.
    names: Vec<String>,
}

impl FaultFreeRun {
    fn of(case: &Case, old: bool, library: &Path, root: &TempDir) -> Self {
        case.reset(old);
        case.run();
        let outputs = contents(case);
        assert!(outputs.values().all(Option::is_some), "{}: outputs of {:?}", case.name, case.names());
        let names = case.names();
        case.reset(old);
        let count = root.path().join("count");
        let output = case.run_with(library, "count", 0, Some(&count));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(contents(case) == outputs, "{}: two runs give other bytes", case.name);
        Self { operations: fs::read_to_string(count).unwrap().parse().unwrap(), outputs, names }
    }
}
