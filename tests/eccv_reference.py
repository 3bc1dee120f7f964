"""Makes a random matrix of COCO 5K with some signal, and evaluates it by the Python package eccv-caption.

    eccv_reference.py MATRIX.npy FOLDER SEED

Writes the matrix, images x captions in the order of the package, and random plausible matches to FOLDER, in the format of
the published ones. Prints the metrics as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
from eccv_caption import Metrics

# At least as many candidates as any query has right ones by ECCV Caption (48), and as the largest K.
LISTED = 80
FOLDS = 5

path, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
metrics = Metrics()
caption_ids = [int(caption) for caption in metrics.coco_ids]
image_ids = [metrics.coco_gts["t2i"][caption][0] for caption in caption_ids[::5]]
rows = {image: row for row, image in enumerate(image_ids)}
columns = {caption: column for column, caption in enumerate(caption_ids)}

random = np.random.default_rng(seed)
sims = random.standard_normal((len(image_ids), len(caption_ids)), dtype=np.float32)
for judged, bonus in ((metrics.coco_gts, 3.0), (metrics.eccv_gts, 2.0), (metrics.cxc_gts, 0.5)):
    for image, captions in judged["i2t"].items():
        known = [columns[caption] for caption in captions if caption in columns]
        sims[rows[image], known] += np.float32(bonus)

# Plausible matches: images of one class, the largest of about 250 images. As the script of the package writes them, without
# the own image or captions.
classes = (400 * random.random(len(image_ids)) ** 2).astype(int)
# Images without a match.
classes[:3] = [-3, -2, -1]
matches = {"i2t": {}, "t2i": {}}
for row, image in enumerate(image_ids):
    others = np.flatnonzero(classes == classes[row])
    others = others[others != row]
    sims[row, (5 * others[:, None] + np.arange(5)).ravel()] += np.float32(0.5)
    matches["i2t"][image] = [caption_ids[5 * other + k] for other in others for k in range(5)]
    for caption in caption_ids[5 * row:5 * row + 5]:
        matches["t2i"][caption] = [image_ids[other] for other in others]
# An image outside of the split.
matches["t2i"][caption_ids[-1]].append(1)
empty = {side: {query: [] for query, right in lists.items() if not right} for side, lists in matches.items()}
assert all(empty.values())
matches = {side: {query: right for query, right in lists.items() if right} for side, lists in matches.items()}

# Two decimals, so that scores tie.
sims = np.round(sims, 2)
np.save(path, sims)


def write(lists):
    folder.mkdir(parents=True, exist_ok=True)
    for side, name in (("i2t", "pm_image_to_caption.json"), ("t2i", "pm_caption_to_image.json")):
        (folder / name).write_text(json.dumps(lists[side]))


def listed(scores, ids, count=LISTED):
    """The first ids, of equal scores the later one first."""
    least = np.partition(scores, len(scores) - count)[-count]
    candidates = np.flatnonzero(scores >= least)
    order = np.lexsort((-candidates, -scores[candidates]))[:count]
    return [ids[index] for index in candidates[order]]


def rank(scores, query_ids, ids, matches):
    """The ids that the package looks at: the first of all candidates, and the first of the fold of the query."""
    of_all, of_fold = {}, {}
    per_fold = len(query_ids) // FOLDS
    fold_ids = np.split(np.arange(len(ids)), FOLDS)
    for index, query in enumerate(query_ids):
        of_all[query] = listed(scores[index], ids, max(LISTED, len(matches.get(query, []))))
        fold = fold_ids[index // per_fold]
        of_fold[query] = listed(scores[index, fold], [ids[candidate] for candidate in fold])
    return of_all, of_fold


# The package divides by zero for a query without a match.
write(matches)
metrics = Metrics(extra_file_dir=str(folder))
i2t, i2t_of_fold = rank(sims, image_ids, caption_ids, matches["i2t"])
t2i, t2i_of_fold = rank(np.ascontiguousarray(sims.T), caption_ids, image_ids, matches["t2i"])
names = ["coco_5k_recalls", "cxc_recalls", "eccv_r1", "eccv_map_at_r", "eccv_rprecision", "pmrp"]
# Without `eccv_map_at_r` the package ignores `eccv_rprecision`, and `pmrp` has no name of its own in what it returns.
found = metrics.compute_all_metrics(i2t, t2i, target_metrics=[name for name in names if name != "pmrp"], Ks=(1, 5, 10))
found["pmrp"] = metrics.pmrp({"i2t": i2t, "t2i": t2i}, "all")
# The package removes the candidates of other folds from each list, which costs minutes for whole lists.
found |= metrics.compute_all_metrics(i2t_of_fold, t2i_of_fold, target_metrics=["coco_1k_recalls"], Ks=(1, 5, 10))
print(json.dumps({name: {side: 100 * float(value) for side, value in sides.items()} for name, sides in found.items()}))
write({side: lists | empty[side] for side, lists in matches.items()})
