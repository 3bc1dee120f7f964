#!/usr/bin/env python3
"""Installs the native libraries that the project needs into `.runtime/`.

    .ci/setup.py [--into FOLDER] [PACKAGE...]      packages: cmake, libtorch, onnxruntime; default: all

CUDA=1 selects the GPU builds, CUDA=0 the CPU builds. Without it, an installed GPU build stays; the default is CPU.
LIBTORCH, ORT_DYLIB_PATH and CMAKE name an existing installation to use instead of the package. `--into` leaves `.runtime/`
as it is, so that a build for a GPU can have libraries of its own.

The libraries come from PyPI wheels that `.ci/wheels.txt` pins by version and hash. A package is unpacked into a
temporary folder and then renamed, together with a stamp of its pins, so an interrupted run leaves nothing half done.
"""

import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / ".runtime"
TORCH = "2.13.0"
# Increase this number when the layout below changes, so that installed packages are replaced.
LAYOUT = 1

# Members of the wheels to unpack, and their paths in the package.
MEMBERS = {
    "cmake/any": [(r"cmake/data/(bin/cmake|share/cmake-[\d.]+/.+)", r"\1")],
    "libtorch/cpu": [
        (r"torch/(include/.+)", r"\1"),
        (r"torch/(lib/(libtorch_cpu|libc10)\.so|lib/libgomp\.so\.1)", r"\1"),
        (r"nvidia/.+/(lib/(libcudart|libcupti)\.so\.13)", r"\1"),
    ],
    "libtorch/cuda": [
        (r"torch/(include/.+)", r"\1"),
        (r"torch/(lib/(?!libtorch_python|libshm)[^/]+\.so[^/]*)", r"\1"),
        (r"nvidia/.+/(lib/[^/]+\.so[^/]*)", r"\1"),
        (r"nvidia/[^/]+/(include/.+)", r"\1"),
    ],
    "onnxruntime/cpu": [(r"onnxruntime/capi/(libonnxruntime[^/]*\.so[^/]*)", r"\1")],
    "onnxruntime/cuda": [(r"onnxruntime/capi/(libonnxruntime[^/]*\.so[^/]*)", r"\1")],
}
# Disk space for the wheels, pip's temporary files and the unpacked files; the values for cuda are estimates.
CPU_MEGABYTES = {"cmake/any": 160, "libtorch/cpu": 1600, "onnxruntime/cpu": 120}
MEGABYTES = {**CPU_MEGABYTES, "libtorch/cuda": 9000, "onnxruntime/cuda": 1500}
OVERRIDE = {"cmake": "CMAKE", "libtorch": "LIBTORCH", "onnxruntime": "ORT_DYLIB_PATH"}


class SetupError(Exception):
    """What failed, and a hint."""

    def __init__(self, message, hint):
        super().__init__(message)
        self.hint = hint


