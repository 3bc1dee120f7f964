"""What the tests of the installed wheel share."""

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import laps_zoo

PROGRAM = Path(sysconfig.get_path("scripts")) / "laps-zoo"


def command(*arguments: str | Path) -> Any:
    """Returns the JSON output of the installed command."""
    output = subprocess.run([PROGRAM, *arguments], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output)


@pytest.fixture(scope="session")
def model() -> laps_zoo.Model:
    return laps_zoo.Model.load("shapes_vit")


@pytest.fixture(scope="session")
def dataset() -> laps_zoo.Dataset:
    return laps_zoo.read_dataset("shapes_vit")
