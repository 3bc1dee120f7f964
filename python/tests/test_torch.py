"""Training by the wheel laps-zoo-torch on libtorch of the package torch. Skipped where either is not installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROGRAM
from test_wheel import run

# `laps-zoo` looks for this program next to itself.
PROGRAM_TORCH = PROGRAM.with_name("laps-zoo-torch")


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shapes_vit` with 16 scenes and five steps of training."""
    pytest.importorskip("torch")
    if not PROGRAM_TORCH.exists():
        pytest.skip("laps-zoo-torch is not installed")
    text = subprocess.run([PROGRAM, "info", "--yaml", "shapes_vit"], check=True, capture_output=True, text=True).stdout
    changes = {
        r"^name: .*": "name: few",
        r"drawn: {.*?}": "drawn: { seed: 7, train: 16, dev: 8, test: 8 }",
        r"^  epochs: .*": "  epochs: 1",
        r"^  batch_size: .*": "  batch_size: 16",
        r"(?s)^(references|checkpoint):.*": "",
    }
    for pattern, replacement in changes.items():
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    path = tmp_path_factory.mktemp("entry") / "few.yaml"
    path.write_text(text)
    return path


def test_training_runs_on_torch_of_the_environment(entry: Path, tmp_path: Path) -> None:
    import torch

    library = Path(torch.__file__).resolve().parent / "lib" / "libtorch_cpu.so"
    assert str(library) in run(PROGRAM_TORCH, "doctor")
    assert "5 steps" in run(PROGRAM, "train", entry, "--out", tmp_path / "run", "--device", "cpu", "--quiet")
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_training_is_started_by_torchrun(entry: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--standalone", "--nproc_per_node=2"]
    train = [PROGRAM, "train", entry, "--out", tmp_path / "run", "--device", "cpu", "--quiet"]
    assert "5 steps" in run(*torchrun, *train, OMP_NUM_THREADS="1")
    assert os.path.getsize(tmp_path / "run" / "best.safetensors") > 0
