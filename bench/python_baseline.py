#!/usr/bin/env python3
"""Compares the graphs of `laps-zoo export` with PyTorch, torch.onnx and onnxruntime.quantization.

    bench/python_baseline.py setup DIR                      a virtual environment with pinned versions (about 5 GB)
    DIR/venv/bin/python bench/python_baseline.py prepare DIR --laps-zoo target/release/laps-zoo
    DIR/venv/bin/python bench/python_baseline.py time DIR vit     or `swin`, `bert`
    DIR/venv/bin/python bench/python_baseline.py table DIR
    DIR/venv/bin/python bench/python_baseline.py eager DIR vit --device cuda:0 --batch 64     torch only, on a GPU; also
                                                                                  `swin`, `bert` and `similarities`

All candidates run in one process on one machine. `prepare` creates ViT-B/16, Swin-B and BERT-base from transformers
with random weights and a projection each, exports them with torch.onnx, quantises the result with onnxruntime.quantization,
and writes the same weights as a checkpoint for `laps-zoo export`. `time` runs the candidates interleaved in rounds and
reports medians. It fails if an output differs from torch. Our sessions are configured as in laps-zoo; `--fused` also
measures ONNX Runtime's default configuration. The weights are random, so this measures speed only, not recall.

`eager` needs only torch and transformers, in any version, and prints the versions; `--compile` measures torch.compile too. As
in `laps-zoo bench`, a step starts with inputs in CPU memory and ends with outputs in CPU memory; products do not use TF32.
`similarities` compares one caption after another with a shard of images of ViT-B/16, in the order of the authors' evaluation;
`--golden` checks it against golden tensors of their code first.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
import venv

PACKAGES = [
    "torch==2.13.0",
    "transformers==4.57.6",
    "onnx==1.23.2",
    "onnxscript==0.7.2",
    "onnxruntime==1.32.0",
    "numpy==2.4.6",
    "safetensors==0.8.0",
]
MODELS = ["vit", "swin", "bert"]
EMBED_SIZE = 512
# Name, flavour, precision.
OURS = [
    ("ours, portable", "portable", "fp32"),
    ("ours, ort", "ort", "fp32"),
    ("ours, portable, int8", "portable", "int8"),
    ("ours, ort, int8", "ort", "int8"),
]
# Session configuration of laps-zoo on a CPU.
ENTRIES = [("optimization.disable_specified_optimizers", "SkipLayerNormFusion;BiasGeluFusion")]
# Largest difference from torch's output in fp32 (another summation order), and smallest cosine in int8.
TOLERANCE, COSINE = 1e-3, 0.97
# Of similarities from the golden tensors: f32 sums in another order.
SIMILARITY_TOLERANCE = 1e-5


def setup(folder):
    folder.mkdir(parents=True, exist_ok=True)
    venv.create(folder / "venv", with_pip=True)
    subprocess.run([folder / "venv/bin/pip", "install", "--quiet", *PACKAGES], check=True)


def encoder(name):
    """Returns the encoder with its projection."""
    import torch
    import transformers

    class Projected(torch.nn.Module):
        def __init__(self, inner, width):
            super().__init__()
            self.inner = inner
            self.projection = torch.nn.Linear(width, EMBED_SIZE)

        def forward(self, *inputs):
            if len(inputs) == 2:
                hidden = self.inner(input_ids=inputs[0], attention_mask=inputs[1]).last_hidden_state
            else:
                hidden = self.inner(pixel_values=inputs[0]).last_hidden_state
            return self.projection(hidden)

    torch.manual_seed(0)
    if name == "vit":
        config = transformers.ViTConfig()
        inner, width = transformers.ViTModel(config, add_pooling_layer=False), config.hidden_size
    elif name == "swin":
        config = transformers.SwinConfig(
            image_size=224, patch_size=4, embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=7
        )
        inner, width = transformers.SwinModel(config, add_pooling_layer=False), config.hidden_size
    else:
        config = transformers.BertConfig()
        inner, width = transformers.BertModel(config, add_pooling_layer=False), config.hidden_size
    return Projected(inner, width).eval()


def inputs(name, batch, length):
    import numpy

    random = numpy.random.default_rng(1)
    if name == "bert":
        # The shortest caption is half as long as the longest.
        lengths = numpy.linspace(length // 2, length, batch).astype(int)
        mask = (numpy.arange(length)[None, :] < lengths[:, None]).astype(numpy.int64)
        return {"input_ids": random.integers(1, 30522, (batch, length)) * mask, "attention_mask": mask}
    return {"pixel_values": random.standard_normal((batch, 3, 224, 224), dtype=numpy.float32)}


def checkpoint(models, entry, path):
    """Writes an image encoder and BERT under the parameter names of the authors' code; the alignment is random."""
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for model, backbone, projection in [
        (models[entry], "img_enc.visual_encoder", "img_enc.vision_proj"),
        (models["bert"], "txt_enc.bert", "txt_enc.fc"),
    ]:
        for key, value in model.inner.state_dict().items():
            tensors[f"{backbone}.{key}"] = value
        for key, value in model.projection.state_dict().items():
            tensors[f"{projection}.{key}"] = value
    patches, ratios = (196, (0.5, 0.4)) if entry == "vit" else (49, (0.8, 0.6))
    hidden, groups = int(EMBED_SIZE * 0.2), int(patches * ratios[1] * ratios[0])
    prefix = "cross_net.aggr_net"
    norm, first, second = torch.nn.LayerNorm(EMBED_SIZE), torch.nn.Linear(EMBED_SIZE, hidden), torch.nn.Linear(hidden, groups)
    for index, layer in [(0, norm), (1, first), (3, second)]:
        for key, value in layer.state_dict().items():
            tensors[f"{prefix}.weight.{index}.{key}"] = value
    tensors[f"{prefix}.scale"] = torch.ones(1, 1, 1)
    kept = {key: value.contiguous().clone() for key, value in tensors.items() if value.is_floating_point()}
    save_file(kept, path)


