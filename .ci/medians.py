#!/usr/bin/env python3
"""Prints the medians of the last criterion run as a Markdown table with the machine, for a job summary.

    .ci/medians.py [target/criterion]

The table is informative: nothing is compared, and nothing fails.
"""

import json
import os
import platform
import sys
from pathlib import Path

UNITS = [("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0)]


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown CPU"


def time(nanoseconds: float) -> str:
    unit, size = next((unit for unit in UNITS if nanoseconds >= unit[1]), UNITS[-1])
    return f"{nanoseconds / size:.3g} {unit}"


def rows(folder: Path):
    for path in sorted(folder.rglob("new/estimates.json")):
        name = json.loads((path.parent / "benchmark.json").read_text())["full_id"]
        estimates = json.loads(path.read_text())
        interval = estimates["median"]["confidence_interval"]
        low, high = interval["lower_bound"], interval["upper_bound"]
        yield name, time(estimates["median"]["point_estimate"]), f"{time(low)} to {time(high)}"


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "target/criterion")
    table = list(rows(folder))
    if not table:
        print(f"no criterion results in {folder}", file=sys.stderr)
        return 1
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"Medians, {cpu_name()}, {count} CPUs, {platform.system()} {platform.machine()}\n")
    print("| benchmark | median | 95 % confidence |\n|---|---|---|")
    for name, median, interval in table:
        print(f"| {name} | {median} | {interval} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
