#!/usr/bin/env python3
"""Writes `corpus.zip`: small checkpoints of every kind, and what torch reads from each.

    python3 corpus.py              needs torch 2.13 and numpy; the file is written next to this script

Each case is a file, written by `torch.save` or by repacking what it wrote, and an entry of `expected.json`:

    loaded_by   `weights_only`, or `safe_globals` (weights_only with the names that the authors' files need), or
                `pickle` (torch.load without weights_only), or `original` (torch refuses the file; the values are those of
                the object that was saved)
    torch       why `torch.load(weights_only=True)` refuses the file, if it does
    tensors     by name: dtype, shape, and SHA-256 of the row-major little-endian bytes
    skipped     names of the entries of the state dict that are not strided tensors
    outside     number of tensors outside the state dict
    refused     a text that the error has, for a file that is not read
"""

import argparse
import collections
import hashlib
import io
import json
import pathlib
import pickle
import re
import struct
import sys
import warnings
import zipfile

import numpy as np
import torch

STATE_DICTS = ("model", "state_dict", "model_state_dict")
SAFE = [argparse.Namespace, np.dtype, np.ndarray, frozenset, bytes, np._core.multiarray.scalar,
        np._core.multiarray._reconstruct, (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
        *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdgFDGSUVMmO"}]
FILES, EXPECTED = {}, []


def contiguous(tensor):
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def is_plain(value):
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized \
        and not value.is_meta and not value.is_nested and value.dtype != torch.float4_e2m1fn_x2


def state_dict(loaded):
    has_tensors = lambda value: isinstance(value, dict) and any(is_plain(item) for item in value.values())
    return next((loaded[key] for key in STATE_DICTS if has_tensors(loaded.get(key))), loaded)


def outside(value, state):
    if value is state:
        return 0
    if is_plain(value):
        return 1
    inner = vars(value) if isinstance(value, argparse.Namespace) else value
    items = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, (list, tuple)) else ()
    return sum(outside(item, state) for item in items)


def reason_of(error):
    lines = str(error).splitlines()
    line = next((line for line in lines if "WeightsUnpickler error" in line), lines[0])
    return line.split("error: ", 1)[-1].strip()[:120]


def load(data):
    """Returns the loaded object, how it was loaded, and why torch refuses it by default."""
    reason = None
    for way, context in [("weights_only", []), ("safe_globals", SAFE)]:
        try:
            with torch.serialization.safe_globals(context):
                return torch.load(io.BytesIO(data), weights_only=True), way, reason
        except Exception as error:
            reason = reason or reason_of(error)
    try:
        return torch.load(io.BytesIO(data), weights_only=False), "pickle", reason
    except Exception:
        return None, "original", reason


def add(name, data, refused=None, original=None):
    assert name not in FILES, name
    FILES[name] = data
    case = {"name": name}
    if refused is not None:
        try:
            torch.load(io.BytesIO(data), weights_only=True)
        except Exception as error:
            case["torch"] = reason_of(error)
        case["refused"] = refused
    else:
        loaded, case["loaded_by"], reason = load(data)
        if reason:
            case["torch"] = reason
        if case["loaded_by"] == "original":
            assert original is not None, (name, reason)
            loaded = original
        state = state_dict(loaded)
        case["tensors"] = {
            key: {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape),
                  "sha256": hashlib.sha256(contiguous(value)).hexdigest()}
            for key, value in state.items() if isinstance(key, str) and is_plain(value)
        }
        case["skipped"] = sorted(key if isinstance(key, str) else type(key).__name__ for key, value in state.items()
                                 if not isinstance(key, str) or not is_plain(value))
        case["outside"] = outside(loaded, state)
        if "opt" in loaded and state is not loaded:
            case["options"] = len(vars(loaded["opt"]) if isinstance(loaded["opt"], argparse.Namespace) else loaded["opt"])
    EXPECTED.append(case)


def saved(value, legacy=False, protocol=2):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    return file.getvalue()


def both(name, value, **more):
    add(name, saved(value), **more)
    # torch writes legacy files with untyped storages and does not read them.
    add(f"{name}-legacy", saved(value, legacy=True), original=value, **more)


