"""Checks graphs with the ONNX checker, and runs them in the reference evaluator of the ONNX project.

    second_engine.py FOLDER TOLERANCE

FOLDER holds MODEL-FLAVOUR-OPSET/GRAPH.onnx and MODEL-cases/GRAPH-NUMBER.safetensors with the tensors `input.NAME`,
`output.NAME` and, if only some values of the output are compared, `mask`. Graphs in checked/NAME/GRAPH.onnx are only
checked. The operators of ONNX Runtime are implemented here in NumPy, from their documentation.
"""

import math
import pathlib
import sys

import numpy
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from safetensors.numpy import load_file

erf = numpy.vectorize(math.erf, otypes=[numpy.float64])


def gelu(x):
    return (0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))).astype(numpy.float32)


class Gelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x):
        return (gelu(x),)


class BiasGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, bias):
        return (gelu(x + bias),)


class SkipLayerNormalization(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, skip, weight, shift=None, bias=None, epsilon=None):
        total = x + skip
        if bias is not None:
            total = total + bias
        mean = total.mean(axis=-1, keepdims=True, dtype=numpy.float64)
        scale = 1.0 / numpy.sqrt(((total - mean) ** 2).mean(axis=-1, keepdims=True) + epsilon)
        result = ((total - mean) * scale).astype(numpy.float32) * weight + shift
        return (result, mean, scale, total)[: len(self.onnx_node.output)]


class MultiHeadAttention(OpRun):
    op_domain = "com.microsoft"

    def _run(self, query, key, value, bias=None, padding=None, extra=None, num_heads=None, mask_filter_value=None):
        batch, length, width = query.shape
        size = width // num_heads

        def heads(x):
            return x.reshape(batch, -1, num_heads, size).transpose(0, 2, 1, 3)

        logits = heads(query) @ heads(key).transpose(0, 1, 3, 2) / math.sqrt(size)
        if extra is not None:
            logits = logits + extra
        if padding is not None:
            logits = numpy.where(padding[:, None, None, :] == 0, mask_filter_value, logits)
        weights = numpy.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        context = weights @ heads(value)
        return (context.transpose(0, 2, 1, 3).reshape(batch, length, width).astype(numpy.float32),)


OPERATORS = [Gelu, BiasGelu, SkipLayerNormalization, MultiHeadAttention]


def largest(found, tensors):
    (name,) = [name for name in tensors if name.startswith("output.")]
    expected = tensors[name]
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert numpy.isfinite(found).all()
    difference = numpy.abs(found - expected)
    if "mask" in tensors:
        difference = difference[tensors["mask"] == 1]
    return float(difference.max())


def main(folder, tolerance):
    failed = False
    for path in sorted(folder.glob("*-*-*/*.onnx")):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        # The evaluator confuses unnamed results with omitted operands, so name them.
        for node in model.graph.node:
            for index in (index for index, name in enumerate(node.output) if not name):
                node.output[index] = f"{node.name}.unused.{index}"
        evaluator = ReferenceEvaluator(model, new_ops=OPERATORS)
        worst = 0.0
        cases = sorted((folder / f"{path.parent.name.split('-')[0]}-cases").glob(f"{path.stem}-*.safetensors"))
        for case in cases:
            tensors = load_file(case)
            inputs = {name.removeprefix("input."): x for name, x in tensors.items() if name.startswith("input.")}
            worst = max(worst, largest(evaluator.run(None, inputs)[0], tensors))
        fits = worst <= tolerance and cases
        failed |= not fits
        print(f"{path.parent.name} {path.stem}: {len(cases)} cases, {worst:.1e} at most,", "ok" if fits else "FAILED")
    # Graphs in reduced precision exceed the tolerance, so they are only checked.
    for path in sorted(folder.glob("checked/*/*.onnx")):
        onnx.checker.check_model(onnx.load(path), full_check=True)
        print(f"{path.parent.name} {path.stem}: checked")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), float(sys.argv[2])))