def prepare(folder, laps_zoo):
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir(parents=True, exist_ok=True)
    models = {name: encoder(name) for name in MODELS}
    dims = {"batch": torch.export.Dim("batch", min=1, max=256), "length": torch.export.Dim("length", min=2, max=512)}
    for name, model in models.items():
        path, eight = folder / f"{name}.onnx", folder / f"{name}-int8.onnx"
        feed = inputs(name, 2, 16)
        axes = {0: dims["batch"], 1: dims["length"]} if name == "bert" else {0: dims["batch"]}
        if not path.exists():
            arguments = tuple(torch.from_numpy(value) for value in feed.values())
            torch.onnx.export(
                model,
                arguments,
                path,
                dynamo=True,
                external_data=False,
                input_names=list(feed),
                # One tuple for the variadic arguments of `forward`.
                dynamic_shapes=(tuple(axes for _ in feed),),
            )
        if not eight.exists():
            quantize_dynamic(
                path,
                eight,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
    for entry in ["vit", "swin"]:
        weights = folder / f"{entry}.safetensors"
        if not weights.exists():
            checkpoint(models, entry, weights)
        for _, flavour, precision in OURS:
            out = folder / f"{entry}-{flavour}-{precision}"
            if not out.exists():
                command = [laps_zoo, "export", f"f30k_{entry}", "--onnx", "--checkpoint", weights, "--out", out, "--quiet"]
                subprocess.run([*command, "--flavour", flavour, "--precision", precision, "--threads", "1"], check=True)


def candidates(folder, name, threads, fused):
    """Returns the candidates by name, as functions of the inputs."""
    import onnxruntime
    import torch

    torch.set_num_threads(threads)
    model = encoder(name)

    def eager(feed):
        with torch.inference_mode():
            return model(*(torch.from_numpy(value) for value in feed.values())).numpy()

    def session(path, entries=()):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        for key, value in entries:
            options.add_session_config_entry(key, value)
        opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda feed: opened.run(None, feed)[0]

    found = {"torch eager": eager}
    found["torch.onnx"] = session(folder / f"{name}.onnx")
    found["torch.onnx, int8"] = session(folder / f"{name}-int8.onnx")
    file = "text.onnx" if name == "bert" else "image.onnx"
    for label, flavour, precision in OURS:
        entry = "vit" if name == "bert" else name
        path = folder / f"{entry}-{flavour}-{precision}" / file
        found[label] = session(path, ENTRIES)
        if fused:
            found[f"{label}, fused"] = session(path)
    return found


def drift(found, exact, feed):
    import numpy

    if "attention_mask" in feed:
        kept = feed["attention_mask"] == 1
        found, exact = found[kept], exact[kept]
    cosine = float((found * exact).sum() / numpy.linalg.norm(found) / numpy.linalg.norm(exact))
    return float(numpy.abs(found - exact).max()), cosine


def measure(folder, name, batch, length, rounds, threads, fused):
    feed = inputs(name, batch, length)
    compared = candidates(folder, name, threads, fused)
    exact = compared["torch eager"](feed)
    seconds = {label: [] for label in compared}
    result = {"model": name, "batch": batch, "threads": threads, "rounds": rounds, "candidates": {}}
    if name == "bert":
        result["length"] = length
    for label, run in compared.items():
        largest, cosine = drift(run(feed), exact, feed)
        if not (cosine >= COSINE if "int8" in label else largest <= TOLERANCE):
            sys.exit(f"error: `{label}` differs from torch: by {largest:.1e}, cosine {cosine:.5f}")
        result["candidates"][label] = {"largest": largest, "cosine": cosine}
    for _ in range(rounds):
        for label, run in compared.items():
            began = time.perf_counter()
            run(feed)
            seconds[label].append(time.perf_counter() - began)
    for label, times in seconds.items():
        median = statistics.median(times)
        result["candidates"][label].update(seconds=times, median=median, per_second=batch / median)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    table(folder, [name])


def eager(name, device, batch, length, rounds, modes):
    import torch
    import transformers

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {where}")
    if name == "similarities":
        return similarities(device, 4 * batch, batch, rounds, modes)
    feed = [torch.from_numpy(value) for value in inputs(name, batch, length).values()]
    for kind in ["float32", "float16"] if device.startswith("cuda") else ["float32"]:
        model = encoder(name).to(device, getattr(torch, kind))
        dtype = next(model.parameters()).dtype
        for mode in modes:
            run = torch.compile(model) if mode == "compiled" else model

            def step():
                placed = [value.to(device, dtype if value.is_floating_point() else value.dtype) for value in feed]
                run(*placed).float().cpu()

            median = median_seconds(step, rounds)
            print(f"{name}, batch {batch}, {kind}, {mode}: {batch / median:.1f}/s, {median * 1e3:.2f} ms", flush=True)


def median_seconds(step, rounds):
    """Median time of a step, after three that are not counted."""
    import torch

    seconds = []
    for _ in range(3 + rounds):
        began = time.perf_counter()
        with torch.inference_mode():
            step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[3:])


