"""Checks result files of MTEB with mteb: that it reads them, and that it computes the same metrics.

    mteb_reference.py MATRIX.npy FOLDER

MATRIX.npy has images x captions, five captions an image, FOLDER the result files of both tasks of Flickr30K.
"""

import sys
from pathlib import Path

import numpy as np

# PyTorch, which mteb imports, is in the environment of torchrun.
sys.path.append(str(next(Path(__file__).parent.parent.glob(".runtime/torchrun/lib/python3*/site-packages"))))

import mteb
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, make_score_dict
from mteb.results.task_result import TaskResult

matrix, folder = np.load(sys.argv[1]), Path(sys.argv[2])
images, captions = matrix.shape
# Of equal scores, mteb takes the later id first, as laps-zoo does.
names = [f"{number:06}" for number in range(captions)]
i2t = {names[image]: {name: 1 for name in names[5 * image : 5 * image + 5]} for image in range(images)}
t2i = {names[caption]: {names[caption // 5]: 1} for caption in range(captions)}

for name, scores, answers in [("Flickr30kI2TRetrieval", matrix, i2t), ("Flickr30kT2IRetrieval", matrix.T, t2i)]:
    result = TaskResult.from_disk(folder / f"{name}.json")
    task = mteb.get_task(name).metadata
    assert (result.task_name, result.dataset_revision) == (task.name, task.revision), result
    assert (list(result.scores), task.main_score) == (task.eval_splits, "ndcg_at_10"), result
    found = result.scores["test"][0]
    assert result.get_score() == found["main_score"] == found["ndcg_at_10"], found
    assert found["languages"] == task.eval_langs, found
    runs = {names[row]: {names[column]: float(value) for column, value in enumerate(values)} for row, values in enumerate(scores)}
    reference = calculate_retrieval_scores(runs, answers, (1, 3, 5, 10, 20, 100, 1000))
    expected = make_score_dict(
        ndcg=reference.ndcg,
        _map=reference.map,
        recall=reference.recall,
        precision=reference.precision,
        mrr=reference.mrr,
        naucs={},
        naucs_mrr={},
        hit_rate=reference.hit_rate,
        task_scores={},
    )
    for key, value in expected.items():
        # Both round to five digits, from sums in another order.
        assert abs(found[key] - value) < 1.01e-5, (name, key, found[key], value)
    print(name, len(expected))
