"""Time and memory of `laps-zoo evaluate` on a matrix of COCO's size, against sorting with NumPy.

    python bench/evaluate.py [--program target/release/laps-zoo] [--repeats N] [--images N]

Makes a random matrix, `images` x 5 `images` of float32, evaluates it by the protocols coco_5k and coco_1k in a process of
each kind in turn, and prints a Markdown table: the shortest time of each, and its peak memory. The NumPy route is the
usual one: `argsort` of every row and column, and the position of the correct answers in the order. It runs on one thread,
laps-zoo on all. Memory is the peak resident size of the process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CAPTIONS = 5
FOLD = 1000


def recalls(sims):
    """R@1, R@5 and R@10 in both directions, by sorting."""
    images, captions = sims.shape
    i2t = np.zeros(images)
    for image in range(images):
        order = np.argsort(sims[image])[::-1]
        places = [np.where(order == caption)[0][0] for caption in range(CAPTIONS * image, CAPTIONS * (image + 1))]
        i2t[image] = min(places)
    t2i = np.zeros(captions)
    for caption, column in enumerate(sims.T):
        order = np.argsort(column)[::-1]
        t2i[caption] = np.where(order == caption // CAPTIONS)[0][0]
    return [100 * np.mean(ranks < depth) for ranks in (i2t, t2i) for depth in (1, 5, 10)]


def numpy_route(path):
    sims = np.load(path)
    folds = [sims[start : start + FOLD, CAPTIONS * start : CAPTIONS * (start + FOLD)] for start in range(0, len(sims), FOLD)]
    five = np.mean([recalls(fold) for fold in folds], axis=0)
    print(json.dumps({"coco_5k": recalls(sims), "coco_1k": five.tolist()}))


def make_matrix(path, images):
    """Writes a random matrix in blocks: the memory of this process would count in the peak of those that it starts."""
    random = np.random.default_rng(7)
    shape = (images, CAPTIONS * images)
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(0, images, 100):
            file.write(random.standard_normal((100, shape[1]), dtype=np.float32).tobytes())
    return shape


def measure(command):
    """Seconds, CPU seconds, peak memory in MB and output of a process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command} failed")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/laps-zoo")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000, help="a multiple of 1,000")
    parser.add_argument("--numpy", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.numpy:
        return numpy_route(arguments.numpy)
    with tempfile.TemporaryDirectory() as folder:
        path, result = Path(folder, "sims.npy"), Path(folder, "result.json")
        shape = make_matrix(path, arguments.images)
        size = path.stat().st_size / 1e6
        routes = {
            "laps-zoo evaluate": [
                arguments.program, "evaluate", "--sims", path, "--protocol", "coco_5k,coco_1k", "--json", result, "--quiet",
            ],
            "NumPy argsort": [sys.executable, __file__, "--numpy", path],
        }
        best = {}
        for _ in range(arguments.repeats):
            for name, command in routes.items():
                seconds, cpu, memory, output = measure(command)
                previous = best.get(name, (float("inf"), float("inf"), 0.0, b""))
                best[name] = (min(seconds, previous[0]), min(cpu, previous[1]), max(memory, previous[2]), output)
        sorted_recalls = json.loads(best["NumPy argsort"][3])
        for evaluation in json.loads(result.read_text())["evaluations"]:
            counted = [evaluation[side][key] for side in ("i2t", "t2i") for key in ("r1", "r5", "r10")]
            expected = sorted_recalls[evaluation["protocol"]]
            # Equal scores have no order in NumPy's sort, so that a query may change its rank.
            if np.abs(np.subtract(counted, expected)).max() > 0.1:
                sys.exit(f"the recalls differ: {counted} and {expected}")
    print(f"{shape[0]} x {shape[1]} float32, {size:.0f} MB; best of {arguments.repeats}, NumPy {np.__version__}\n")
    print("| | seconds | CPU seconds | peak memory |\n|---|---|---|---|")
    slowest = [max(times) for times in zip(*((seconds, cpu) for seconds, cpu, *_ in best.values()))]
    for name, (seconds, cpu, memory, _) in best.items():
        times = [f"{value:.2f} ({most / value:.1f}x)" for value, most in zip((seconds, cpu), slowest)]
        print(f"| {name} | {times[0]} | {times[1]} | {memory:.0f} MB |")


if __name__ == "__main__":
    main()
