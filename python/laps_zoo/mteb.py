"""Evaluation of a model with mteb: `pip install mteb`.

>>> import laps_zoo.mteb, mteb  # doctest: +SKIP
>>> model = laps_zoo.mteb.SearchModel(laps_zoo.Model.load("f30k_vit", "f30k_vit.safetensors"))  # doctest: +SKIP
>>> mteb.evaluate(model, tasks=mteb.get_tasks(tasks=["Flickr30kT2IRetrieval"]))  # doctest: +SKIP
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from . import Model

_Embeddings: TypeAlias = list[npt.NDArray[np.float32]]
# Queries whose similarities with all documents are in memory at once.
_QUERIES = 256


class _Rows(Protocol):
    """A `datasets.Dataset` of documents or queries."""

    @property
    def column_names(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> Mapping[str, list[Any]]: ...


class SearchModel:
    """A model as mteb's `SearchProtocol`, for tasks from captions to images and from images to captions.

    Similarities are those of `Model.similarities`, of all patches with all words. They are computed for all pairs, also
    where a task asks for the ranks of a few documents. The embeddings of all documents are in memory: about 400 kB for an
    image of a ViT with 224 pixels.
    """

    def __init__(self, model: Model, *, batch_size: int = 64) -> None:
        self.model = model
        self.batch_size = batch_size
        self._documents: tuple[list[str], str, _Embeddings] | None = None

    @property
    def mteb_model_meta(self) -> Any:
        """The entry as name, and the SHA-256 of the checkpoint as revision."""
        from mteb.models.model_meta import ModelMeta

        overwrites = {
            "name": f"laps-zoo/{self.model.entry}",
            "revision": self.model.checkpoint_sha256,
            "modalities": ["image", "text"],
        }
        return ModelMeta.create_empty(overwrites)

    def index(
        self,
        corpus: _Rows,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Any,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Embeds the documents."""
        self._documents = self._embed(corpus)

    def search(
        self,
        queries: _Rows,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Any,
        top_ranked: Mapping[str, list[str]] | None = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """The best documents of each query and their similarities; of `top_ranked` only those listed there."""
        if self._documents is None:
            raise RuntimeError("`search` was called before `index`")
        ids, kind, documents = self._documents
        query_ids, query_kind, embeddings = self._embed(queries)
        if kind == query_kind:
            raise ValueError(
                f"queries and documents of the task are both of the kind `{kind}`\n"
                "  expected: captions as queries of images, or images as queries of captions"
            )
        places = {document: place for place, document in enumerate(ids)}
        found = {}
        for query, scores in zip(query_ids, self._scores(embeddings, documents, kind), strict=True):
            chosen = np.arange(len(ids))
            if top_ranked is not None:
                chosen = np.array([places[document] for document in top_ranked[query]], dtype=np.intp)
            best = chosen[np.argsort(-scores[chosen], kind="stable")[:top_k]]
            found[query] = {ids[place]: float(scores[place]) for place in best}
        return found

    def _scores(self, queries: _Embeddings, documents: _Embeddings, kind: str) -> Iterator[npt.NDArray[np.float32]]:
        """Similarities of each query with all documents, which are of the kind `kind`."""
        images = np.stack(documents) if kind == "image" else None
        for start in range(0, len(queries), _QUERIES):
            block = queries[start : start + _QUERIES]
            if images is not None:
                yield from self.model.similarities(images, block).T
            else:
                yield from self.model.similarities(np.stack(block), documents)

    def _embed(self, rows: _Rows) -> tuple[list[str], str, _Embeddings]:
        """Ids, kind (`image` or `text`) and embeddings of documents or queries."""
        kinds = [kind for kind in ("image", "text") if kind in rows.column_names]
        if len(kinds) != 1:
            raise ValueError(
                "documents or queries of the task cannot be embedded\n"
                "  expected: one of the columns `image` and `text`\n"
                f"  found: {', '.join(rows.column_names)}"
            )
        ids: list[str] = []
        embeddings: _Embeddings = []
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            ids.extend(str(name) for name in batch["id"])
            embeddings.extend(self._embed_batch(kinds[0], batch[kinds[0]]))
        return ids, kinds[0], embeddings

    def _embed_batch(self, kind: str, values: Sequence[Any]) -> Sequence[npt.NDArray[np.float32]]:
        if kind == "text":
            return self.model.embed_captions(values)
        # Without decoding, a column of images has the bytes or the path of each file.
        images = [value["bytes"] or value["path"] if isinstance(value, dict) else value for value in values]
        return list(self.model.embed_images(images))
