"""The steps of the GitHub Action, with the installed command."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM

ROOT = Path(__file__).resolve().parent.parent.parent


def steps(inputs: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the steps after the installation until one fails; the summary is the file `summary` of the folder."""
    yaml: Any = pytest.importorskip("yaml")
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    values = {name: str(value.get("default", "")) for name, value in action["inputs"].items()} | inputs
    kept = {name: os.environ[name] for name in ("HOME", "LAPS_ZOO_CACHE", "TMPDIR") if name in os.environ}
    environment = {
        "PATH": f"{PROGRAM.parent}:/usr/bin:/bin",
        "RUNNER_TEMP": str(folder),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        **kept,
    }
    for step in action["runs"]["steps"][1:]:
        condition = re.fullmatch(r"inputs\.(\w+) != ''", step.get("if", ""))
        if condition and not values[condition[1]]:
            continue
        own = {
            name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: values[found[1]], text)
            for name, text in step["env"].items()
        }
        # As the runner starts it.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**environment, **own})
        if done.returncode != 0:
            break
    return done


def reproduced(path: Path, limit: int) -> Path:
    command: list[str | Path] = [PROGRAM, "reproduce", "shapes_vit", "--limit", str(limit), "--json", path, "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def test_neither_results_nor_a_suite_is_an_error(tmp_path: Path) -> None:
    done = steps({}, tmp_path)
    assert done.returncode == 2 and "set the input results or suite" in done.stdout


def test_changed_hits_fail_with_the_table_in_the_summary(tmp_path: Path) -> None:
    result = reproduced(tmp_path / "theirs.json", 20)
    bless: list[str | Path] = [PROGRAM, "bench", "--bless", "--only", "results", "--results", result, "--quiet"]
    subprocess.run([*bless, "--baselines", tmp_path / "baselines"], check=True, stdout=subprocess.DEVNULL)
    same = steps({"results": result.name}, tmp_path)
    assert same.returncode == 0, same.stdout + same.stderr
    assert "| f30k | i2t R@1 |" in (tmp_path / "summary").read_text()

    (tmp_path / "summary").unlink()
    other = steps({"results": reproduced(result, 40).name}, tmp_path)
    assert other.returncode == 1, other.stdout + other.stderr
    summary = (tmp_path / "summary").read_text()
    assert "| f30k | i2t R@1 |" in summary and "```text" in summary


def test_suite_is_held_against_committed_results(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("runs:\n- { name: mine, entry: shapes_vit, limit: 20 }\n")
    command: list[str | Path] = [PROGRAM, "suite", suite, "--out", tmp_path / "first", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "first" / "results").rename(tmp_path / "committed")
    same = steps({"suite": suite.name}, tmp_path)
    assert same.returncode == 0, same.stdout + same.stderr
    summary = (tmp_path / "summary").read_text()
    assert "| f30k | i2t R@1 |" in summary and "```text" not in summary

    suite.write_text("runs:\n- { name: mine, entry: shapes_vit, limit: 40 }\n")
    other = steps({"suite": suite.name}, tmp_path)
    assert other.returncode == 1, other.stdout + other.stderr
    assert "rSum" in (tmp_path / "summary").read_text().rsplit("```text", 1)[1]
