"""Recalls, ranks and rSum of similarity matrices, by sorting with NumPy. Prints one JSON object per matrix.

    numpy_metrics.py MATRIX.npy...

Independent of laps-zoo: it sorts, laps-zoo counts. Rows are images with five consecutive captions each. Of equal scores
the later candidate ranks first; with `optimistic` a correct one, with `pessimistic` a wrong one.
"""

import json
import sys

import numpy as np


def rank(scores, right, rule):
    """The rank, from 1, of the best of the candidates `right`."""
    index = np.arange(len(scores))
    is_right = np.isin(index, right)
    tie = {"later_first": -index, "optimistic": ~is_right, "pessimistic": is_right}[rule]
    order = np.lexsort((tie, -scores))
    return 1 + int(np.flatnonzero(is_right[order])[0])


def recall(ranks):
    ranks = np.array(ranks)
    return {
        "r1": 100 * np.mean(ranks <= 1),
        "r5": 100 * np.mean(ranks <= 5),
        "r10": 100 * np.mean(ranks <= 10),
        # Halves are rounded down.
        "median_rank": float(np.floor(np.median(ranks - 1)) + 1),
        "mean_rank": float(np.mean(ranks)),
    }


def directions(sims, rule):
    images, captions = sims.shape
    i2t = recall([rank(sims[i], np.arange(5 * i, 5 * i + 5), rule) for i in range(images)])
    t2i = recall([rank(sims[:, c], np.array([c // 5]), rule) for c in range(captions)])
    rsum = sum(side[key] for side in (i2t, t2i) for key in ("r1", "r5", "r10"))
    return {"i2t": i2t, "t2i": t2i, "rsum": rsum}


for path in sys.argv[1:]:
    matrix = np.load(path)
    print(json.dumps({rule: directions(matrix, rule) for rule in ("later_first", "optimistic", "pessimistic")}))
