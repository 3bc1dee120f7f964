"""The module against the installed command, and what only a module can get wrong."""

import _thread
import json
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PROGRAM, command
from PIL import Image

import laps_zoo
from laps_zoo import Dataset, LapsError, Model

IMAGES, CAPTIONS = 10, 10


def test_similarities_of_100_pairs_equal_those_of_the_command(model: Model, dataset: Dataset) -> None:
    images, captions = dataset.images[:IMAGES], dataset.captions[:CAPTIONS]
    arguments = [argument for caption in captions for argument in ("--caption", caption)]
    expected = command("score", *images, *arguments, "--entry", "shapes_vit", "--json", "--quiet")["similarities"]
    found = model.similarities(model.embed_images(images), model.embed_captions(captions))
    assert found.shape == (IMAGES, CAPTIONS)
    assert found.dtype == np.float32
    # JSON has as many digits as the float needs, so equal bits are equal numbers.
    assert np.array_equal(found, np.array(expected, dtype=np.float32))


def test_evaluation_equals_that_of_the_command(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    matrix = model.similarities(model.embed_images(dataset.images), model.embed_captions(dataset.captions))
    np.save(tmp_path / "sims.npy", matrix)
    result = tmp_path / "result.json"
    subprocess.run(
        [PROGRAM, "evaluate", "--sims", tmp_path / "sims.npy", "--protocol", "f30k", "--json", result, "--quiet"],
        check=True,
    )
    expected = json.loads(result.read_text())["evaluations"][0]
    found = laps_zoo.evaluate(matrix, dataset.image_of)
    assert found.rsum == expected["rsum"]
    assert (found.i2t.r1, found.t2i.r10, found.t2i.mean_rank) == (
        expected["i2t"]["r1"],
        expected["t2i"]["r10"],
        expected["t2i"]["mean_rank"],
    )
    assert laps_zoo.evaluate(np.asfortranarray(matrix)).rsum == found.rsum


def test_explanation_equals_that_of_the_command(model: Model, dataset: Dataset) -> None:
    image, caption = dataset.images[0], dataset.captions[0]
    arguments = ["explain", image, "--caption", caption, "--entry", "shapes_vit", "--json", "--quiet"]
    expected = command(*arguments)
    found = model.explain(image, caption)
    assert found.similarity == expected["similarity"]
    assert found.words[0] == "[CLS]"
    assert found.word_patches.shape == (len(found.words), *found.patches.shape)
    # The parts are rounded once each, in double precision.
    assert found.patches.sum() + found.class_token == pytest.approx(found.similarity, abs=1e-12)


def test_kinds_of_images_are_equal(model: Model, dataset: Dataset) -> None:
    path = Path(dataset.images[0])
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"))
        kinds = [path, str(path), path.read_bytes(), opened, pixels, pixels[:, ::-1][:, ::-1]]
        embeddings = [model.embed_images([kind]) for kind in kinds]
    assert all(np.array_equal(embeddings[0], other) for other in embeddings[1:])


def test_index_is_searched(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    index = tmp_path / "photos.index"
    assert model.index(Path(dataset.images[0]).parent, index) >= len(dataset.images)
    found = model.search(index, dataset.captions[0], top=3)
    expected = command("search", index, dataset.captions[0], "--top", "3", "--entry", "shapes_vit", "--json", "--quiet")
    assert len(found) == 3
    assert str(found[0][0]) in str(expected)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda model: Model.load("no_such_entry"), "no_such_entry"),
        (lambda model: Model.load("f30k_vit"), "vocabulary"),
        (lambda model: Model.load("shapes_vit", device="gpu"), "hint: use `auto`, `cpu` or `cuda:N`"),
        (lambda model: model.embed_images(["absent.png"]), "absent.png"),
        (lambda model: model.embed_images([b"no image"]), "(in memory)"),
        (lambda model: laps_zoo.evaluate(np.zeros((2, 4), np.float32), np.array([0, 1, 2, -1])), "image"),
        (lambda model: laps_zoo.evaluate(np.zeros((2, 4), np.float32), protocol="top"), "top"),
    ],
)
def test_errors_are_exceptions(model: Model, call, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LapsError) as error:
        call(model)
    assert text in str(error.value)


def test_error_has_the_text_of_the_command() -> None:
    arguments = ["score", "photo.png", "--caption", "a", "--entry", "no_such_entry"]
    printed = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True).stderr
    with pytest.raises(LapsError) as error:
        Model.load("no_such_entry")
    assert printed == f"error: {error.value}"


def test_long_captions_are_refused_or_truncated_and_counted(model: Model) -> None:
    captions = ["circle " * 80, "a circle"]
    with pytest.raises(LapsError, match="caption 1: too long: 82 tokens, where 64 are allowed"):
        model.embed_captions(captions)
    assert model.truncated_captions == 0
    truncating = Model.load("shapes_vit", truncate=True)
    assert truncating.embed_captions(captions)[0].shape[0] == 64
    assert truncating.truncated_captions == 1


def test_other_objects_are_type_errors(model: Model) -> None:
    with pytest.raises(TypeError, match="expected: a path"):
        model.embed_images([3])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        model.embed_images("photo.png")


def test_memory_does_not_grow_over_10_000_calls(model: Model, dataset: Dataset) -> None:
    images = model.embed_images(dataset.images[:1])
    words = model.embed_captions(dataset.captions[:1])

    def calls(count: int) -> int:
        for _ in range(count):
            model.similarities(images, words)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    first, last = calls(1_000), calls(10_000)
    # A call that kept its 15 kB of embeddings would add 150 MB; allocators settle within 4 MB.
    assert last - first < 4_096, f"{last - first} kB"


def test_two_threads_use_one_model_at_once(model: Model, dataset: Dataset) -> None:
    expected = [model.score(image, dataset.captions[:4]) for image in dataset.images[:8]]
    results: dict[int, list[bool]] = {}

    def score(thread: int) -> None:
        found = [model.score(image, dataset.captions[:4]) for image in dataset.images[:8]]
        results[thread] = [np.array_equal(*pair) for pair in zip(expected, found, strict=True)]

    threads = [threading.Thread(target=score, args=[index]) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: [True] * 8, 1: [True] * 8}


def test_interpreter_runs_during_a_call(model: Model, dataset: Dataset) -> None:
    done = threading.Event()
    counts = [0]

    def count() -> None:
        while not done.is_set():
            counts[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    before = counts[0]
    model.embed_images(dataset.images)
    after = counts[0]
    done.set()
    thread.join()
    # A call that held the interpreter would let the other thread run at its two ends at most.
    assert after - before > 2


def test_keyboard_interrupt_ends_a_call(model: Model, dataset: Dataset) -> None:
    many = list(dataset.images) * 1_000
    # A background job of a shell ignores SIGINT, and Python then has no handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The call prepares its arguments first; it takes minutes in all, so that it is in progress at any later time.
    timer = threading.Timer(1.0, _thread.interrupt_main)
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        while True:
            model.embed_images(many)
    timer.join()
    # Two batches on a slow machine.
    assert time.monotonic() - start < 30
    assert model.score(dataset.images[0], ["a red circle"]).shape == (1,), "the model is usable after it"
