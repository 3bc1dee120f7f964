#!/usr/bin/env bash
# Tests and measures laps-zoo on a machine with a GPU and no network:
#
#   gpu.sh FOLDER [--device cuda:0] [--out DIR] [--python python3] [--seconds 470]
#
# FOLDER is what `make gpu-bundle` packs: the parts, or the folder that their unpack.sh makes. Writes results.json and
# results.md to DIR, by default FOLDER/results, and the output of each step to DIR/logs. A step that fails or takes longer
# than its limit does not end the others; on a CPU limits are four times as long. After --seconds no step starts, and one that
# runs is ended.
#
# --device cpu tries the script without a GPU, with small sizes. --python names a Python with torch and transformers, whose
# speed is measured too; without them those steps are skipped. Needs bash, awk, coreutils, tar and gzip.
#
# Exit code: 0 if all steps passed or were skipped, 1 if one failed, 2 for wrong arguments.
set -uo pipefail
export LC_ALL=C

usage() {
    sed -n '4s/^# *//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}
folder='' device=cuda:0 out='' python=python3 budget=470
while [[ $# -gt 0 ]]; do
    case $1 in
        --device | --out | --python | --seconds)
            [[ $# -ge 2 ]] || usage
            case $1 in
                --device) device=$2 ;;
                --out) out=$2 ;;
                --python) python=$2 ;;
                --seconds) budget=$2 ;;
            esac
            shift 2
            ;;
        -*) usage ;;
        *)
            [[ -z $folder ]] || usage
            folder=$1
            shift
            ;;
    esac
done
[[ -d $folder && $budget =~ ^[0-9]+$ ]] || usage
[[ $device == cpu || $device =~ ^cuda:[0-9]+$ ]] || usage
folder=$(cd "$folder" && pwd)
out=${out:-$folder/results}
mkdir -p "$out/logs" "$out/work"
out=$(cd "$out" && pwd)
steps=$out/work/steps.tsv figures=$out/work/figures.tsv
: >"$steps"
: >"$figures"

now() { date +%s%3N; }
began=$(now)
left() { echo $((budget - ($(now) - began) / 1000)); }

# step NAME SECONDS COMMAND [ARGUMENT ...]: runs it within the limit, and records what came of it.
step() {
    name=$1 log=$out/logs/$1.log
    local limit=$2 rest start code elapsed outcome reason=''
    # Programs that try the script may be built without optimisation.
    [[ $device != cpu ]] || limit=$((4 * limit))
    shift 2
    : >"$log"
    # Of an earlier run.
    rm -f "$out/$name.json" "$out/$name.md"
    rest=$(left)
    if ((rest < 1)); then
        record 'not run' 0 "$limit" 'no time was left'
        return 1
    fi
    ((limit <= rest)) || limit=$rest
    start=$(now)
    timeout --kill-after=5 "$limit" "$@" >"$log" 2>&1 </dev/null
    code=$?
    elapsed=$(($(now) - start))
    case $code in
        0) outcome=passed ;;
        124 | 137)
            outcome='timed out' reason="took longer than $limit s"
            # For example by the system, which has no memory left.
            ((code == 124 || elapsed >= 1000 * limit)) || outcome=failed reason="exit code $code: killed"
            ;;
        *)
            outcome=failed
            reason=$(grep -m1 '^error' "$log" || grep -v '^[[:space:]]*$' "$log" | tail -n 1)
            reason="exit code $code${reason:+: $reason}"
            ;;
    esac
    record "$outcome" "$elapsed" "$limit" "$reason"
    return $code
}

# record OUTCOME MILLISECONDS LIMIT REASON, of the step $name
record() {
    # One line of ASCII, so that it can be cut.
    local reason
    reason=$(printf %s "${4//[$'\t\n']/ }" | tr -cd ' -~' | cut -c1-300)
    printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$1" "$2" "$3" "$reason" >>"$steps"
    printf '%-24s %-10s %6s ms  %s\n' "$name" "$1" "$2" "$reason"
}

# skip NAME REASON
skip() {
    name=$1
    record skipped 0 0 "$2"
}

