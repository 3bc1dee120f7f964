"""Writes the data set of a folder in the LAPS layout in the other layouts, with PyArrow, datasets and webdataset.

Usage: make.py LAPS_FOLDER OUT_FOLDER [--no-images]

Without images, only the layouts that have them inside of their files are complete: so are the files in the repository.
"""

import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset as wds

KARPATHY = {"train": "train", "dev": "val", "test": "test"}


def read(folder):
    """Split, id, name and captions of each image."""
    names = json.loads((folder / "captions/id_mapping.json").read_text())
    for split in KARPATHY:
        ids = folder / f"captions/{split}_ids.txt"
        if not ids.exists():
            continue
        items = {}
        captions = (folder / f"captions/{split}_caps.txt").read_text().splitlines()
        for id, caption in zip(ids.read_text().split(), captions, strict=True):
            items.setdefault(id, []).append(caption)
        for id, captions in items.items():
            yield split, id, names[id], captions


def link(images, to):
    if "--no-images" not in sys.argv:
        os.symlink(images, to)


def karpathy(items, images, out):
    out.mkdir(parents=True)
    link(images, out / "images")
    data = []
    for split, id, name, captions in items:
        sentences = [{"tokens": c.lower().split(), "raw": c, "imgid": int(id), "sentid": 5 * int(id) + k} for k, c in enumerate(captions)]
        data.append({"sentids": [s["sentid"] for s in sentences], "imgid": int(id), "sentences": sentences, "split": KARPATHY[split], "filename": name})
    (out / "dataset_flickr30k.json").write_text(json.dumps({"images": data, "dataset": "flickr30k"}))


def coco(items, images, out):
    (out / "annotations").mkdir(parents=True)
    link(images, out / "images")
    for split, name in KARPATHY.items():
        chosen = [item for item in items if item[0] == split]
        if chosen:
            annotations = [{"image_id": int(id), "id": 5 * int(id) + k, "caption": c} for _, id, _, captions in chosen for k, c in enumerate(captions)]
            # COCO's annotations are in no useful order.
            annotations.reverse()
            pictures = [{"id": int(id), "file_name": name, "height": 1, "width": 1} for _, id, name, _ in chosen]
            document = {"info": {}, "licenses": [], "images": pictures, "annotations": annotations}
            (out / f"annotations/captions_{name}2014.json").write_text(json.dumps(document))


def table(items, images, with_bytes):
    field = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": (images / name).read_bytes() if with_bytes else None, "path": name} for _, _, name, _ in items]
    return pa.table({
        "image": pa.array(rows, field),
        "caption": pa.array([captions for *_, captions in items], pa.list_(pa.string())),
        "sentids": pa.array([[str(5 * int(id) + k) for k in range(len(captions))] for _, id, _, captions in items]),
        "split": pa.array([KARPATHY[split] for split, *_ in items]),
        "img_id": pa.array([id for _, id, _, _ in items]),
        "filename": pa.array([name for _, _, name, _ in items]),
    })


def parquet(items, images, out, compression, version):
    """Several files, all named `test`, with the split in a column, as the copy of Flickr30K on the hub has them."""
    (out / "data").mkdir(parents=True)
    half = len(items) // 2
    for index, part in enumerate([items[:half], items[half:]]):
        pq.write_table(
            table(part, images, True), out / f"data/TEST-{index:05}-of-00002.parquet",
            compression=compression, row_group_size=3, data_page_version=version,
        )


def parquet_paths(items, images, out):
    out.mkdir(parents=True)
    link(images, out / "images")
    pq.write_table(table(items, images, False), out / "all.parquet")


def parquet_rows(items, images, out):
    """One row per caption, numbers as ids and the split in the name of the file."""
    out.mkdir(parents=True)
    for split, name in KARPATHY.items():
        rows = [(int(id), file, c) for s, id, file, captions in items if s == split for c in captions]
        if rows:
            pq.write_table(pa.table({
                "image": pa.array([(images / file).read_bytes() for _, file, _ in rows]),
                "caption": [c for *_, c in rows],
                "cocoid": pa.array([id for id, *_ in rows], pa.int64()),
                "file_name": [file for _, file, _ in rows],
            }), out / f"{name}-00000-of-00001.parquet")


def parquet_bare(items, images, out):
    """Images and captions without names and ids."""
    out.mkdir(parents=True)
    chosen = [item for item in items if item[0] == "test"]
    pq.write_table(pa.table({
        "image": [(images / name).read_bytes() for _, _, name, _ in chosen],
        "caption": [captions for *_, captions in chosen],
    }), out / "test.parquet")


def hub(items, images, out):
    import datasets

    out.mkdir(parents=True)
    features = datasets.Features({
        "image": datasets.Image(), "caption": [datasets.Value("string")], "split": datasets.Value("string"),
        "img_id": datasets.Value("string"), "filename": datasets.Value("string"),
    })
    data = datasets.Dataset.from_dict({
        "image": [{"bytes": (images / name).read_bytes(), "path": name} for _, _, name, _ in items],
        "caption": [captions for *_, captions in items],
        "split": [KARPATHY[split] for split, *_ in items],
        "img_id": [id for _, id, _, _ in items],
        "filename": [name for _, _, name, _ in items],
    }, features=features)
    data.to_parquet(str(out / "test-00000-of-00001.parquet"))


def kaggle(items, images, out):
    folder = out / "flickr30k_images"
    folder.mkdir(parents=True)
    link(images, folder / "flickr30k_images")
    rows = ["image_name| comment_number| comment"]
    for _, _, name, captions in items:
        rows += [f"{name}| {number}| {caption}" for number, caption in enumerate(captions)]
    # The published file lacks one separator.
    rows[-1] = " ".join(rows[-1].rsplit("| ", 1))
    (folder / "results.csv").write_text("\n".join(rows) + "\n")


