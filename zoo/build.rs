//! The commit, and link arguments that tch's own build script can not hand to dependants.
//!
//! Every package that links libtorch into an executable (command, tests, benchmarks) has this file as its build script.
//! The run path makes the executables find libtorch from any working directory. With a CUDA build of libtorch the linker
//! must keep `libtorch_cuda.so`, whose registration code nothing refers to by name; the driver's `libcuda.so.1` need not
//! be on the machine that links.
use std::{env, path::Path, process::Command};

fn main() {
    // Only the harness records it: the others need not be compiled again after each commit.
    if env::var("CARGO_PKG_NAME").is_ok_and(|name| name == "bench") {
        commit();
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    let Some(root) = env::var_os("LIBTORCH") else { return };
    let lib = Path::new(&root).join("lib");
    if let Some(version) = version(Path::new(&root)) {
        println!("cargo:rustc-env=LAPS_ZOO_LIBTORCH_VERSION={version}");
    }
    println!("cargo:rerun-if-changed={}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-env=LAPS_ZOO_LIBTORCH_CUDA=1");
        println!("cargo:rustc-link-arg=-L{}", lib.display());
        println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined,--no-as-needed,-ltorch_cuda,--as-needed");
    }
}

/// Tells the program which commit it is built from, where git can say it.
fn commit() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return };
    println!("cargo:rustc-env=LAPS_ZOO_COMMIT={commit}");
    // The log of HEAD grows with every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).and_then(|path| std::fs::canonicalize(path).ok())
    {
        println!("cargo:rerun-if-changed={}", log.display());
    }
}

/// `2.13.0`, from the header that comes with the library.
fn version(root: &Path) -> Option<String> {
    let header = std::fs::read_to_string(root.join("include/torch/headeronly/version.h")).ok()?;
    let part = |name: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix(&format!("#define TORCH_VERSION_{name} ")))?;
        line.trim().parse::<u32>().ok()
    };
    Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}