# figure NAME VALUE, of the step $name
figure() {
    [[ -z $2 ]] || printf '%s\t%s\t%s\n' "$name" "$1" "$2" >>"$figures"
}

# number FIELD FILE: the last value of a field in a file of JSON, to four digits.
number() {
    [[ -f $2 ]] || return 0
    grep -oE "\"$1\": ?[0-9.e+-]+" "$2" | tail -n 1 | awk '{ sub(/.*: */, ""); printf "%.4g", $0 }'
}

# The figures of the lines `NAME<TAB>VALUE` on standard input.
figure_lines() {
    local key value
    while IFS=$'\t' read -r key value; do figure "$key" "$value"; done
}

bundle=$folder
if [[ -x $folder/unpack.sh ]]; then
    bundle=$folder/laps-zoo-gpu
    [[ -d $bundle/bin ]] || step unpack 120 "$folder/unpack.sh" "$folder"
fi

zoo=$bundle/bin/laps-zoo torch=$bundle/bin/laps-zoo-torch
unset WORLD_SIZE RANK LOCAL_RANK ORT_DYLIB_PATH LIBTORCH VIRTUAL_ENV CONDA_PREFIX
path=$PATH library_path=${LD_LIBRARY_PATH:-}
export PATH=$bundle/bin:$PATH
export LAPS_ZOO_CACHE=$out/work/cache LAPS_ZOO_TEST_DEVICE=$device LAPS_ZOO_BENCH_DEVICE=$device
# Tests look for golden tensors above this folder.
export CARGO_MANIFEST_DIR=$bundle
# Python as it is without the bundle.
python=(env PATH="$path" LD_LIBRARY_PATH="$library_path" "$python")
export LD_LIBRARY_PATH=$bundle/lib${library_path:+:$library_path}
if [[ -e $bundle/borrowed ]]; then
    # Libraries that the bundle leaves to PyTorch of this machine.
    borrowed=$("${python[@]}" -c 'import nvidia, pathlib
files = [file for root in nvidia.__path__ for file in pathlib.Path(root).rglob("*.so*")]
print(":".join(sorted({str(file.parent) for file in files})))' 2>/dev/null)
    LD_LIBRARY_PATH+=${borrowed:+:$borrowed}
fi
cd "$out/work" || exit 2

if [[ $device == cpu ]]; then
    entry=shapes_vit comm=gloo scenes=64 batches=1,8 training_batches=8 warm_up=1 repeats=3
    images=40 captions=200 batch=2 rounds=1
else
    entry=f30k_vit comm=nccl scenes=2048 batches=1,16,64 training_batches=64,128 warm_up=3 repeats=20
    images=1000 captions=5000 batch=64 rounds=7
fi

if step doctor 30 "$torch" doctor; then
    figure version "$("$torch" --version 2>/dev/null)"
    grep -E '^(gpu|cpu|devices|libtorch|onnxruntime) ' "$log" | sed -E 's/^([a-z]+) +/\1\t/' | figure_lines
fi
driver=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)
figure driver "$driver"

# Passed and failed tests of a log, and what tests print about what they left out.
tests() {
    figure tests "$(sed -nE 's/^test result: [^.]*\. ([0-9]+ passed; [0-9]+ failed).*/\1/p' "$log" | head -n 1)"
    figure 'left out' "$(grep -c '^skipped: ' "$log" | sed 's/^0$//')"
}
for test in "$bundle"/bin/test-*; do
    [[ -x $test ]] || continue
    kind=$(basename "$test")
    # Most of its tests wait for process groups that fail, on any device alike.
    [[ $kind == test-torch-collective ]] && continue
    step "$kind" 60 "$test" --nocapture
    tests
done
# One GPU has one rank: NCCL refuses two on one GPU.
step collective 30 "$bundle/bin/test-torch-collective" --nocapture one_rank
tests

