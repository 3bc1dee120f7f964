"""`.ci/gpu_bundle.py` and `bench/gpu.sh`, with small files and programs that do nothing: no GPU, no build."""

import importlib.util
import json
import os
import struct
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PTX, CUBIN, LTO_IR, UNKNOWN = 1, 2, 8, 64


@pytest.fixture(scope="module")
def bundle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_bundle", ROOT / ".ci" / "gpu_bundle.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fat_binary(*entries: tuple[int, int]) -> bytes:
    """A fat binary with an entry of each kind and architecture, whose payload is its number from 1."""
    body = b""
    for number, (kind, architecture) in enumerate(entries, 1):
        # Newer architectures have longer headers.
        header = 64 if architecture < 100 else 112
        fields = struct.pack("<HHIQIIHHI", kind, 0x101, header, 16, 16, 0, 0, 0, architecture)
        body += fields.ljust(header, b"\0") + bytes([number]) * 16
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def kept(bundle: ModuleType, *entries: tuple[int, int], keep_ptx: bool = True) -> list[int]:
    """The numbers of the entries whose payload stays for a GPU of sm_90."""
    code = fat_binary(*entries)
    data = bytearray(b"host code" + code + b"more of it")
    trimmed = bundle.trim(data, 90, keep_ptx)
    numbers = [number for number in range(1, len(entries) + 1) if bytes([number]) * 16 in data]
    assert trimmed == 16 * (len(entries) - len(numbers))
    assert len(data) == len(code) + 19 and data.startswith(b"host code") and data.endswith(b"more of it")
    return numbers


def test_gpu_code_of_other_architectures_is_removed(bundle: ModuleType) -> None:
    assert kept(bundle, (CUBIN, 75), (CUBIN, 90), (CUBIN, 100), (PTX, 120), (LTO_IR, 75)) == [2]
    # A GPU runs machine code of its generation that is not newer.
    assert bundle.unused([(CUBIN, 80, 0, 1), (CUBIN, 86, 1, 2), (CUBIN, 89, 2, 3)], 86) == [(CUBIN, 89, 2, 3)]
    assert kept(bundle, (UNKNOWN, 75), (CUBIN, 75)) == [1]


def test_newest_ptx_that_fits_is_kept_where_there_is_no_machine_code(bundle: ModuleType) -> None:
    entries = [(CUBIN, 80), (PTX, 75), (PTX, 86), (PTX, 100)]
    assert kept(bundle, *entries) == [3]
    assert kept(bundle, *entries, keep_ptx=False) == []
    assert kept(bundle, *entries, (CUBIN, 90)) == [5]


def test_bytes_that_only_begin_like_a_fat_binary_are_left_alone(bundle: ModuleType) -> None:
    whole = fat_binary((CUBIN, 75))
    for broken in [whole[:-1], whole.replace(struct.pack("<I", 64), struct.pack("<I", 1))]:
        data = bytearray(broken)
        assert bundle.trim(data, 90) == 0
        assert data == broken


def test_libraries_are_those_that_are_needed_or_opened(bundle: ModuleType, tmp_path: Path) -> None:
    for name in ["libtorch.so", "libused.so.1", "libunused.so.1", "libcudnn_ops.so.9", "libonnxruntime.so.1.31.1"]:
        (tmp_path / name).touch()
    (tmp_path / "libonnxruntime.so").symlink_to("libonnxruntime.so.1.31.1")
    needs = {"program": ["libtorch.so", "libc.so.6"], "libtorch.so": ["libused.so.1", "libcuda.so.1"]}
    found = bundle.closure([Path("program")], [tmp_path], lambda path: needs.get(path.name, []))
    assert sorted(found) == ["libcudnn_ops.so.9", "libonnxruntime.so.1.31.1", "libtorch.so", "libused.so.1"]
    with pytest.raises(bundle.BundleError, match="`libmissing.so.1`, which `program` needs"):
        bundle.closure([Path("program")], [tmp_path], lambda path: {"program": ["libmissing.so.1"]}.get(path.name, []))


def test_parts_are_checked_and_unpacked(bundle: ModuleType, tmp_path: Path) -> None:
    stage, parts, target = [tmp_path / name for name in ("stage", "parts", "target")]
    (stage / "bin").mkdir(parents=True)
    # Noise, which does not compress.
    noise = os.urandom(5_000)
    (stage / "bin" / "program").write_bytes(noise)
    (stage / "bin" / "program").chmod(0o755)
    assert bundle.pack(stage, parts, 2_000) == 3
    files = sorted(path for path in parts.iterdir() if ".tar.gz." in path.name)
    assert len(files) == 3 and max(path.stat().st_size for path in files) == 2_000
    subprocess.run([parts / "unpack.sh", target], check=True)
    program = target / "laps-zoo-gpu" / "bin" / "program"
    assert program.read_bytes() == noise and os.access(program, os.X_OK)
    files[1].write_bytes(bytes(2_000))
    damaged = subprocess.run([parts / "unpack.sh", tmp_path / "other"], capture_output=True, text=True)
    assert damaged.returncode != 0 and files[1].name in damaged.stdout + damaged.stderr
    assert not (tmp_path / "other" / "laps-zoo-gpu").exists()