def pins():
    """Returns `{package/variant: [(name, version, sha256)]}` from `.ci/wheels.txt`."""
    table = {}
    for line in (ROOT / ".ci" / "wheels.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            part, *pin = line.split()
            table.setdefault(part, []).append(tuple(pin))
    return table


def stamp(key, wheels):
    return f"{key} {hashlib.sha256(repr((LAYOUT, MEMBERS[key], wheels)).encode()).hexdigest()}\n"


def installed(part):
    """Returns the stamp of the installed package, or an empty string."""
    try:
        return (RUNTIME / part / ".stamp").read_text()
    except OSError:
        return ""


def variant(part, table):
    if f"{part}/any" in table:
        return f"{part}/any"
    wanted = os.environ.get("CUDA", "")
    if wanted not in ("", "0", "1"):
        raise SetupError(f"`CUDA={wanted}` is invalid", "use CUDA=1 for GPU libraries, CUDA=0 for CPU libraries")
    gpu = wanted == "1" or (wanted == "" and installed(part).startswith(f"{part}/cuda "))
    return f"{part}/cuda" if gpu else f"{part}/cpu"


def overridden(part):
    """Returns true if the environment names an existing installation; an unusable one is an error."""
    name = OVERRIDE[part]
    value = os.environ.get(name, "")
    if not value or RUNTIME.resolve() in Path(value).resolve().parents:
        return False
    if not (shutil.which(value) if part == "cmake" else os.path.isabs(value) and os.path.exists(value)):
        hint = f"set an absolute path, or unset {name} to use the pinned package"
        raise SetupError(f"`{name}={value}` does not exist", hint)
    if part == "libtorch":
        found = torch_version(Path(value))
        if found.split("+")[0] != TORCH:
            raise SetupError(
                f"`LIBTORCH={value}` has the wrong version\n  expected: {TORCH}\n  found: {found}",
                f"use libtorch {TORCH}, or unset LIBTORCH to use the pinned package",
            )
    return True


def torch_version(libtorch):
    sources = {
        "build-version": r"^(\S+)",
        "version.py": r"__version__ = '([^']+)'",
        "include/torch/headeronly/version.h": r'#define TORCH_VERSION[\s\\]+"([^"]+)"',
        "include/torch/csrc/api/include/torch/version.h": r'#define TORCH_VERSION[\s\\]+"([^"]+)"',
    }
    for name, pattern in sources.items():
        file = libtorch / name
        match = re.search(pattern, file.read_text()) if file.is_file() else None
        if match:
            return match.group(1)
    return "no version in `build-version` or the headers"


def pip(scratch):
    """Returns the command that runs pip; creates a virtual environment in `scratch` if this Python has no pip."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    environment = scratch / "pip"
    if subprocess.run([sys.executable, "-m", "venv", str(environment)], capture_output=True).returncode == 0:
        return [str(environment / "bin" / "python"), "-m", "pip"]
    raise SetupError(
        f"`{sys.executable}` has no pip",
        "apt install python3-pip, or select a Python that has pip: make setup PYTHON=/path/to/python3",
    )


def download(wheels, scratch):
    """Downloads the pinned wheels, independent of the running Python and system, and returns their paths."""
    requirements = scratch / "requirements.txt"
    requirements.write_text("".join(f"{name}=={version} --hash=sha256:{sha}\n" for name, version, sha in wheels))
    folder = scratch / "wheels"
    # Platform tags of the pinned wheels.
    tags = ["manylinux1", "manylinux2014", "manylinux_2_18", "manylinux_2_25", "manylinux_2_27", "manylinux_2_28"]
    command = [*pip(scratch), "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--python-version=3.11", "--implementation=cp", "--abi=cp311"]
    command += [f"--platform={tag}_x86_64" for tag in tags]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    command += [] if sys.stderr.isatty() else ["--quiet"]
    # pip unpacks into TMPDIR, which may be a small in-memory file system.
    environment = {**os.environ, "TMPDIR": str(scratch), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if subprocess.run(command, env=environment, stdout=sys.stderr).returncode != 0:
        hint = "see the message of pip above; check the network and the disk, then rerun"
        raise SetupError("cannot download the wheels", hint)
    return sorted(folder.glob("*.whl"))


def unpack(key, wheel, target):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            for pattern, name in MEMBERS[key]:
                match = re.fullmatch(pattern, member.filename)
                if match and not member.is_dir():
                    path = target / match.expand(name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, path.open("wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
                    path.chmod(0o755 if member.external_attr >> 16 & 0o100 else 0o644)


def finish(key, wheels, target):
    """Adds the files that are not in the wheels; the stamp is written last."""
    part = key.split("/")[0]
    if part == "libtorch":
        (target / "build-version").write_text(f"{TORCH}\n")
        if key.endswith("/cpu"):
            # The wheel's libtorch.so depends on libtorch_cuda.so.
            (target / "lib" / "libtorch.so").symlink_to("libtorch_cpu.so")
    if part == "onnxruntime":
        (target / "libonnxruntime.so").symlink_to(f"libonnxruntime.so.{wheels[0][1]}")
    proof = {"cmake": "bin/cmake", "libtorch": "lib/libtorch.so", "onnxruntime": "libonnxruntime.so"}[part]
    if not (target / proof).exists():
        hint = "`.ci/setup.py` does not match `.ci/wheels.txt`"
        raise SetupError(f"the wheels of `{key}` do not contain `{proof}`", hint)
    (target / ".stamp").write_text(stamp(key, wheels))


def install(key, wheels, scratch):
    part = key.split("/")[0]
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise SetupError(
            f"no `{part}` is pinned for {platform.system()} on {platform.machine()}",
            f"set {OVERRIDE[part]}=/absolute/path to an existing installation",
        )
    need, free = MEGABYTES[key], shutil.disk_usage(RUNTIME).free // 1_000_000
    if free < need:
        message = f"not enough disk space for `{key}`\n  expected: {need} MB\n  found: {free} MB"
        raise SetupError(message, f"free space for {RUNTIME}")
    print(f"setup: {key}:", ", ".join(f"{name} {version}" for name, version, _ in wheels), file=sys.stderr)
    target = scratch / part
    target.mkdir()
    for wheel in download(wheels, scratch):
        unpack(key, wheel, target)
        wheel.unlink()
    finish(key, wheels, target)
    if part == "cmake":
        link = scratch / "link"
        link.symlink_to("../cmake/bin/cmake")
        (RUNTIME / "bin").mkdir(exist_ok=True)
        link.replace(RUNTIME / "bin" / "cmake")
    if part == "libtorch" and installed(part):
        # torch-sys does not notice that the library at the same path has changed.
        for profile in ([], ["--release"]):
            subprocess.run(["cargo", "clean", "--quiet", *profile, "--package", "torch-sys"], cwd=ROOT, check=False)
    destination = RUNTIME / part
    if destination.exists() or destination.is_symlink():
        destination.rename(scratch / "replaced")
    target.rename(destination)


def advise_nasm():
    """Says how to get the assembler of libjpeg-turbo's SIMD code if it is missing. The build works without it."""
    if platform.machine() in ("x86_64", "AMD64") and not shutil.which("nasm") and not shutil.which("yasm"):
        print(
            "note: nasm is not installed, so JPEG files are decoded without SIMD, at half the speed\n"
            "  hint: apt install nasm, then cargo clean -p turbojpeg-sys (add --release for optimised builds)",
            file=sys.stderr,
        )


def main(parts):
    global RUNTIME
    if parts[:1] == ["--into"]:
        if len(parts) < 2:
            raise SetupError("`--into` needs a folder", "for example: .ci/setup.py --into target/gpu/runtime libtorch")
        RUNTIME, parts = Path(parts[1]).absolute(), parts[2:]
    table = pins()
    for part in set(parts) - set(OVERRIDE):
        raise SetupError(f"unknown package `{part}`", f"packages: {', '.join(OVERRIDE)}")
    wanted = [variant(part, table) for part in parts or OVERRIDE if not overridden(part)]

    def missing():
        return [key for key in wanted if installed(key.split("/")[0]) != stamp(key, table[key])]

    if "cmake" in parts or not parts:
        advise_nasm()
    if not missing():
        return
    RUNTIME.mkdir(parents=True, exist_ok=True)
    with (RUNTIME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in RUNTIME.glob(".scratch-*"):
            shutil.rmtree(stale, ignore_errors=True)
        for key in missing():
            with tempfile.TemporaryDirectory(prefix=".scratch-", dir=RUNTIME) as scratch:
                install(key, table[key], Path(scratch))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SetupError as error:
        sys.exit(f"error: {error}\n  hint: {error.hint}")
    except (OSError, zipfile.BadZipFile, KeyboardInterrupt) as error:
        sys.exit(f"error: setup failed: {error!r}\n  hint: no partial files were kept; rerun it")