def webdataset(items, images, out):
    out.mkdir(parents=True)
    for split, name in KARPATHY.items():
        chosen = [item for item in items if item[0] == split]
        if chosen:
            with wds.TarWriter(str(out / f"{name}-000000.tar"), mtime=0) as writer:
                for _, id, file, captions in chosen:
                    stem, extension = file.split(".", 1)
                    writer.write({
                        "__key__": f"shard/{stem}", extension: (images / file).read_bytes(),
                        "json": {"img_id": int(id), "filename": file, "captions": captions},
                    })


def tar_texts(items, images, out):
    """Long names, in GNU's and in the POSIX format, and captions in text files."""
    out.mkdir(parents=True)
    for split, format in {"train": tarfile.GNU_FORMAT, "dev": tarfile.PAX_FORMAT, "test": tarfile.USTAR_FORMAT}.items():
        chosen = [item for item in items if item[0] == split]
        if not chosen:
            continue
        with tarfile.open(out / f"{KARPATHY[split]}.tar", "w", format=format) as archive:
            for _, _, name, captions in chosen:
                stem, extension = name.split(".", 1)
                key = f"{'x' * (20 if split == 'test' else 120)}/{stem}"
                for ending, content in [(extension, (images / name).read_bytes()), ("txt", "\n".join(captions).encode())]:
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def folder(items, images, out):
    out.mkdir(parents=True)
    for _, _, name, captions in items:
        shutil.copy(images / name, out / name)
        (out / name).with_suffix(".txt").write_text("\n".join(captions) + "\n")


def authors(source, out):
    (out / "data").mkdir(parents=True)
    shutil.copytree(source / "captions", out / "data/f30k")
    shutil.copytree(source / "images", out / "data/flickr30k-images")


def varint(value):
    """A number as Thrift's compact protocol writes it."""
    value, text = 2 * value, bytearray()
    while value > 127:
        text.append(value & 127 | 128)
        value >>= 7
    return bytes(text + bytes([value]))


def hostile(out):
    out.mkdir(parents=True)

    def write(name, rows, **options):
        captions = options.pop("captions", None) or pa.array([["a caption"]] * len(rows), pa.list_(pa.string()))
        ids = [str(row) for row in range(len(rows))]
        names = options.pop("names", [f"{id}.png" for id in ids])
        pq.write_table(pa.table({"image": rows, "caption": captions, "img_id": ids, "filename": names}), out / name, **options)
        return bytearray((out / name).read_bytes())

    # The number of rows in the footer is replaced: 77 by a billion.
    data = write("rows.parquet", [b"x"] * 77)
    size = int.from_bytes(data[-8:-4], "little")
    footer = bytes(data[-8 - size:-8])
    assert footer.count(b"\x16" + varint(77)) >= 2
    footer = footer.replace(b"\x16" + varint(77), b"\x16" + varint(10**9))
    (out / "rows.parquet").write_bytes(data[:-8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    # 600 MB of zeros in one page.
    write("page.parquet", [bytes(600 << 20)], compression="zstd", compression_level=19)
    # A page that is larger than its header says.
    data = write("gzip.parquet", [bytes(5000)] * 3, compression="gzip", use_dictionary=False)
    start = pq.read_metadata(out / "gzip.parquet").row_group(0).column(0).data_page_offset + 2
    # After the type of the page: its size, which is the three values with their lengths, and the definition levels.
    claimed = next(size for size in range(3 * 5004, 3 * 5004 + 32) if data.startswith(b"\x15" + varint(size), start))
    data[start:start + 1 + len(varint(claimed))] = b"\x15" + varint(claimed - 4000)
    (out / "gzip.parquet").write_bytes(data)
    pq.write_table(pa.table({"a": [1]}), out / "schema.parquet")
    write("names.parquet", [b"x"], names=["../x.png"])

    # Values of a dictionary that many others refer to: lists of one caption, and images.
    def lists(sizes, caption):
        return pa.ListArray.from_arrays(pa.array([0, *np.cumsum(sizes)], pa.int32()), pa.repeat(caption, int(sum(sizes))))

    write("captions.parquet", [b"x"], captions=lists([1000], "a" * (512 << 10)), compression="zstd")
    write("values.parquet", [b"x"], captions=lists([8 << 20], "a"), compression="zstd")
    write("batch.parquet", [b"x"] * 64, captions=lists([1] * 20 + [40_000] + [1] * 43, "a"), compression="zstd")
    write("images.parquet", [bytes(512 << 10)] * 1000, compression="zstd")


source, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
items, images = list(read(source)), source / "images"
karpathy(items, images, out / "karpathy")
coco(items, images, out / "coco")
parquet(items, images, out / "parquet_snappy", "snappy", "1.0")
parquet(items, images, out / "parquet_zstd", "zstd", "2.0")
parquet(items, images, out / "parquet_gzip", "gzip", "1.0")
parquet_paths(items, images, out / "parquet_paths")
parquet_rows(items, images, out / "parquet_rows")
parquet_bare(items, images, out / "parquet_bare")
hub(items, images, out / "hub")
kaggle(items, images, out / "kaggle")
webdataset(items, images, out / "webdataset")
tar_texts(items, images, out / "tar_texts")
if "--no-images" not in sys.argv:
    folder(items, images, out / "folder")
    authors(source, out / "authors")
hostile(out / "hostile")
