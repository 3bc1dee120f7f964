#!/usr/bin/env python3
"""Builds the Python wheels into `dist/`.

    .ci/wheels.py [--profile PROFILE] [WHEEL...]      wheels: laps-zoo, laps-zoo-torch; default: laps-zoo

The profile is that of cargo; `release` is the default and needs nasm, for JPEG decoding with SIMD. Both wheels use the target folder of the workspace.
`laps-zoo` has the program and the module, `laps-zoo-torch` the program with libtorch. maturin comes from PATH or from the
environment of this Python.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
# The oldest glibc that a platform tag can name.
OLDEST_GLIBC = 17


def run(*command, folder=ROOT, **variables):
    print("+", *command, file=sys.stderr)
    subprocess.run(command, cwd=folder, env={**os.environ, **variables}, check=True)


def target_folder(profile):
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return folder / ("debug" if profile == "dev" else profile)


def strip(program, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    run("strip", "--strip-all", "-o", str(target), str(program))


def tag(program):
    """Returns the platform tag of a program, from the newest version of glibc that it needs."""
    minors = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", program.read_bytes())]
    return f"manylinux_2_{max([*minors, OLDEST_GLIBC])}"


def laps_zoo(maturin, profile):
    if profile == "dev":
        # The selection of `.ci/run`, which the tests have compiled. maturin selects the module alone.
        selected = ["--workspace", "--bin", "laps-zoo", "--example", "score"]
    else:
        selected = ["--package", "laps-zoo", "--bin", "laps-zoo"]
    simd = ["--features", "require-simd"] if profile == "release" else []
    run("cargo", "build", "--locked", "--profile", profile, *selected, *simd)
    program = ROOT / "python/wheel-data/scripts/laps-zoo"
    strip(target_folder(profile) / "laps-zoo", program)
    options = ["--locked", "--profile", profile, "--strip", "--compatibility", tag(program), "--out", str(DIST)]
    options += ["--features", "require-simd"] if profile == "release" else []
    run(maturin, "build", *options, "--manifest-path", "python/Cargo.toml")


def laps_zoo_torch(maturin, profile):
    arguments = ["--locked", "--profile", profile, "--package", "laps-torch", "--bin", "laps-zoo-torch"]
    run("cargo", "build", *arguments, LAPS_ZOO_RELOCATABLE="1")
    program = target_folder(profile) / "laps-zoo-torch"
    options = ["--locked", "--profile", profile, "--strip", "--compatibility", tag(program), "--out", str(DIST)]
    # libtorch is in the package `torch`, which no platform tag allows for.
    options += ["--auditwheel", "skip"]
    run(maturin, "build", *options, folder=ROOT / "python/torch", LAPS_ZOO_RELOCATABLE="1")


WHEELS = {"laps-zoo": laps_zoo, "laps-zoo-torch": laps_zoo_torch}


def main():
    parser = argparse.ArgumentParser(description="Builds the Python wheels into dist/.")
    parser.add_argument("--profile", default="release")
    parser.add_argument("wheels", nargs="*", metavar="WHEEL", help=", ".join(WHEELS))
    arguments = parser.parse_args()
    if unknown := set(arguments.wheels) - set(WHEELS):
        parser.error(f"unknown wheels: {', '.join(sorted(unknown))}")
    maturin = shutil.which("maturin", path=sysconfig.get_path("scripts")) or shutil.which("maturin")
    if not maturin:
        sys.exit("error: maturin was not found\n  hint: pip install 'maturin>=1.16,<2'")
    DIST.mkdir(exist_ok=True)
    for wheel in arguments.wheels or ["laps-zoo"]:
        for old in DIST.glob(f"{wheel.replace('-', '_')}-[0-9]*.whl"):
            old.unlink()
        WHEELS[wheel](maturin, arguments.profile)
    for wheel in sorted(DIST.glob("*.whl")):
        print(f"{wheel.relative_to(ROOT)}: {wheel.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: `{error.cmd[0]}` failed with exit code {error.returncode}")
