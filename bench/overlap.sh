#!/bin/sh
# Measures the gain from summing gradients during the backward pass: trains a model of 21 million weights on drawn scenes as two
# ranks with one thread each, without `--dist-overlap` and with it in turn, on this machine and on two network namespaces whose connection has a
# limited rate. Prints Markdown: throughput, and the share of the time in communication.
#
#   bench/overlap.sh FOLDER [OPTION ...]
#
# Options are those of `laps-zoo train`. LAPS_ZOO is the program, `laps-zoo` by default, RUNS the number of runs of each kind, 3 by
# default, RATES the rates, `1gbit 100mbit` by default, and SCENES the number of training scenes, 128 by default: 20 steps. Network
# namespaces need root and the programs `ip` and `tc`; without them only this machine is measured. Needs Python 3.
set -eu
[ $# -ge 1 ] || { echo 'usage: bench/overlap.sh FOLDER [OPTION ...]' >&2; exit 2; }
folder=$1
shift
program=${LAPS_ZOO:-laps-zoo} rates=${RATES:-1gbit 100mbit} runs=$(seq "${RUNS:-3}")
mkdir -p "$folder"

# Six layers of 384 an encoder: four buckets of gradients. The scenes of an entry are small.
entry=$folder/overlap.yaml
"$program" info --yaml shapes_vit |
    sed -e 's/^name: .*/name: overlap/' -e '/^references:/,$d' -e '/^checkpoint:/d' -e 's/hidden_size: 64/hidden_size: 384/' \
        -e 's/num_hidden_layers: ./num_hidden_layers: 6/' -e 's/num_attention_heads: 4/num_attention_heads: 6/' \
        -e 's/intermediate_size: 128/intermediate_size: 1536/' -e "s/drawn: .*/drawn: { seed: 7, train: ${SCENES:-128}, dev: 8, test: 8 }/" \
        -e 's/decay_epochs: .*/decay_epochs: []/' > "$entry"
set -- --set train.epochs=1 --set train.batch_size=32 --threads 1 --device cpu --quiet --resume=auto "$@"

# Names of the two network namespaces, and of the interface in each.
host() { echo "laps-$$-$1"; }
link() { echo "v$$-$1"; }

remove_hosts() {
    for number in 0 1; do ip netns delete "$(host $number)" 2> "$folder/ip.log" || true; done
}

# Makes the namespaces and connects them.
make_hosts() {
    for number in 0 1; do ip netns add "$(host $number)" || return 1; done
    ip link add "$(link 0)" netns "$(host 0)" type veth peer name "$(link 1)" netns "$(host 1)" || return 1
    for number in 0 1; do
        ip -n "$(host $number)" address add "10.77.1.$((number + 1))/24" dev "$(link $number)" || return 1
        ip -n "$(host $number)" link set "$(link $number)" up || return 1
        ip -n "$(host $number)" link set lo up || return 1
    done
}

# limit RATE: limits what each host sends.
limit() {
    for number in 0 1; do
        ip netns exec "$(host $number)" tc qdisc replace dev "$(link $number)" root tbf rate "$1" burst 1mb latency 100ms || return 1
    done
}

# on_host NUMBER OPTION ...: the rank of a host.
on_host() {
    number=$1
    shift
    # The name of the machine has an address of the loopback interface, which the other host cannot reach.
    ip netns exec "$(host "$number")" env GLOO_SOCKET_IFNAME="$(link "$number")" \
        "$program" launch -n 1 --nnodes 2 --node-rank "$number" --master-addr 10.77.1.1 -- train "$entry" "$@"
}

for run in $runs; do
    for overlap in off on; do
        "$program" launch -n 2 -- train "$entry" --out "$folder/local-$overlap-$run" --dist-overlap "$overlap" "$@"
    done
done

if ! command -v ip > "$folder/ip.log" || ! command -v tc > "$folder/ip.log"; then
    echo 'skipped: network namespaces need the programs `ip` and `tc`' >&2
    rates=
elif ! { trap remove_hosts EXIT && trap 'exit 130' INT TERM && make_hosts; } 2> "$folder/ip.log"; then
    echo "skipped: network namespaces need root: $(cat "$folder/ip.log")" >&2
    rates=
fi
for rate in $rates; do
    limit "$rate"
    for run in $runs; do
        for overlap in off on; do
            on_host 1 --out "$folder/$rate-$overlap-$run" --dist-overlap "$overlap" "$@" &
            on_host 0 --out "$folder/$rate-$overlap-$run" --dist-overlap "$overlap" "$@"
            wait $!
        done
    done
done

python3 - "$folder" local $rates <<'PYTHON'
import json
import os
import statistics
import sys
from pathlib import Path

folder, networks = Path(sys.argv[1]), sys.argv[2:]


def epochs(network, overlap):
    logs = sorted(folder.glob(f"{network}-{overlap}-*/log.jsonl"))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [line for line in lines if "recalls" in line]


def spread(values, scale=1):
    values = [scale * value for value in values]
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[2]:.1f} in the last 15 minutes; two ranks with one thread each\n")
print("| network | overlap | pairs/s | communicating, % | MB a step and rank | gain |\n|---|---|---|---|---|---|")
for network in networks:
    name = "loopback" if network == "local" else network
    without = statistics.median(epoch["pairs_per_second"] for epoch in epochs(network, "off"))
    for overlap in ("off", "on"):
        found = epochs(network, overlap)
        speed = [epoch["pairs_per_second"] for epoch in found]
        share = spread([epoch["communication"] for epoch in found], 100)
        megabytes = statistics.median(epoch["communication_bytes"] for epoch in found) / 1e6
        gain = f"{statistics.median(speed) / without:.2f}x" if overlap == "on" else ""
        print(f"| {name} | {overlap} | {spread(speed)} | {share} | {megabytes:.1f} | {gain} |")
PYTHON
