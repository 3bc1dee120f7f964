//! Link arguments that tch's own build script cannot hand to dependants.
//!
//! The run path lets the executables find libtorch from any working directory. With a CUDA build of libtorch the linker
//! must keep `libtorch_cuda.so`, because nothing refers to its registration code by name. The driver's `libcuda.so.1`
//! need not exist on the machine that links.
use std::{env, path::Path};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
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

/// `2.13.0`, from the header that comes with the library.
fn version(root: &Path) -> Option<String> {
    let header = std::fs::read_to_string(root.join("include/torch/headeronly/version.h")).ok()?;
    let part = |name: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix(&format!("#define TORCH_VERSION_{name} ")))?;
        line.trim().parse::<u32>().ok()
    };
    Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}
