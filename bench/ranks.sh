#!/bin/sh
# Trains `shapes_vit` for two epochs without dropout, as one process with two threads and as two ranks with one thread,
# three times in turn, and prints Markdown: throughput, share of communication, bytes a step, and how the losses drift apart.
#
#   bench/ranks.sh FOLDER [OPTION ...]
#
# Options are those of `laps-zoo train`. LAPS_ZOO is the program, `laps-zoo` by default. Needs Python 3.
set -eu
[ $# -ge 1 ] || { echo 'usage: bench/ranks.sh FOLDER [OPTION ...]' >&2; exit 2; }
folder=$1
shift
program=${LAPS_ZOO:-laps-zoo}
mkdir -p "$folder"

set -- --set train.epochs=2 --set train.dropout=0 --set train.drop_path=0 "$@"
for run in 1 2 3; do
    "$program" train shapes_vit --out "$folder/one-$run" --threads 2 --resume=auto "$@"
    "$program" launch -n 2 -- train shapes_vit --out "$folder/two-$run" --threads 1 --resume=auto "$@"
done
"$program" info shapes_vit --json > "$folder/info.json"
python3 - "$folder" <<'PYTHON'
import json
import os
import statistics
import sys
from pathlib import Path

folder = Path(sys.argv[1])


def lines(run):
    return [json.loads(line) for line in (folder / run / "log.jsonl").read_text().splitlines()]


def epochs(name):
    return [line for run in (1, 2, 3) for line in lines(f"{name}-{run}") if "recalls" in line]


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


one, two = epochs("one"), epochs("two")
print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[2]:.1f} in the last 15 minutes; medians of {len(one)} epochs\n")
print("| | 1 rank, 2 threads | 2 ranks, 1 thread |\n|---|---|---|")
print(f"| pairs/s | {spread([e['pairs_per_second'] for e in one])} | {spread([e['pairs_per_second'] for e in two])} |")
print(f"| communicating, % | | {spread([100 * e['communication'] for e in two])} |")
parameters = sum(json.loads((folder / "info.json").read_text())["sizes"])
total = statistics.median(e["communication_bytes"] for e in two)
print(f"| bytes a step and rank: gradients | | {4 * parameters:,} |")
print(f"| bytes a step and rank: embeddings | | {int(total) - 4 * parameters:,} |")

losses = [[line["loss"] for line in lines(run) if "recalls" not in line] for run in ("one-1", "two-1")]
differences = [abs(two / one - 1) for one, two in zip(*losses) if one]
print("\n| steps | largest relative difference of a loss |\n|---|---|")
for end in (20, 50, 100, 200, 400):
    print(f"| 1 to {end} | {max(differences[:end]):.1e} |")
PYTHON