PROGRAM = """#!/bin/sh
case "$1 $2" in
    "--version ") echo "laps-zoo 0.2.0 (commit abc)" ;;
    "doctor ") echo 'gpu           A "GPU" | of a test' ;;
    "info --yaml") printf 'name: x\\ntrain:\\n  epochs: 9\\n  drawn: { train: 1 }\\nreferences:\\n  a: b\\n' ;;
    "reproduce shapes_vit")
        printf 'stage\\n| measured   62.5   515.3 |\\nverdict: reproduced\\n'
        [ "$4" = torch ] || { echo 'error: no GPU' >&2; exit 2; } ;;
    "bench --entry")
        file=$(echo "$*" | sed 's/.*--markdown \\([^ ]*\\).*/\\1/')
        echo '| image | torch | cpu | fp32 | 8 | 12.5 images | 1.0 |' > "$file" ;;
    "bench alignment") exec sleep 60 ;;
esac
"""


def run_script(folder: Path, programs: dict[str, str], *options: str) -> tuple[int, dict[str, Any]]:
    """Runs the script on a bundle of these programs: its exit code, and the steps of its result by name."""
    (folder / "bin").mkdir(parents=True)
    for name, text in programs.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    command: list[str | Path] = [ROOT / "bench" / "gpu.sh", folder, "--device", "cpu", *options]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stderr == "", run.stderr
    result = json.loads((folder / "results" / "results.json").read_text())
    return run.returncode, {step["name"]: step for step in result["steps"]}


def test_failures_are_recorded_and_do_not_end_the_script(tmp_path: Path) -> None:
    test = "#!/bin/sh\necho 'test result: ok. 3 passed; 0 failed; 0 ignored'\n"
    programs = {"laps-zoo": PROGRAM, "laps-zoo-torch": PROGRAM, "test-torch-golden": test}
    # The step that sleeps uses up the time of the others.
    code, steps = run_script(tmp_path, programs, "--seconds", "3", "--python", "absent")
    assert code == 1
    outcomes = {name: step["outcome"] for name, step in steps.items()}
    assert outcomes["reproduce-torch"] == outcomes["encoders"] == outcomes["test-torch-golden"] == "passed"
    assert outcomes["reproduce-ort"] == "failed" and "no GPU" in steps["reproduce-ort"]["reason"]
    assert outcomes["collective"] == "failed", "its program is missing"
    assert outcomes["similarities"] == "timed out"
    assert outcomes["training-fp16"] == outcomes["pytorch"] == "skipped"
    assert steps["doctor"]["figures"]["gpu"] == 'A "GPU" | of a test'
    assert steps["test-torch-golden"]["figures"]["tests"] == "3 passed; 0 failed"
    assert steps["reproduce-torch"]["figures"] == {"rSum": "515.3", "verdict": "reproduced"}
    assert steps["encoders"]["figures"] == {"image, torch, fp32, batch 8": "12.5 images per second"}
    table = (tmp_path / "results" / "results.md").read_text().splitlines()
    assert "| doctor | passed |" in table[4] and 'A "GPU" \\| of a test' in table[4]
    assert sum(line.startswith("| ") for line in table) == 1 + len(steps)


def test_pytorch_is_measured_where_it_is(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n[ $1 = -c ] || echo \"$4, batch 2, float32, compiled: 12.5/s, 80.00 ms\"\n")
    python.chmod(0o755)
    quiet = {"laps-zoo": "#!/bin/sh\n", "laps-zoo-torch": "#!/bin/sh\n", "test-torch-collective": "#!/bin/sh\n"}
    code, steps = run_script(tmp_path / "bundle", quiet, "--python", str(python))
    assert code == 0
    assert steps["pytorch-bert"]["figures"] == {"bert, batch 2, float32, compiled": "12.5/s, 80.00 ms"}
    assert {step["outcome"] for step in steps.values()} == {"passed", "skipped"}


def test_wrong_arguments_print_the_usage(tmp_path: Path) -> None:
    wrong: list[list[str | Path]] = [[], [tmp_path, "--device", "gpu"], [tmp_path, "--out"], [tmp_path / "absent"]]
    for arguments in wrong:
        run = subprocess.run([ROOT / "bench" / "gpu.sh", *arguments], capture_output=True, text=True)
        assert run.returncode == 2
        assert run.stderr.startswith("gpu.sh FOLDER")
