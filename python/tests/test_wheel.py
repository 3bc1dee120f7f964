"""The installed wheels: their programs, run paths, types, examples and notebook."""

import os
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from conftest import PROGRAM

import laps_zoo

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(*command: str | Path, **variables: str) -> str:
    # Nothing but the environment that the wheel is installed in may matter.
    kept = {name: os.environ[name] for name in ("HOME", "LAPS_ZOO_CACHE", "TMPDIR") if name in os.environ}
    environment = {"PATH": "/usr/bin:/bin", **kept, **variables}
    result = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_versions_agree() -> None:
    version = metadata.version("laps-zoo")
    assert laps_zoo.__version__ == version
    assert run(PROGRAM, "--version").startswith(f"laps-zoo {version}")
    assert f"laps-zoo-torch=={version}" in " ".join(metadata.requires("laps-zoo") or [])


@pytest.mark.parametrize("entry", ["shapes_vit", "shapes_swin"])
def test_program_uses_onnxruntime_of_its_environment(entry: str) -> None:
    output = run(PROGRAM, "reproduce", entry, "--engine", "ort")
    assert f"engine ort {metadata.version('onnxruntime')}" in output
    assert "verdict: reproduced" in output


def test_module_uses_onnxruntime_of_its_environment() -> None:
    model = laps_zoo.Model.load("shapes_vit", engine="ort")
    assert model.engine.startswith(f"ort {metadata.version('onnxruntime')}")


def run_path(program: Path) -> list[str]:
    dynamic = subprocess.run(["readelf", "--dynamic", program], check=True, capture_output=True, text=True).stdout
    found = re.search(r"R(?:UN)?PATH\).*\[(.*)\]", dynamic)
    return found[1].split(":") if found else []


@pytest.mark.parametrize("name", ["laps-zoo", "laps-zoo-torch"])
def test_run_path_has_only_relative_folders(name: str) -> None:
    program = SCRIPTS / name
    if not program.exists():
        pytest.skip(f"{name} is not installed")
    assert all(folder.startswith("$ORIGIN/") for folder in run_path(program))


def test_no_file_names_the_folder_of_the_build() -> None:
    files = [file.locate() for file in metadata.files("laps-zoo") or []]
    assert len(files) > 5
    # pip writes the path of the wheel into this file, and those of the environment into what it compiles.
    shipped = [Path(str(file)) for file in files]
    named = [file for file in shipped if file.name != "direct_url.json" and file.suffix != ".pyc"]
    assert [file for file in named if str(ROOT.parent).encode() in file.read_bytes()] == []


def test_torch_program_uses_torch_of_its_environment() -> None:
    program = SCRIPTS / "laps-zoo-torch"
    if not program.exists():
        pytest.skip("laps-zoo-torch is not installed")
    assert metadata.version("torch").split("+")[0] in run(program, "doctor")


def test_types_of_the_examples() -> None:
    pytest.importorskip("mypy")
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert examples
    run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, *examples)


def test_stubs_are_those_of_the_module(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    # A type of the stubs alone, and a name that the module gets from PyO3.
    allowed = tmp_path / "allowed"
    allowed.write_text("laps_zoo._native.PilImage\nlaps_zoo._native.__all__\n")
    run(sys.executable, "-m", "mypy.stubtest", "--allowlist", allowed, "laps_zoo._native")


def test_example_scores() -> None:
    output = run(sys.executable, ROOT / "examples" / "evaluate.py")
    assert "rSum 515.3" in output


def test_notebook_runs() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "examples" / "laps_zoo.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("rSum" in output.get("text", "") for output in outputs)
