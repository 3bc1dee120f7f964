#!/bin/sh
# Trains every head on the drawn scenes with the encoders and the recipe of `shapes_vit`, and evaluates each on `test`: one seed a
# head, three for laps, vsepp and scan_t2i. Runs that are finished or interrupted are continued.
#
#   bench/heads.sh FOLDER [OPTION ...]
#
# Options are those of `laps-zoo train`, for example `--set train.epochs=2`. LAPS_ZOO is the program, `laps-zoo` by default, SCENES the
# number of training scenes, 20000 by default, and HEADS the names of the runs, all by default: calls with different names can run at
# the same time.
set -eu
[ $# -ge 1 ] || { echo 'usage: bench/heads.sh FOLDER [OPTION ...]' >&2; exit 2; }
folder=$1
shift
program=${LAPS_ZOO:-laps-zoo}
mkdir -p "$folder/entries" "$folder/results"

# run NAME SEED HEAD [OPTION ...]
run() {
    name=$1 seed=$2 head=$3
    shift 3
    case " ${HEADS:-$name} " in *" $name "*) ;; *) return 0 ;; esac
    entry=$folder/entries/$name.yaml
    # Only `laps` has ratios. References are those of `laps`.
    "$program" info --yaml shapes_vit | sed -e "s/^name: .*/name: $name/" -e '/^references:/,$d' -e '/^checkpoint:/d' -e "s/train: 20000/train: ${SCENES:-20000}/" |
        if [ "$head" = laps ]; then cat; else sed -e '/^  sparse_ratio:/d' -e "s/^  aggr_ratio:.*/  head: $head/"; fi > "$entry"
    "$program" train "$entry" --out "$folder/$name-$seed" --seed "$seed" --resume=auto "$@"
    [ -e "$folder/results/$name-$seed.json" ] || "$program" reproduce "$entry" --checkpoint "$folder/$name-$seed/best.safetensors" --json "$folder/results/$name-$seed.json"
}

for seed in 0 1 2; do
    run laps "$seed" laps "$@"
    run vsepp_mean "$seed" vsepp "$@"
    run scan_t2i "$seed" scan_t2i "$@"
done
run vsepp_cls 0 '{ type: vsepp, pooling: cls }' "$@"
run vsepp_gpo 0 '{ type: vsepp, pooling: gpo }' "$@"
run scan_i2t 0 scan_i2t "$@"
run scan_all 0 scan_all "$@"
run max_mean 0 max_mean "$@"
run chan 0 chan "$@"
run sgr 0 '{ type: sgr, sim_dim: 32, steps: 3 }' "$@"
run d2s_vse 0 '{ type: d2s_vse, embed_size: 64, mlp_size: 32, prompt_tokens: 10, blocks: 2, heads: 4 }' "$@"
"$program" table "$folder"/results/*.json
