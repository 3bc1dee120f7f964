//! The program with libtorch, which runs requests that need it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Result;

/// File name of the program that links libtorch.
pub(crate) const NAME: &str = "laps-zoo-torch";

/// The program: beside this one, beside the file that a link to this one leads to, or on `PATH`.
pub(crate) fn find() -> Option<PathBuf> {
    let executable = env::current_exe().ok();
    let resolved = executable.as_deref().and_then(|path| fs_err::canonicalize(path).ok());
    let beside = [executable, resolved].into_iter().flatten().filter_map(|path| Some(path.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = beside.chain(env::split_paths(&path)).collect();
    find_in(&folders)
}

fn find_in(folders: &[PathBuf]) -> Option<PathBuf> {
    let name = format!("{NAME}{}", env::consts::EXE_SUFFIX);
    // An empty entry of PATH means the working directory, which is not searched.
    let folders = folders.iter().filter(|folder| !folder.as_os_str().is_empty());
    folders.map(|folder| folder.join(&name)).find(|path| is_executable(path))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

/// Replaces this process by the program with libtorch, with the same arguments. Returns only if that fails.
///
/// # Errors
/// The program is not there or cannot be started.
pub(crate) fn execute(arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let program = find().ok_or_else(missing)?;
    let mut command = Command::new(&program);
    command.args(arguments);
    start(command, &program)
}

/// The same process goes on as the other program, so signals and the exit status need no forwarding.
#[cfg(unix)]
fn start(mut command: Command, program: &Path) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    let error = command.exec();
    Err(anyhow::Error::from(error).context(format!("cannot run `{}`", program.display())))
}

#[cfg(not(unix))]
fn start(mut command: Command, program: &Path) -> Result<ExitCode> {
    use anyhow::Context;

    let status = command.status().with_context(|| format!("cannot run `{}`", program.display()))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2)))
}

fn missing() -> anyhow::Error {
    laps::Error::Engine {
        engine: "torch".to_owned(),
        reason: format!("this request needs libtorch, and the program `{NAME}` is neither beside this one nor on PATH"),
        hint: HOW_TO_GET.to_owned(),
    }
    .into()
}

/// How to get the program.
pub(crate) const HOW_TO_GET: &str = "`pip install laps-zoo[torch]` installs it, and `make build` in the repository builds it: \
                                     `target/release/laps-zoo-torch`";

#[cfg(test)]
mod tests {
    use super::{NAME, find_in};

    #[cfg(unix)]
    #[test]
    fn first_executable_file_is_found() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        for path in [&first, &second] {
            fs_err::create_dir(path).unwrap();
            fs_err::write(path.join(NAME), "").unwrap();
        }
        let folders = ["".into(), folder.path().join("absent"), first.clone(), second.clone()];
        assert_eq!(find_in(&folders), None, "files without the executable bit were taken");
        let executable = std::fs::Permissions::from_mode(0o755);
        fs_err::set_permissions(second.join(NAME), executable.clone()).unwrap();
        assert_eq!(find_in(&folders), Some(second.join(NAME)));
        fs_err::set_permissions(first.join(NAME), executable).unwrap();
        assert_eq!(find_in(&folders), Some(first.join(NAME)));
    }
}