def repacked(data, method=zipfile.ZIP_STORED, prefix=None, edit=lambda name, data: data, extra=(), folders=False,
             force_zip64=False, comment=b""):
    """The entries of an archive in a new one, as `zip -r` or a file manager makes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", method) as new:
        for name, content in extra:
            new.writestr(zipfile.ZipInfo(name), content)
        if folders:
            for folder in sorted({name.rsplit("/", count)[0] + "/" for name in old.namelist()
                                  for count in range(1, name.count("/") + 1)}):
                new.writestr(zipfile.ZipInfo(folder), b"")
        for name in old.namelist():
            path = name if prefix is None else prefix + name.split("/", 1)[1]
            content = edit(name.split("/", 1)[1], old.read(name))
            if content is not None:
                with new.open(zipfile.ZipInfo(path), "w", force_zip64=force_zip64) as entry:
                    entry._compress_type = method
                    entry.write(content)
        new.comment = comment
    return file.getvalue()


def deflated(data, prefix=None, **more):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(repacked(data, prefix=prefix, **more))) as old, \
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, old.read(name))
    return file.getvalue()


class Global:
    """Pickles as a name of a module that need not exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    def __init__(self, module, name, arguments):
        self.function, self.arguments = Global(module, name), arguments


class Pickler(pickle._Pickler):
    """The pure-Python pickler, with names of other modules."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(b"R")
        else:
            super().save(value, save_persistent_id)


def with_pickle(data, change):
    """`data` with another pickle."""
    return repacked(data, edit=lambda name, content: change(content) if name == "data.pkl" else content)


def written(value):
    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


def main():
    warnings.simplefilter("ignore")
    torch.manual_seed(7)
    ramp = torch.arange(24, dtype=torch.float32)
    small = {"weight": ramp.reshape(4, 6).clone(), "bias": torch.tensor([1.5, -2.0])}

    # Containers and state dicts.
    both("flat", small)
    both("ordered", collections.OrderedDict(small))
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.LayerNorm(2))
    both("module-with-buffers", {"model": module.state_dict()})
    for key in STATE_DICTS:
        both(f"under-{key}", {"epoch": 3, key: small, "best_rsum": 501.25, "Eiters": 29000})
    both("empty-model-beside-state-dict", {"model": {"name": "laps"}, "state_dict": small})
    for protocol in (3, 4, 5):
        plain = {"model": small, "opt": {"a": {1, 2}, "b": b"bytes", "c": (1,)}}
        add(f"protocol-{protocol}", saved(plain, protocol=protocol))
        add(f"protocol-{protocol}-legacy", saved({"model": collections.OrderedDict(small)}, legacy=True, protocol=protocol))

    # Element types.
    types = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16",
             "uint8", "bool", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
             "float8_e5m2fnuz", "float8_e8m0fnu"]
    for kind in types:
        dtype = getattr(torch, kind)
        size = torch.empty(0, dtype=dtype).element_size()
        if kind == "bool":
            values = torch.tensor([True, False, True, True, False, False])
        elif dtype.is_complex:
            values = (ramp[:6] + 1j * ramp[6:12]).to(dtype)
        elif "int" in kind or "8_" in kind:
            values = torch.tensor(list(range(200, 200 + 6 * size)), dtype=torch.uint8).view(dtype)
        else:
            values = (ramp[:6] - 2.75).to(dtype)
        both(f"dtype-{kind}", {"state_dict": {"weight": values.reshape(2, 3), "row": values.reshape(2, 3).t()[1], "w": ramp[:2]}})

    # Views.
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    both("transposed", {"weight": base[0].t(), "b": base.permute(2, 0, 1)})
    both("expanded", {"weight": torch.tensor([1.0, 2.0]).expand(3, 2), "scalar": torch.tensor(7.0).expand(2, 2, 2),
                      "middle": torch.ones(2, 1, 3).expand(2, 4, 3)})
    both("sliced", {"weight": base[1:, ::2, 1:4], "step": base.reshape(-1)[3::7], "last": base[-1, -1, -1:]})
    both("shared-storage", {"weight": base, "first": base[0], "same": base, "row": base[2, 1]})
    both("zero-size", {"weight": torch.empty(0), "b": torch.empty(3, 0, 2), "c": base[1:1], "d": torch.ones(1)})
    both("scalars", {"weight": torch.tensor(1.25), "steps": torch.tensor(5), "of-view": base[1, 2, 3]})
    both("overlapping", {"weight": torch.as_strided(base, (4, 3), (1, 1)), "b": torch.as_strided(base, (2, 2), (0, 5), 7)})
    both("channels-last", {"weight": torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last)})
    both("conjugate", {"weight": torch.view_as_complex(base[:, :, :2].contiguous()).conj(), "plain": base,
                       "negative": torch.view_as_complex(base[:, :, :2].contiguous()).conj().imag})
    both("viewed-dtype", {"weight": base.clone().view(torch.int32), "half": ramp.clone()[:4].view(torch.bfloat16)})

    # Parameters and attributes.
    parameter = lambda: torch.nn.Parameter(base[0].clone())
    attributed, tensor = parameter(), base[0].clone()
    attributed.is_frozen, attributed.scale = True, (1, 2.5)
    tensor.note = "kept"
    both("parameter", {"weight": parameter(), "frozen": torch.nn.Parameter(base[1], requires_grad=False)})
    both("parameter-with-attributes", {"weight": attributed, "b": base})
    both("tensor-with-attributes", {"weight": tensor, "b": base})
    stateful = parameter()
    stateful.state = collections.OrderedDict(a=1, b=collections.OrderedDict(c=torch.ones(2)))
    both("parameter-with-ordered-state", {"weight": stateful})
    integers = torch.nn.Parameter(torch.arange(4).to(torch.uint16), requires_grad=False)
    both("parameter-of-uint16", {"weight": integers, "b": base})

    # Values beside the weights.
    both("counter", {"model": small, "words": collections.Counter("laps")})
    both("plain-values", {"model": small, "set": {1, 2}, "nested": [[1, (2, [3])], {"a": {"b": None}}], "complex": 1 + 2j,
                          "bytes": bytearray(b"\x00\xff"), "long": 1 << 200, "negative": -(1 << 70), "size": torch.Size([2, 3]),
                          "dtype": torch.float16, "device": torch.device("cuda", 1), "cpu": torch.device("cpu"),
                          "nan": float("nan"), "text": "\u00e9\U0001f600", "layout": torch.strided})
    scalars = [np.float64(1.5), np.float32(2.5), np.float16(3.5), np.longdouble(4.5), np.int8(-1), np.int16(-2), np.int32(-3),
               np.int64(-4), np.uint8(1), np.uint16(2), np.uint32(3), np.uint64(4), np.bool_(True), np.complex64(1 + 2j),
               np.complex128(3 + 4j), np.str_("text"), np.bytes_(b"bytes"), np.datetime64("2024-06-17"),
               np.timedelta64(5, "D"), np.void(b"void")]
    for scalar in scalars:
        add(f"numpy-{type(scalar).__name__}", saved({"model": small, "best_rsum": scalar, "opt": {"value": scalar}}))
    add("numpy-legacy", saved({"model": small, "all": scalars}, legacy=True))
    add("numpy-protocol-4", saved({"model": small, "all": scalars}, protocol=4))
    add("numpy-big-endian", saved({"model": small, "best_rsum": np.dtype(">f8").type(1.5), "all": np.arange(3, dtype=">i4")}))
    arrays = {"plain": np.arange(6.0).reshape(2, 3), "fortran": np.asfortranarray(np.ones((2, 2))), "text": np.array(["a", "bc"]),
              "record": np.zeros(2, dtype=[("a", "i4"), ("b", "f8")])}
    both("numpy-arrays", {"model": small, "arrays": arrays})
    add("numpy-arrays-protocol-5", saved({"model": small, "arrays": {"plain": arrays["plain"]}}, protocol=5))
    options = argparse.Namespace(data_path="data/", img_res=224, sparse_ratio=0.5, lr_schedules=[9, 15], flag=True, none=None,
                                 text="224", path="/data/\udcb2/photos")
    both("namespace", {"epoch": 13, "model": small, "best_rsum": 507.3, "opt": options, "Eiters": 29000})
    add("surrogate-path-protocol-4", saved({"model": small, "opt": {"path": "/data/\udcb2"}}, protocol=4))

    # Training states.
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [9, 15])
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}
    both("training-state", {"model": layer.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler,
                            "scheduler": dict(scheduler.state_dict()), "epoch": 1})
    both("rng-states", {"model": small, "rng": torch.get_rng_state(), "list": [torch.ones(1), (torch.ones(2),)]})

    # Entries of the state dict that are not weights.
    sparse = torch.eye(3).to_sparse()
    both("sparse", {"weight": base, "coo": sparse, "csr": torch.eye(3).to_sparse_csr()})
    quantized = torch.quantize_per_tensor(ramp, 0.1, 3, torch.quint8)
    channels = torch.quantize_per_channel(ramp.reshape(2, 12), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8)
    both("quantized", {"weight": base, "tensor": quantized, "channels": channels})
    both("not-tensors", {"state_dict": {"weight": base, "_extra_state": None, "head._extra_state": b"bytes", "n": 4, "l": [1]}})
    both("integer-key", {"state_dict": {"weight": base, 7: 1.0}})
    add("meta", saved({"weight": base, "m": torch.empty(3, device="meta")}))
    add("extra-state-tensors", saved({"state_dict": {"weight": base, "_extra_state": {"a": torch.ones(2)}}}))
    add("float4", saved({"weight": base, "b": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}))

    # Archives that another program packed.
    plain = {"epoch": 2, "model": {"weight": base, "b": torch.zeros(5000), "flag": torch.tensor([True, False])}}
    data = saved(plain)

    def pack(name, data):
        add(name, data, original=plain)

    pack("repacked-stored", repacked(data))
    pack("repacked-deflated", deflated(data))
    pack("repacked-other-folder", repacked(data, prefix="laps vit \u00e9/"))
    pack("repacked-without-folder", repacked(data, prefix=""))
    pack("repacked-deflated-without-folder", deflated(data, prefix=""))
    pack("repacked-in-two-folders", repacked(data, prefix="a/b/"))
    pack("repacked-with-folder-entries", repacked(data, folders=True))
    mac = io.BytesIO(data)
    with zipfile.ZipFile(mac, "a") as archive:
        archive.writestr("__MACOSX/archive/._data.pkl", b"resource fork")
        archive.writestr(".DS_Store", b"store")
    pack("mac-resource-forks", mac.getvalue())
    pack("zip64", repacked(data, force_zip64=True))
    pack("zip-comment", repacked(data, comment=b"laps " * 2000))
    pack("trailing-bytes", data + b"\0" * 512)
    second = io.BytesIO(data)
    with zipfile.ZipFile(second, "a") as archive:
        archive.writestr("copy/data.pkl", b"N.")
    pack("second-pickle", second.getvalue())
    pack("without-byteorder", repacked(data, edit=lambda name, content: None if name == "byteorder" else content))
    pack("without-serialization-id", repacked(data, edit=lambda name, content: None if name.startswith(".") else content))
    with_crc = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    pack("without-checksums", saved(plain))
    torch.serialization.set_crc32_options(with_crc)
    for stem in (1, 8, 20, 21, 22, 23, 40, 80):
        pack(f"stem-of-{stem}", repacked(data, prefix="s" * stem + "/"))

    # Big-endian files, as a machine of that order writes them.
    wide = {"weight": base, "double": base[0].double(), "half": base[0].half(), "brain": base[0].bfloat16(), "long": torch.arange(4),
            "short": torch.arange(4, dtype=torch.int16), "byte": torch.arange(4, dtype=torch.uint8), "flag": torch.tensor([True]),
            "complex": torch.view_as_complex(base[:, :, :2].contiguous()), "strided": base[1].t()}
    order = lambda value: lambda name, content: value if name == "byteorder" else content
    add("byteorder-big", repacked(saved(wide), edit=order(b"big")))
    add("byteorder-little", repacked(saved(wide), edit=order(b"little")))
    add("byteorder-big-untyped", repacked(saved({"weight": integers.data, "b": ramp[:3]}), edit=order(b"big")))
    add("byteorder-unknown", repacked(data, edit=order(b"middle")), refused="a byte order `middle`")

    # Pickles of other versions of Python and torch.
    def of_python_2(content):
        return re.sub(rb"X(.)\0\0\0", lambda match: b"U" + match[1], content, flags=re.S)
    add("python-2-texts", with_pickle(saved({"model": small}), of_python_2))
    tensors = saved({"weight": ramp})
    v1 = lambda content: content.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor").replace(b"\x89ccollections\nOrderedDict\nq\x0a)Rq\x0bt", b"t")
    add("rebuild-tensor-v1", with_pickle(tensors, v1))

    # Files that are refused, and why.
    class Custom:
        pass
    Custom.__module__, Custom.__qualname__ = "lib.vse", "VSEModel"
    names = [
        ("defaultdict", collections.defaultdict(list), "collections.defaultdict"),
        ("path", pathlib.PurePosixPath("/data"), "pathlib.PurePosixPath"),
        ("deque", collections.deque([1]), "collections.deque"),
        ("function", print, "print"),
        ("range", range(3), "xrange"),
        ("torch-module", torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        ("generator", torch.nn.functional.relu, "torch.nn.functional.relu"),
    ]
    for name, value, reason in names:
        both(f"refused-{name}", {"model": small, "value": value}, refused=reason)
    for module, function in [("os", "system"), ("builtins", "eval"), ("posix", "system"), ("subprocess", "Popen"), ("torch", "load"),
                             ("torch.serialization", "load"), ("lib.vse", "VSEModel"), ("pathlib._local", "PosixPath"),
                             ("torch.hub", "load"), ("numpy", "load"), ("builtins", "getattr")]:
        content = written({"model": {}, "value": Call(module, function, ("id",))})
        add(f"refused-{module}-{function}", with_pickle(data, lambda _: content), refused=f"{module}.{function}")
    both("refused-list", [base], refused="a torch file of the type list")
    both("refused-tensor", base, refused="a torch file of the type torch.Tensor")
    both("refused-no-tensors", {"epoch": 1, "opt": {"a": 1}}, refused="without a state dict, with the keys [\"epoch\", \"opt\"]")
    both("refused-only-sparse", {"weight": sparse}, refused="without a state dict")
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    add("refused-torchscript", script.getvalue(), refused="a TorchScript archive")
    drive = io.BytesIO()
    with zipfile.ZipFile(drive, "w") as archive:
        archive.writestr("LAPS/f30k_vit/model_best.pth", data)
        archive.writestr("LAPS/readme.txt", "read me")
    add("refused-drive-folder", drive.getvalue(), refused="a zip archive with the file `LAPS/f30k_vit/model_best.pth` in it")
    add("refused-cut", data[:-40], refused="zip archive")
    add("refused-cut-legacy", saved(plain, legacy=True)[:-5], refused="beyond the end of the file")
    add("refused-bare-pickle", pickle.dumps({"a": 1}), refused="a pickle without tensors")

    # One date, so that the same torch writes the same file.
    path = pathlib.Path(__file__).with_name("corpus.zip")
    FILES["expected.json"] = (json.dumps({"torch": torch.__version__, "numpy": np.__version__, "cases": EXPECTED}, indent=1)).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in FILES.items():
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    read = [case for case in EXPECTED if "tensors" in case]
    loaders = collections.Counter(case["loaded_by"] for case in read)
    print(f"{len(EXPECTED)} cases: {len(read)} read {dict(loaders)}, {len(EXPECTED) - len(read)} refused; {path.stat().st_size} bytes")
    for case in EXPECTED:
        if case.get("loaded_by") not in ("weights_only", "safe_globals") and "-v" in sys.argv:
            print(case["name"], case.get("loaded_by"), case.get("torch"))


main()