# rSum, verdict, losses of other precisions, and the time of a result that `reproduce` prints.
reproduced() {
    awk -F'\t' '
        / measured / { n = split($0, cells, " "); rsum = cells[n - 1]; if (!seen++) print "rSum\t" rsum }
        /^rSum lost: / { sub(/^rSum lost: /, ""); print "rSum lost\t" $0 }
        /^verdict: / { sub(/^verdict: /, ""); print "verdict\t" $0 }
        /^engine / { sub(/^engine /, ""); print "engine\t" $0 }
    ' "$log" | figure_lines
}
step reproduce-torch 45 "$torch" reproduce shapes_vit --engine torch --device "$device" \
    --json "$out/reproduce-torch.json" --quiet
reproduced
step reproduce-ort 60 "$zoo" reproduce shapes_vit --engine ort --device "$device" --precisions fp16 \
    --json "$out/reproduce-ort.json" --quiet
reproduced
if [[ $device == cpu ]]; then
    skip reproduce-tensorrt 'TensorRT needs a GPU'
elif ! { ldconfig -p | grep 'libnvinfer\.so\.10' || compgen -G "$bundle/lib/libnvinfer.so.10*"; } >/dev/null 2>&1; then
    skip reproduce-tensorrt 'TensorRT 10 is not installed'
else
    step reproduce-tensorrt 90 "$zoo" reproduce shapes_vit --ep tensorrt --device "$device" --precisions fp16 \
        --json "$out/reproduce-tensorrt.json" --quiet
    reproduced
fi

# The rows of a table of `bench --markdown`: what is measured, and items per second.
rows() {
    [[ -f $1 ]] || return 0
    awk -F' *[|] *' '$7 ~ /^[0-9.]+ [a-z]+$/ { print $2 ", " $3 ", " $5 ", batch " $6 "\t" $7 " per second" }' "$1" |
        figure_lines
}
# The entry with another name, random weights and a precision of training.
entry_file() {
    "$zoo" info --yaml "$entry" | sed -e "s/^name: .*/name: ${entry}_$1/" -e '/^references:/,$d' -e '/^checkpoint:/d' \
        -e "s/^train:.*/train:\n  precision: $1/" >"$out/work/${entry}_$1.yaml"
}
for precision in f32 bf16 fp16; do
    if [[ $device == cpu && $precision == fp16 ]]; then
        skip training-fp16 'training in fp16 needs a GPU'
        continue
    fi
    entry_file "$precision"
    step "training-$precision" 45 "$torch" bench --entry "$out/work/${entry}_$precision.yaml" --parts training --engine torch \
        --device "$device" --batch-size "$training_batches" --warm-up "$warm_up" --repeats "$repeats" \
        --markdown "$out/training-$precision.md" --json "$out/training-$precision.json" --quiet
    rows "$out/training-$precision.md"
done

# An epoch of the drawn scenes in a group of one rank, which still sends its tensors through the library.
"$zoo" info --yaml shapes_vit | sed -e 's/^name: .*/name: one_rank/' -e '/^references:/,$d' -e 's/^  epochs: .*/  epochs: 1/' \
    -e "s/drawn: .*/drawn: { seed: 7, train: $scenes, dev: 16, test: 16 }/" >"$out/work/one_rank.yaml"
rm -rf "$out/work/one_rank"
step "training-$comm" 60 "$torch" launch -n 1 -- train "$out/work/one_rank.yaml" --out "$out/work/one_rank" --device "$device" \
    --dist-backend "$comm" --quiet
for field in pairs_per_second communication communication_bytes; do
    figure "$field" "$(number "$field" "$out/work/one_rank/log.jsonl")"
done

if [[ $device == cpu ]]; then
    skip alignment-step 'takes minutes on a CPU: cargo bench -p laps-torch --bench training'
else
    step alignment-step 60 env RAYON_NUM_THREADS=8 "$bundle/bin/bench-training" --bench
    sed -nE 's/^([a-z_0-9]+, .*(all|hardest)): (loop .*)$/\1\t\3/p' "$log" | figure_lines
fi

step encoders 120 "$torch" bench --entry "$entry" --parts image,text --engine torch,ort --precision fp32,fp16 --device "$device" \
    --flavour portable,ort --batch-size "$batches" --warm-up "$warm_up" --repeats "$repeats" --markdown "$out/encoders.md" \
    --json "$out/encoders.json" --quiet
