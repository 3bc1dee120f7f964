#!/bin/sh
# Evaluates `f30k_vit` at its full size, with random weights on 1,000 drawn scenes and their 5,000 captions, and prints the time of
# each stage and the overhead: the share of the time in which neither encoders nor similarities are computed.
#
#   bench/overhead.sh FOLDER [OPTION ...]
#
# Options are those of `laps-zoo reproduce`, for example `--engine ort`. LAPS_ZOO is the program, `target/release/laps-zoo` by
# default, SCENES the number of scenes. The checkpoint of 690 MB is written by an example, which cargo builds. The scenes are small
# PNG files: decoding photos takes longer, but on threads of its own.
set -eu
[ $# -ge 1 ] || { echo 'usage: bench/overhead.sh FOLDER [OPTION ...]' >&2; exit 2; }
folder=$1
shift
program=${LAPS_ZOO:-target/release/laps-zoo}
mkdir -p "$folder"
"$program" info --yaml f30k_vit | sed -e 's/^name: .*/name: full_size/' -e '/^references:/,$d' -e '/^checkpoint:/d' \
    -e 's/vocab_size: 30522/vocab_size: 82/' -e 's|^  captions: .*|  captions: captions|' \
    -e 's|^  images: .*|  images: images|' \
    -e "s|^  vocab: .*|  vocab: vocab.txt\n  drawn: { seed: 7, train: 8, dev: 8, test: ${SCENES:-1000} }|" \
    > "$folder/full_size.yaml"
checkpoint=$folder/full_size.safetensors
[ -e "$checkpoint" ] ||
    cargo run --quiet --release -p laps-bench --example random_checkpoint -- "$folder/full_size.yaml" "$folder"
"$program" reproduce "$folder/full_size.yaml" --checkpoint "$checkpoint" --json "$folder/result.json" "$@"
