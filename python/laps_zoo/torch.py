"""Pairs of a split as a data set of PyTorch: `pip install torch pillow`.

>>> import laps_zoo.torch  # doctest: +SKIP
>>> pairs = laps_zoo.torch.CaptionDataset(laps_zoo.read_dataset("shapes_vit"))  # doctest: +SKIP
>>> image, caption, image_index = pairs[0]  # doctest: +SKIP
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset as TorchDataset

from . import Dataset


class Pair(NamedTuple):
    """An image with one of its captions."""

    image: Any
    """The image of Pillow in RGB, or what the transform makes of it."""
    caption: str
    image_index: int
    """Index of the image in the split: captions with the same one belong together."""


def open_image(path: Path) -> Any:
    """Opens an image as an RGB image of Pillow."""
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


class CaptionDataset(TorchDataset[Pair]):
    """The captions of a split, each with its image.

    `transform` maps the image, for example to a tensor that a `DataLoader` can stack. `load` opens an image file. Both
    run in the workers of the loader.
    """

    def __init__(
        self,
        data: Dataset,
        transform: Callable[[Any], Any] | None = None,
        load: Callable[[Path], Any] = open_image,
    ) -> None:
        self.images = data.images
        self.captions = data.captions
        self.image_of = [int(image) for image in data.image_of]
        self.transform = transform
        self.load = load

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> Pair:
        image_index = self.image_of[index]
        image = self.load(self.images[image_index])
        if self.transform is not None:
            image = self.transform(image)
        return Pair(image, self.captions[index], image_index)
