"""The classes for mteb and PyTorch, with the real packages where they are installed."""

import inspect
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from test_wheel import ROOT, run

import laps_zoo
from laps_zoo import Dataset, Model


def test_packages_are_not_imported_with_the_module() -> None:
    loaded = "import sys, laps_zoo; print([name for name in ('torch', 'mteb', 'PIL') if name in sys.modules])"
    assert run(sys.executable, "-c", loaded) == "[]\n"


def test_types_of_the_module() -> None:
    pytest.importorskip("mypy")
    options = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", os.devnull]
    run(sys.executable, "-m", "mypy", "--strict", *options, "-m", "laps_zoo.mteb", "-m", "laps_zoo.torch")


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:04}" for number in range(count)]


@pytest.fixture(scope="session")
def tables(dataset: Dataset) -> dict[str, Any]:
    """The images and captions of the data set, as mteb has documents and queries."""
    datasets = pytest.importorskip("datasets")
    images = {"id": names("i", len(dataset.images)), "image": [str(path) for path in dataset.images]}
    captions = {"id": names("c", len(dataset.captions)), "text": dataset.captions}
    return {
        "image": datasets.Dataset.from_dict(images).cast_column("image", datasets.Image()),
        "text": datasets.Dataset.from_dict(captions),
    }


@pytest.mark.parametrize("kind", ["image", "text"])
def test_mteb_has_the_recalls_of_evaluate(
    model: Model, dataset: Dataset, tables: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    mteb = pytest.importorskip("mteb")
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    from laps_zoo.mteb import SearchModel

    image_ids, caption_ids = tables["image"]["id"], tables["text"]["id"]
    answers: dict[str, dict[str, int]] = {}
    for caption, image in zip(caption_ids, dataset.image_of, strict=True):
        query, document = (caption, image_ids[image]) if kind == "image" else (image_ids[image], caption)
        answers.setdefault(query, {})[document] = 1
    reference = mteb.get_task("Flickr30kT2IRetrieval" if kind == "image" else "Flickr30kI2TRetrieval")

    class Shapes(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = reference.metadata.model_copy(update={"name": "Shapes"})

        def load_data(self, **_: Any) -> None:
            queries = tables["text" if kind == "image" else "image"]
            split = {"corpus": tables[kind], "queries": queries, "relevant_docs": answers, "top_ranked": None}
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    search = SearchModel(model)
    assert isinstance(search, mteb.SearchProtocol)
    for method in ("index", "search"):
        expected = inspect.signature(getattr(mteb.SearchProtocol, method)).parameters
        assert list(inspect.signature(getattr(SearchModel, method)).parameters) == list(expected)
    found = mteb.evaluate(search, tasks=[Shapes()], cache=mteb.ResultCache(tmp_path))
    scores = found.task_results[0].scores["test"][0]
    matrix = model.similarities(model.embed_images(dataset.images), model.embed_captions(dataset.captions))
    both = laps_zoo.evaluate(matrix, dataset.image_of)
    recall = both.t2i if kind == "image" else both.i2t
    # mteb rounds to five digits. Its hit rate is what the field calls R@K where a query has several answers.
    assert scores["hit_rate_at_1"] == pytest.approx(recall.r1 / 100, abs=1e-5)
    assert scores["hit_rate_at_5"] == pytest.approx(recall.r5 / 100, abs=1e-5)
    assert scores["hit_rate_at_10"] == pytest.approx(recall.r10 / 100, abs=1e-5)


def test_listed_documents_are_ranked_alone(model: Model, tables: dict[str, Any]) -> None:
    from laps_zoo.mteb import SearchModel

    search = SearchModel(model)
    arguments: dict[str, Any] = {"task_metadata": None, "hf_split": "", "hf_subset": "", "encode_kwargs": {}}
    with pytest.raises(RuntimeError, match="before `index`"):
        search.search(tables["text"], top_k=1, **arguments)
    search.index(tables["image"], **arguments)
    with pytest.raises(ValueError, match="both of the kind `image`"):
        search.search(tables["image"], top_k=1, **arguments)
    listed = {query: ["i0003", "i0001"] for query in tables["text"]["id"]}
    found = search.search(tables["text"], top_k=1, top_ranked=listed, **arguments)
    whole = search.search(tables["text"], top_k=len(tables["image"]), **arguments)
    for query, documents in found.items():
        best = max(listed[query], key=lambda document, query=query: whole[query][document])  # type: ignore[misc]
        assert documents == {best: whole[query][best]}


def to_array(image: Any) -> npt.NDArray[np.uint8]:
    return np.asarray(image)


def test_torch_loader_yields_all_pairs(model: Model, dataset: Dataset) -> None:
    torch = pytest.importorskip("torch")
    from laps_zoo.torch import CaptionDataset, Pair

    pairs = CaptionDataset(dataset, transform=to_array)
    assert isinstance(pairs, torch.utils.data.Dataset)
    loader = torch.utils.data.DataLoader(pairs, batch_size=7, num_workers=2, multiprocessing_context="spawn")
    batches = list(loader)
    assert all(isinstance(batch, Pair) for batch in batches)
    assert [caption for batch in batches for caption in batch.caption] == dataset.captions
    indices = torch.cat([batch.image_index for batch in batches])
    assert np.array_equal(indices.numpy(), dataset.image_of)
    # Pillow decodes what the module decodes.
    pixels = batches[0].image[0].numpy()
    assert np.array_equal(model.embed_images([pixels]), model.embed_images([dataset.images[dataset.image_of[0]]]))