def compare_caption(patches, class_token, words, weights, kept):
    """Similarities (images) of one caption (words, dim) with patches (images, patches, dim).

    `class_token` is (images, 1, dim), or (images, 0, dim) without one; `weights` are those of the aggregation network by
    their names, and `kept` is the number of patches that are kept.
    """
    import torch
    from torch.nn import functional

    def unit_mean(values):
        return functional.normalize(values.mean(1, keepdim=True), dim=-1)

    def take(order):
        return patches.gather(1, order.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))

    words = words.unsqueeze(0).expand(patches.shape[0], -1, -1)
    unit = functional.normalize(patches, dim=-1)
    scores = (unit * unit_mean(patches)).sum(-1) + (unit * unit_mean(words)).sum(-1)
    scores, order = scores.sort(dim=1, descending=True)
    fused = (take(order[:, kept:]) * scores[:, kept:].softmax(1).unsqueeze(-1)).sum(1, keepdim=True)
    chosen = take(order[:, :kept])
    hidden = functional.layer_norm(chosen, chosen.shape[-1:], weights["weight.0.weight"], weights["weight.0.bias"])
    hidden = functional.gelu(functional.linear(hidden, weights["weight.1.weight"], weights["weight.1.bias"]))
    logits = functional.linear(hidden, weights["weight.3.weight"], weights["weight.3.bias"]) * weights["scale"]
    groups = logits.transpose(1, 2).softmax(2) @ chosen
    tokens = functional.normalize(torch.cat([class_token, groups, fused], 1), dim=-1)
    cosines = functional.leaky_relu(tokens @ functional.normalize(words, dim=-1).transpose(1, 2), 0.1)
    return cosines.amax(1).mean(-1) + cosines.amax(2).mean(-1)


