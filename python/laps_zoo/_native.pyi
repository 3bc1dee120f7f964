from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeAlias, final

import numpy as np
import numpy.typing as npt

VERSION: str

class PilImage(Protocol):
    """An image of Pillow."""

    @property
    def size(self) -> tuple[int, int]: ...
    def convert(self, mode: Any, /) -> Any: ...
    def tobytes(self) -> bytes: ...

_Path: TypeAlias = str | PathLike[str]
# A path, the bytes of an image file, an image of Pillow, or an array (height, width, 3).
_Image: TypeAlias = _Path | bytes | PilImage | npt.NDArray[np.uint8]

class LapsError(Exception):
    """An error of laps-zoo, with the text of the command and its hint."""

@final
class Model:
    """A model with its tokenizer and its exact similarity engine.

    Calls release the interpreter. Calls of several threads to one model run one after another.
    """

    @property
    def entry(self) -> str:
        """Name of the entry."""
    @property
    def engine(self) -> str:
        """Engine, version, device and threads."""
    @property
    def checkpoint_sha256(self) -> str:
        """SHA-256 of the checkpoint."""
    @property
    def truncated_captions(self) -> int:
        """Number of captions that were truncated so far."""
    @staticmethod
    def load(
        name_or_path: _Path,
        checkpoint: _Path | None = None,
        device: str = "auto",
        *,
        engine: str = "auto",
        vocabulary: _Path | None = None,
        threads: int | None = None,
        truncate: bool = False,
    ) -> Model:
        """Opens a built-in entry by name, or an entry file by path.

        Captions that are longer than the text encoder has positions are an error, or truncated and counted.
        """
    def embed_images(self, images: Sequence[_Image]) -> npt.NDArray[np.float32]:
        """Patch embeddings (images, tokens, width); of a head that pools, one vector each (images, 1, width)."""
    def embed_captions(self, captions: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """Word embeddings (words, width) of each caption; of a head that pools, its vector (1, width)."""
    def similarities(
        self, images: npt.NDArray[np.float32], captions: Sequence[npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """Similarities (images, captions) of embeddings."""
    def score(self, image: _Image, captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """Similarities of one image with captions."""
    def explain(self, image: _Image, caption: str) -> Explanation:
        """Splits the similarity of an image and a caption into contributions."""
    def index(self, folder: _Path, index: _Path) -> int:
        """Writes or updates the index file of the images in a folder; returns the number of images in it."""
    def search(self, index: _Path, caption: str, top: int = 10) -> list[tuple[str, float]]:
        """The best images of an index for a caption: name and similarity of each."""

@final
class Explanation:
    """The similarity of an image and a caption, split into contributions."""

    @property
    def similarity(self) -> float:
        """The similarity, from -0.2 to 2."""
    @property
    def class_token(self) -> float:
        """Contribution of the class token to the similarity."""
    @property
    def words(self) -> list[str]:
        """Word pieces of the caption."""
    @property
    def patches(self) -> npt.NDArray[np.float64]:
        """Contribution of each patch to the similarity, (rows, columns)."""
    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Whether the caption keeps each patch, (rows, columns)."""
    @property
    def word_similarities(self) -> npt.NDArray[np.float64]:
        """Similarity of each word with the token of the image that it matches."""
    @property
    def word_patches(self) -> npt.NDArray[np.float64]:
        """Contribution of each patch to the match of each word, (words, rows, columns)."""

@final
class Recall:
    """Metrics of one direction of retrieval."""

    @property
    def r1(self) -> float: ...
    @property
    def r5(self) -> float: ...
    @property
    def r10(self) -> float: ...
    @property
    def median_rank(self) -> float: ...
    @property
    def mean_rank(self) -> float: ...

@final
class Evaluation:
    """Metrics of a similarity matrix."""

    @property
    def i2t(self) -> Recall:
        """Captions for an image."""
    @property
    def t2i(self) -> Recall:
        """Images for a caption."""
    @property
    def rsum(self) -> float:
        """Sum of the six recalls."""
    @property
    def protocol(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def captions(self) -> int: ...

@final
class Dataset:
    """The captions of a split and its images."""

    @property
    def images(self) -> list[Path]:
        """Path of each image."""
    @property
    def captions(self) -> list[str]: ...
    @property
    def image_of(self) -> npt.NDArray[np.int64]:
        """Index of the image of each caption."""
    @property
    def split(self) -> str: ...

def evaluate(
    matrix: npt.NDArray[np.float32], image_of: npt.NDArray[np.int64] | None = None, protocol: str = "f30k"
) -> Evaluation:
    """Metrics of a similarity matrix (images, captions).

    `image_of` is the image of each caption; without it each image has the same number of consecutive captions.
    """

def read_dataset(entry: str, data: _Path | None = None, split: str | None = None) -> Dataset:
    """Reads a split of the data of an entry.

    Scenes of an entry that draws them are drawn into the cache without `data`.
    """

def add_library_folder(folder: _Path) -> None:
    """Adds the folder of ONNX Runtime in the Python environment to its search."""
