#!/bin/sh
# Runs fuzz targets one after the other, each for the given number of seconds, from the corpus of earlier runs and the seeds.
#
#   zoo/fuzz/run.sh SECONDS [TARGET ...]     # needs nightly Rust and cargo-fuzz
#
# A finding ends the script; its input is in zoo/fuzz/artifacts.
set -eu
[ $# -ge 1 ] || { echo 'usage: zoo/fuzz/run.sh SECONDS [TARGET ...]' >&2; exit 2; }
cd "$(dirname "$0")"
seconds=$1
shift
[ $# -ge 1 ] || set -- $(cargo +nightly fuzz list --fuzz-dir .)

for target; do
    mkdir -p "corpus/$target"
    # Without files of every format the decoders and the reader of entries reject each input at its first bytes.
    case $target in
        image) more='../data/tests/data/corpus/odd ../../.runtime/pillow/corpus' ;;
        entry_yaml) more=../../configs ;;
        *) more= ;;
    esac
    seeds=
    for folder in "seeds/$target" $more; do
        [ ! -d "$folder" ] || seeds="$seeds $folder"
    done
    # Unquoted: a list of folders.
    cargo +nightly fuzz run --fuzz-dir . "$target" "corpus/$target" $seeds -- -max_len=4096 -max_total_time="$seconds" -timeout=60
done
