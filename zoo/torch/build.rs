//! The shim over libtorch's process groups, and link arguments that tch's own build script cannot hand to dependants.
//!
//! The run path lets the executables find libtorch from any working directory. With a CUDA build of libtorch the linker
//! must keep `libtorch_cuda.so`, because nothing refers to its registration code by name. The driver's `libcuda.so.1`
//! need not exist on the machine that links.
use std::{env, path::Path};

/// Files of the shim.
const SHIM: &str = "shim";

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    println!("cargo:rerun-if-changed={SHIM}");
    let Some(root) = env::var_os("LIBTORCH") else {
        println!("cargo::error=LIBTORCH is not set; expected: the folder of libtorch, which `make setup` creates");
        return;
    };
    let lib = Path::new(&root).join("lib");
    if let Some(version) = version(Path::new(&root)) {
        println!("cargo:rustc-env=LAPS_ZOO_LIBTORCH_VERSION={version}");
    }
    println!("cargo:rerun-if-changed={}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    let cuda = lib.join("libtorch_cuda.so").exists();
    build_shim(Path::new(&root), cuda);
    if cuda {
        println!("cargo:rustc-env=LAPS_ZOO_LIBTORCH_CUDA=1");
        println!("cargo:rustc-link-arg=-L{}", lib.display());
        println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined,--no-as-needed,-ltorch_cuda,--as-needed");
    }
}

/// Compiles the shim. NCCL needs the CUDA build of libtorch and the headers of CUDA and NCCL.
fn build_shim(root: &Path, cuda: bool) {
    let include = root.join("include");
    let mut shim = cc::Build::new();
    shim.cpp(true)
        .std("c++17")
        .file(Path::new(SHIM).join("shim.cpp"))
        .include(Path::new(SHIM).join("stubs"))
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .include(include.join("cccl"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .define("USE_C10D_GLOO", None)
        // Most warnings would be those of libtorch's headers.
        .warnings(false);
    if cuda && include.join("nccl.h").exists() && include.join("cuda_runtime_api.h").exists() {
        shim.define("USE_C10D_NCCL", None);
    }
    shim.compile("laps_dist");
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