rows "$out/encoders.md"

step similarities 45 "$torch" bench alignment --entry "$entry" --images "$images" --captions "$captions" --engine torch \
    --device "$device" --json "$out/similarities.json" --quiet
for field in seconds us_per_pair; do
    figure "$field" "$(number "$field" "$out/similarities.json")"
done

if ! timeout 60 "${python[@]}" -c 'import torch, transformers' >"$out/logs/pytorch.log" 2>&1; then
    skip pytorch "${python[-1]} has no torch and transformers"
else
    for model in similarities vit bert; do
        step "pytorch-$model" 90 "${python[@]}" "$bundle/python_baseline.py" eager "$out/work" "$model" --device "$device" \
            --batch "$batch" --rounds "$rounds" --compile --golden "$bundle/tests/golden"
        sed -nE 's/^([^:]+): ([0-9.]+.*)$/\1\t\2/p' "$log" | figure_lines
    done
fi

seconds=$((($(now) - began) / 1000))
cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)
report() {
    awk -F'\t' -v format="$1" -v device="$device" -v driver="$driver" -v cpu="$cpu, $(nproc) CPUs" -v seconds="$seconds" \
        -v date="$(date -u +%Y-%m-%dT%H:%M:%SZ)" '
        function text(value) {
            gsub(/\\/, "/", value)
            gsub(/"/, "\\\"", value)
            gsub(/[\001-\037]/, " ", value)
            return "\"" value "\""
        }
        function cell(value) {
            gsub(/[|]/, "\\|", value)
            return value
        }
        FILENAME ~ /figures.tsv$/ {
            count[$1]++
            key[$1, count[$1]] = $2
            value[$1, count[$1]] = $3
            next
        }
        {
            steps++
            name[steps] = $1
            outcome[steps] = $2
            time[steps] = $3 / 1000
            limit[steps] = $4
            reason[steps] = $5
        }
        END {
            if (format == "json") {
                printf "{\n  \"schema\": 1,\n  \"date\": %s,\n  \"device\": %s,\n", text(date), text(device)
                printf "  \"gpu\": %s,\n  \"cpu\": %s,\n", (driver == "" ? "null" : text(driver)), text(cpu)
                printf "  \"seconds\": %d,\n  \"steps\": [", seconds
                for (i = 1; i <= steps; i++) {
                    printf "%s\n    {\n      \"name\": %s,\n", (i > 1 ? "," : ""), text(name[i])
                    printf "      \"outcome\": %s,\n", text(outcome[i])
                    printf "      \"seconds\": %.2f,\n      \"limit\": %d,\n", time[i], limit[i]
                    printf "      \"reason\": %s,\n      \"figures\": {", (reason[i] == "" ? "null" : text(reason[i]))
                    for (j = 1; j <= count[name[i]]; j++)
                        printf "%s\n        %s: %s", (j > 1 ? "," : ""), text(key[name[i], j]), text(value[name[i], j])
                    printf "}\n    }"
                }
                printf "\n  ]\n}\n"
            } else {
                printf "%s; %s; device %s; %d s\n\n", (driver == "" ? "no GPU" : driver), cpu, device, seconds
                printf "| step | outcome | seconds | figures |\n|---|---|---:|---|\n"
                for (i = 1; i <= steps; i++) {
                    line = cell(reason[i])
                    for (j = 1; j <= count[name[i]]; j++)
                        line = line (line == "" ? "" : "<br>") cell(key[name[i], j] ": " value[name[i], j])
                    printf "| %s | %s | %.1f | %s |\n", name[i], outcome[i], time[i], line
                }
            }
        }' "$figures" "$steps"
}
report json >"$out/results.json"
report markdown >"$out/results.md"
failed=$(awk -F'\t' '$2 != "passed" && $2 != "skipped"' "$steps" | wc -l)
printf '%s steps, %s not passed, %s s: %s\n' "$(wc -l <"$steps")" "$failed" "$seconds" "$out/results.md"
[[ $failed == 0 ]]
