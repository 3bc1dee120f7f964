"""LAPS image-text retrieval: open a model, embed images and captions, score, explain, search and evaluate.

>>> import laps_zoo
>>> model = laps_zoo.Model.load("shapes_vit")
>>> scores = model.score("photo.png", ["a red circle above a blue square", "a dog"])  # doctest: +SKIP
"""

import importlib.util
import os

from . import _native
from ._native import Dataset, Evaluation, Explanation, LapsError, Model, Recall, evaluate, read_dataset

__version__ = _native.VERSION
__all__ = [
    "Dataset",
    "Evaluation",
    "Explanation",
    "LapsError",
    "Model",
    "Recall",
    "evaluate",
    "read_dataset",
]


def _add_onnxruntime() -> None:
    """Makes the engine `ort` use the package `onnxruntime` of this interpreter. The package is not imported."""
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec and spec.submodule_search_locations) or []:
        _native.add_library_folder(os.path.join(folder, "capi"))


_add_onnxruntime()
