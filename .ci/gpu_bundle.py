#!/usr/bin/env python3
"""Packs what `bench/gpu.sh` needs on a machine with a GPU and no network, in parts of at most 60 MiB, into `dist/gpu/`.

    .ci/gpu_bundle.py [--cpu] [--arch 90] [--whole] [--borrow] [--profile release]

The programs, the tests that compare with golden tensors, a benchmark, the golden tensors, and the libraries that these load.
The checkpoints of the drawn entries are in the programs. A library that nothing loads is left out, and of the others the GPU
code of other architectures than `--arch` is overwritten with zeros, which compress to nothing; `--whole` keeps it. No tool
of CUDA is needed for that. `--borrow` also leaves out the libraries of CUDA itself, more than half of the bundle: the script
takes those of the wheels `nvidia-*` that PyTorch for the same version of CUDA has on the other machine.

The CUDA libraries (4 GB) and the build have a folder of their own, `target/gpu`, so that `.runtime/` and the other builds stay
as they are. `--cpu` packs the libraries and builds of `make setup`, to try the script without a GPU. `--profile`
is that of the programs; tests are not optimised.
"""

import argparse
import gzip
import hashlib
import json
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist" / "gpu"
NAME = "laps-zoo-gpu"
PART_BYTES = 60 << 20

# Tests that compare with golden tensors or the definition on the device of LAPS_ZOO_TEST_DEVICE, by package.
TESTS = {
    "laps-torch": ["golden", "operations", "torch_similarity", "training", "heads", "clip", "collective"],
    "laps-onnx": ["agreement"],
}
# Libraries that are opened by name instead of being needed by the one that uses them.
OPENED = ["libcudnn*.so.*", "libnvrtc-builtins.so.*", "libcaffe2_nvrtc.so", "libonnxruntime.so", "libonnxruntime_providers_*.so"]
# Libraries that libtorch needs and laps-zoo never calls. Their PTX, the larger part of cuFFT, is not compiled by any driver then.
UNCALLED = ("libcufft", "libcusparseLt")
# Libraries that come with libtorch and ONNX Runtime themselves; the others are CUDA's.
OWN = re.compile(r"lib(torch|c10|caffe2|gomp|onnxruntime)")
# Of the system, of the driver, or of TensorRT, which is used where it is installed.
ELSEWHERE = re.compile(
    r"(lib(c|m|dl|rt|util|pthread|stdc\+\+|gcc_s|z)|ld-linux-x86-64|libcuda|libnvinfer|libnvonnxparser)\.so\.\d+"
)

# Fat binaries in a library: a header of 16 bytes and entries, each with a header and a payload of its own.
MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, 16)
ENTRY = struct.Struct("<HHIQIIHHI")
PTX, CUBINS, LTO_IR = 1, (2, 16), 8


class BundleError(Exception):
    """What is wrong, and what to do."""


def run(*command, **variables):
    print("+", *command, file=sys.stderr)
    environment = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def entries(data, start, end):
    """The entries of a fat binary between two positions: kind, architecture and the range of the payload."""
    found = []
    while start + 64 <= end:
        kind, _, header, size, *_, architecture = ENTRY.unpack_from(data, start)
        payload = start + header
        if header < 64 or payload + size > end:
            return None
        found.append((kind, architecture, payload, payload + size))
        start = payload + size
    return found