def check_similarities(folder, device):
    """Compares `compare_caption` with the golden tensors of the authors' code."""
    import torch
    from safetensors.torch import load_file

    for name, first, kept in [("vit", 1, 98), ("swin", 0, 40)]:
        golden = {key: value.to(device) for key, value in load_file(folder / f"{name}_align.safetensors").items()}
        weights = {key.removeprefix("cross_net.aggr_net."): value for key, value in golden.items()}
        tokens = golden["img_embs"]
        columns = [
            compare_caption(tokens[:, first:], tokens[:, :first], words[:length], weights, kept)
            for words, length in zip(golden["cap_embs"], golden["lengths"].tolist())
        ]
        largest = float((torch.stack(columns, 1) - golden["sims"]).abs().max())
        if largest > SIMILARITY_TOLERANCE:
            sys.exit(f"error: similarities of {name} differ from the golden tensors by {largest:.1e}")


def similarities(device, images, captions, rounds, modes):
    import torch

    generator = torch.Generator().manual_seed(7)
    tokens = torch.randn(images, 197, EMBED_SIZE, generator=generator).to(device)
    # About the lengths of captions of Flickr30K, whose mean is 14.4 tokens.
    lengths = [8 + index * 5 % 14 for index in range(captions)]
    words = [torch.randn(length, EMBED_SIZE, generator=generator) for length in lengths]
    hidden = int(EMBED_SIZE * 0.2)
    norm, first, second = torch.nn.LayerNorm(EMBED_SIZE), torch.nn.Linear(EMBED_SIZE, hidden), torch.nn.Linear(hidden, 39)
    weights = {"scale": torch.ones(1, 1, 1, device=device)}
    for index, layer in [(0, norm), (1, first), (3, second)]:
        weights |= {f"weight.{index}.{key}": value.to(device) for key, value in layer.state_dict().items()}
    for mode in modes:
        run = torch.compile(compare_caption, dynamic=True) if mode == "compiled" else compare_caption

        def step():
            # A shard at a time, as the similarities of an evaluation are computed.
            rows = [run(tokens[:, 1:], tokens[:, :1], caption.to(device), weights, 98) for caption in words]
            torch.stack(rows).cpu()

        pairs = images * captions
        median = median_seconds(step, rounds)
        rate = f"{1e6 * median / pairs:.2f} us per pair, {pairs / median:.0f} pairs/s"
        print(f"similarities, {images} images, {captions} captions, {mode}: {rate}", flush=True)


def table(folder, names):
    """Prints items per second, absolute and relative to torch eager."""
    for name in names:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        length = f" x {result['length']} tokens" if "length" in result else ""
        print(f"\n{name}, batch {result['batch']}{length}, {result['threads']} thread, {result['rounds']} rounds\n")
        print("| | per second | relative to torch eager | largest difference | cosine |\n|---|---|---|---|---|")
        eager = result["candidates"]["torch eager"]["per_second"]
        for label, one in result["candidates"].items():
            rate = one["per_second"]
            print(f"| {label} | {rate:.2f} | {rate / eager:.2f} | {one['largest']:.1e} | {one['cosine']:.5f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["setup", "prepare", "time", "table", "eager"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("model", nargs="?", choices=[*MODELS, "similarities"])
    parser.add_argument("--laps-zoo", default="target/release/laps-zoo")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--golden", type=pathlib.Path)
    options = parser.parse_args()
    if options.step == "setup":
        setup(options.folder)
    elif options.step == "prepare":
        prepare(options.folder, options.laps_zoo)
    elif options.step == "table":
        table(options.folder, MODELS)
    elif options.model is None or (options.step, options.model) == ("time", "similarities"):
        parser.error(f"`{options.step}` takes a model: vit, swin or bert")
    else:
        batch = options.batch or (16 if options.model == "bert" else 4)
        if options.step == "eager":
            if options.model == "similarities" and options.golden:
                check_similarities(options.golden, options.device)
            modes = ["eager", "compiled"] if options.compile else ["eager"]
            return eager(options.model, options.device, batch, options.length, options.rounds, modes)
        sizes = (batch, options.length, options.rounds, options.threads)
        measure(options.folder, options.model, *sizes, options.fused)


if __name__ == "__main__":
    main()
