//! The shim over libtorch's process groups, and link arguments that tch's own build script cannot hand to dependants.
//!
//! The run path lets the executables find libtorch from any working directory:
//!
//! - `../lib` of the program, and the `torch` package of the Python environment that the program is installed in;
//! - the libtorch of the build, unless `LAPS_ZOO_RELOCATABLE` is set: programs for other machines name no path of this one.
//!
//! Nothing refers to the registration code in `libtorch_cuda.so` by name, so the linker must be told to keep it. A
//! relocatable program depends on `libtorch.so` instead, which in a CUDA build of libtorch depends on `libtorch_cuda.so`,
//! so that it runs with either. The driver's `libcuda.so.1` need not exist on the machine that links.
use std::{env, path::Path, process::Command};

/// Files of the shim.
const SHIM: &str = "shim";
/// Versions 3.N of Python that torch 2.13 has wheels for. A run path has no patterns.
const PYTHON_MINORS: std::ops::RangeInclusive<u32> = 10..=14;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LAPS_ZOO_RELOCATABLE");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    for minor in PYTHON_MINORS {
        // The second one is Debian's.
        for packages in ["site-packages", "dist-packages"] {
            println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/python3.{minor}/{packages}/torch/lib");
        }
    }
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
    let cuda = lib.join("libtorch_cuda.so").exists();
    build_shim(Path::new(&root), cuda);
    if env::var_os("LAPS_ZOO_RELOCATABLE").is_some() {
        if let Err(reason) = link_libtorch_by_name() {
            println!("cargo::error={reason}");
        }
        return;
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if cuda {
        println!("cargo:rustc-link-arg=-L{}", lib.display());
        println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined,--no-as-needed,-ltorch_cuda,--as-needed");
    }
}

/// Makes the program depend on the name `libtorch.so`. The file of that name in a libtorch without CUDA is a link to
/// `libtorch_cpu.so` and has that name inside, so an empty library with the right one is linked.
fn link_libtorch_by_name() -> Result<(), String> {
    let folder = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let library = Path::new(&folder).join("libtorch.so");
    let compiler = cc::Build::new().get_compiler();
    let mut command = Command::new(compiler.path());
    command.args(["-shared", "-nostdlib", "-Wl,-soname,libtorch.so", "-x", "c", "/dev/null", "-o"]).arg(&library);
    let status = command.status().map_err(|error| format!("cannot run `{}`: {error}", compiler.path().display()))?;
    if !status.success() {
        return Err(format!("cannot link `{}`: {status}", library.display()));
    }
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed,{},--as-needed", library.display());
    Ok(())
}

/// Compiles the shim. NCCL needs the CUDA build of libtorch and the headers of CUDA and NCCL.
fn build_shim(root: &Path, cuda: bool) {
    let include = root.join("include");
    let mut shim = cc::Build::new();
    shim.cpp(true)
        .std("c++17")
        .files(["shim.cpp", "gradients.cpp"].map(|name| Path::new(SHIM).join(name)))
        .include(Path::new(SHIM).join("stubs"))
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .include(include.join("cccl"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .define("USE_C10D_GLOO", None)
        // Most warnings would be those of libtorch's headers.
        .warnings(false);
    let nccl = cuda && include.join("nccl.h").exists() && include.join("cuda_runtime_api.h").exists();
    if nccl {
        shim.define("USE_C10D_NCCL", None);
    }
    shim.compile("laps_dist");
    if nccl {
        // The shim selects the GPU; torch-sys links the other libraries of libtorch.
        println!("cargo:rustc-link-search=native={}", root.join("lib").display());
        println!("cargo:rustc-link-lib=dylib=c10_cuda");
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
