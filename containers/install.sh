#!/bin/sh
# Installs the program of a wheel, and ONNX Runtime beside it, without Python: PREFIX/bin and PREFIX/lib.
#
#     containers/install.sh WHEEL PREFIX [ONNXRUNTIME]      ONNXRUNTIME: a requirement of pip; default: onnxruntime
#
# Needs python3 with venv, and the network for pip.
set -eu
wheel=$1 prefix=$2 requirement=${3:-onnxruntime}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --no-cache-dir --no-deps "$wheel" "$requirement"
mkdir -p "$prefix/bin" "$prefix/lib"
cp "$scratch/venv/bin/laps-zoo" "$prefix/bin/"
cp "$scratch"/venv/lib/python3.*/site-packages/onnxruntime/capi/libonnxruntime*.so* "$prefix/lib/"
"$prefix/bin/laps-zoo" --version
