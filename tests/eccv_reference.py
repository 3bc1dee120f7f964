"""Makes a random matrix of COCO 5K with some signal, and evaluates it by the Python package eccv-caption.

    eccv_reference.py MATRIX.npy

Writes the matrix, images x captions in the order of the package, and prints the metrics as JSON.
"""

import json
import sys

import numpy as np
from eccv_caption import Metrics

# More candidates than any query has right ones (48), and than the largest K.
LISTED = 80

metrics = Metrics()
caption_ids = [int(caption) for caption in metrics.coco_ids]
image_ids = [metrics.coco_gts["t2i"][caption][0] for caption in caption_ids[::5]]
rows = {image: row for row, image in enumerate(image_ids)}
columns = {caption: column for column, caption in enumerate(caption_ids)}

random = np.random.default_rng(7)
sims = random.standard_normal((len(image_ids), len(caption_ids)), dtype=np.float32)
for judged, bonus in ((metrics.coco_gts, 3.0), (metrics.eccv_gts, 2.0), (metrics.cxc_gts, 0.5)):
    for image, captions in judged["i2t"].items():
        known = [columns[caption] for caption in captions if caption in columns]
        sims[rows[image], known] += np.float32(bonus)
# Two decimals, so that scores tie.
sims = np.round(sims, 2)
np.save(sys.argv[1], sims)


def listed(scores, ids):
    """The first ids, of equal scores the later one first."""
    least = np.partition(scores, len(scores) - LISTED)[-LISTED]
    candidates = np.flatnonzero(scores >= least)
    order = np.lexsort((-candidates, -scores[candidates]))[:LISTED]
    return [ids[index] for index in candidates[order]]


i2t = {image: listed(sims[row], caption_ids) for image, row in rows.items()}
transposed = np.ascontiguousarray(sims.T)
t2i = {caption: listed(transposed[column], image_ids) for caption, column in columns.items()}
names = ["coco_5k_recalls", "cxc_recalls", "eccv_r1", "eccv_map_at_r", "eccv_rprecision"]
# Without `eccv_map_at_r` the package ignores `eccv_rprecision`.
found = metrics.compute_all_metrics(i2t, t2i, target_metrics=names, Ks=(1, 5, 10))
print(json.dumps({name: {side: 100 * float(value) for side, value in sides.items()} for name, sides in found.items()}))