def unused(found, architecture, keep_ptx=True):
    """The entries that a GPU of `architecture` (90 for sm_90) does not run."""
    runs = [kind in CUBINS and own // 10 == architecture // 10 and own <= architecture for kind, own, *_ in found]
    # Without machine code the driver compiles the newest PTX that is not too new.
    older = [own for kind, own, *_ in found if kind == PTX and own <= architecture]
    newest = max(older, default=None) if keep_ptx and not any(runs) else None
    known = (PTX, *CUBINS, LTO_IR)
    kept = [is_run or entry[0] not in known or entry[:2] == (PTX, newest) for entry, is_run in zip(found, runs)]
    return [entry for entry, is_kept in zip(found, kept) if not is_kept]


def trim(data, architecture, keep_ptx=True):
    """Overwrites the GPU code of other architectures in the bytes of a library; returns its size in bytes."""
    position = trimmed = 0
    while (position := data.find(MAGIC, position)) >= 0:
        start = position + 16
        end = start + struct.unpack_from("<Q", data, position + 8)[0]
        found = entries(data, start, end) if end <= len(data) else None
        if found is None:
            # The same bytes by chance.
            position += 1
            continue
        for *_, first, last in unused(found, architecture, keep_ptx):
            data[first:last] = bytes(last - first)
            trimmed += last - first
        position = end
    return trimmed


def trim_file(path, architecture):
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        return trim(data, architecture, keep_ptx=not path.name.startswith(UNCALLED))


def needed(path):
    """The names of the libraries that a file needs."""
    text = subprocess.run(["readelf", "--dynamic", "--wide", path], check=True, capture_output=True, text=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def closure(programs, folders, needed=needed):
    """The libraries of `folders` that the programs load, by the name by which they are loaded."""
    libraries = {}
    waiting = list(programs)
    for folder in folders:
        for path in [path for pattern in OPENED for path in sorted(folder.glob(pattern))]:
            # The version of ONNX Runtime is in the name of the file that `libonnxruntime.so` leads to.
            waiting.append(libraries.setdefault(path.resolve().name, path))
    while waiting:
        user = waiting.pop()
        for name in needed(user):
            if name in libraries or ELSEWHERE.fullmatch(name):
                continue
            path = next((folder / name for folder in folders if (folder / name).exists()), None)
            if path is None:
                raise BundleError(f"`{name}`, which `{user}` needs, is in none of {', '.join(map(str, folders))}")
            libraries[name] = path
            waiting.append(path)
    return libraries


class Parts:
    """A file that is written in parts, with their checksums."""

    def __init__(self, folder, stem, size):
        self.folder, self.stem, self.size = folder, stem, size
        self.file, self.hash, self.left = None, None, 0
        self.checksums = []

    def write(self, data):
        written = memoryview(data)
        while len(written) > 0:
            if self.left == 0:
                self.close()
                self.file = (self.folder / f"{self.stem}.{len(self.checksums):03}").open("wb")
                self.hash, self.left = hashlib.sha256(), self.size
            block = written[: self.left]
            self.file.write(block)
            self.hash.update(block)
            self.left -= len(block)
            written = written[len(block) :]
        return len(data)

    def flush(self):
        pass

    def close(self):
        if self.file:
            self.file.close()
            self.checksums.append((self.hash.hexdigest(), Path(self.file.name).name))
            self.file = None


UNPACK = f"""#!/bin/sh
# Checks the parts beside this file and unpacks them: unpack.sh [FOLDER]      FOLDER: default here; makes FOLDER/{NAME}
set -eu
folder=${{1:-$(dirname "$0")}}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")"
sha256sum --check --quiet SHA256SUMS
cat {NAME}.tar.gz.[0-9]* | tar --extract --gzip --directory "$folder"
"""


def pack(stage, folder, size=PART_BYTES):
    """Packs the folder `stage` into parts, with `SHA256SUMS` and `unpack.sh`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = Parts(folder, f"{NAME}.tar.gz", size)

    def plain(member):
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with gzip.GzipFile(fileobj=parts, mode="wb", compresslevel=6, mtime=0) as stream:
        with tarfile.open(fileobj=stream, mode="w|", dereference=True) as archive:
            archive.add(stage, NAME, recursive=False, filter=plain)
            for path in sorted(stage.rglob("*")):
                archive.add(path, f"{NAME}/{path.relative_to(stage)}", recursive=False, filter=plain)
    parts.close()
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for digest, name in parts.checksums))
    unpack = folder / "unpack.sh"
    unpack.write_text(UNPACK)
    unpack.chmod(0o755)
    if (stage / "gpu.sh").exists():
        shutil.copy2(stage / "gpu.sh", folder)
    return len(parts.checksums)


def libraries(cpu):
    """Installs the native libraries; returns their folder, that of the build, and the variables of the build."""
    if cpu:
        run(sys.executable, ".ci/setup.py", CUDA=None)
        return ROOT / ".runtime", Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")), {}
    target = ROOT / "target" / "gpu"
    runtime = target / "runtime"
    arguments = [".ci/setup.py", "--into", str(runtime), "libtorch", "onnxruntime"]
    run(sys.executable, ".ci/setup.py", "cmake")
    run(sys.executable, *arguments, CUDA="1", LIBTORCH=None, ORT_DYLIB_PATH=None)
    # The run path of relocatable programs names no folder of this machine.
    variables = {"LIBTORCH": str(runtime / "libtorch"), "LAPS_ZOO_RELOCATABLE": "1", "CARGO_PROFILE_DEV_DEBUG": "0"}
    return runtime, target, {**variables, "CARGO_TARGET_DIR": str(target)}


def build(profile, variables):
    """Builds the programs, the tests and the benchmark; returns their names in the bundle and their files."""
    # Unoptimised, with the selection of the tests, so that what those have compiled is used.
    packages = ["--workspace"] if profile == "dev" else ["--package", "laps-zoo", "--package", "laps-torch"]
    programs = ["--bin", "laps-zoo", "--bin", "laps-zoo-torch", "--bench", "training"]
    found = {}
    for artifact in artifacts("build", "--profile", profile, *packages, *programs, **variables):
        name = artifact["target"]["name"]
        if "bin" in artifact["target"]["kind"]:
            found[name] = Path(artifact["executable"])
        elif "bench" in artifact["target"]["kind"]:
            found[f"bench-{name}"] = Path(artifact["executable"])
    for package, names in TESTS.items():
        selected = [argument for name in names for argument in ("--test", name)]
        for artifact in artifacts("test", "--no-run", "--workspace", *selected, **variables):
            name = artifact["target"]["name"]
            if "test" in artifact["target"]["kind"] and is_of(artifact, package) and name in names:
                found[f"test-{package.removeprefix('laps-')}-{name}"] = Path(artifact["executable"])
    expected = {"laps-zoo", "laps-zoo-torch", "bench-training"}
    expected |= {f"test-{package.removeprefix('laps-')}-{name}" for package, names in TESTS.items() for name in names}
    if missing := expected - set(found):
        raise BundleError(f"cargo did not build {', '.join(sorted(missing))}")
    return found


def artifacts(command, *arguments, **variables):
    """The executables that a command of cargo builds, from its messages."""
    text = run("cargo", command, "--locked", "--message-format=json-render-diagnostics", *arguments, **variables)
    messages = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [message for message in messages if message.get("executable")]


def is_of(artifact, package):
    manifest = Path(artifact["manifest_path"]).read_text()
    return re.search(rf'^name = "{re.escape(package)}"$', manifest, re.MULTILINE) is not None


def stage_files(stage, programs, runtime, architecture, borrow=False):
    """Fills the folder `stage`. GPU code of other architectures is removed unless `architecture` is None."""
    shutil.rmtree(stage, ignore_errors=True)
    for folder in ["bin", "lib", "tests"]:
        (stage / folder).mkdir(parents=True)
    for name, path in programs.items():
        run("strip", "--strip-all", "-o", str(stage / "bin" / name), str(path))
    shutil.copytree(ROOT / "tests" / "golden", stage / "tests" / "golden")
    for script in ["gpu.sh", "python_baseline.py"]:
        shutil.copy2(ROOT / "bench" / script, stage / script)
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"]:
        shutil.copy2(ROOT / licence, stage / licence)
    loaded = closure(programs.values(), [runtime / "libtorch" / "lib", runtime / "onnxruntime"])
    if borrow:
        borrowed = [name for name in sorted(loaded) if not OWN.match(name)]
        (stage / "borrowed").write_text("".join(f"{name}\n" for name in borrowed))
        loaded = {name: path for name, path in loaded.items() if name not in borrowed}
    total = trimmed = 0
    for name, path in sorted(loaded.items()):
        copied = stage / "lib" / name
        shutil.copyfile(path, copied)
        copied.chmod(0o755)
        total += copied.stat().st_size
        if architecture is not None:
            trimmed += trim_file(copied, architecture)
    print(f"{len(loaded)} libraries, {total / 1e6:.0f} MB, of which GPU code of other architectures: {trimmed / 1e6:.0f} MB")


def main():
    parser = argparse.ArgumentParser(description="Packs what bench/gpu.sh needs into dist/gpu/.")
    parser.add_argument("--cpu", action="store_true", help="libraries without CUDA, to try the script")
    parser.add_argument("--arch", type=int, default=90, help="architecture of the GPU: 90 for sm_90")
    parser.add_argument("--whole", action="store_true", help="keep the GPU code of all architectures")
    parser.add_argument("--borrow", action="store_true", help="leave out the libraries of CUDA")
    parser.add_argument("--profile", default="release", help="profile of the programs")
    arguments = parser.parse_args()
    runtime, target, variables = libraries(arguments.cpu)
    programs = build(arguments.profile, variables)
    stage = target / "gpu-bundle"
    architecture = None if arguments.cpu or arguments.whole else arguments.arch
    stage_files(stage, programs, runtime, architecture, arguments.borrow)
    count = pack(stage, DIST)
    shutil.rmtree(stage)
    size = sum(path.stat().st_size for path in DIST.iterdir())
    print(f"{DIST.relative_to(ROOT)}: {count} parts, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    try:
        main()
    except BundleError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: `{error.cmd[0]}` failed with exit code {error.returncode}")
