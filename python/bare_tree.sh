#!/bin/bash
# Installs the wheels of dist/ into a bare tree of Debian or Ubuntu with nothing but python3, venv and pip, and prints Markdown: the
# time of each step from nothing, and sizes.
#
#   python/bare_tree.sh TREE [SUITE [MIRROR]]      SUITE: bookworm by default
#
# Needs root, mount namespaces and debootstrap (Debian package `debootstrap`), which makes TREE if it is not there. Certificates and
# settings of pip are those of this machine.
set -euo pipefail
[[ $# -ge 1 ]] || { sed -n '5s/^# *//p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
tree=$1 suite=${2:-bookworm}
shift $(($# < 2 ? $# : 2))
if [[ ! -e $tree/usr/bin/python3 ]]; then
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv "$suite" "$tree" "$@" >&2
fi
tree=$(cd "$tree" && pwd)
cp /etc/resolv.conf /etc/hosts "$tree/etc"
cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
[[ ! -e /etc/pip.conf ]] || cp /etc/pip.conf "$tree/etc/pip.conf"
rm -rf "$tree/root/test"
mkdir -p "$tree/root/test"
wheels=("$root"/dist/laps_zoo-[0-9]*.whl)
[[ -f ${wheels[0]} && ${#wheels[@]} == 1 ]] || { echo 'error: dist/ must have one wheel of laps-zoo: make wheels' >&2; exit 1; }
wheel=$(basename "${wheels[0]}")
cp "$root/dist/$wheel" "$root/python/examples/evaluate.py" "$tree/root/test"
cat > "$tree/root/test/readme.py" << 'PYTHON'
import laps_zoo

model = laps_zoo.Model.load("shapes_vit")
photo = laps_zoo.read_dataset("shapes_vit").images[0]
print(model.score(photo, ["a red circle above a blue square", "a dog"]))
PYTHON

# inside COMMAND [ARGUMENT ...]: a command in the tree
inside() {
    unshare --mount sh -c 'mount --bind /proc "$0/proc" && exec chroot "$0" "$@"' "$tree" \
        env -i HOME=/root PATH=/root/test/env/bin:/usr/bin:/bin PIP_DISABLE_PIP_VERSION_CHECK=1 "$@"
}
# timed WHAT COMMAND [ARGUMENT ...]: a row of the table
timed() {
    local what=$1 start
    shift
    start=$(date +%s%3N)
    inside "$@" >&2
    start=$(($(date +%s%3N) - start))
    printf '| %s | %d.%03d s |\n' "$what" $((start / 1000)) $((start % 1000))
}
size() { du --summarize --block-size=1M --apparent-size "$1" | cut -f 1; }
printf '%s, %s CPUs\n\n| | |\n|---|---|\n' "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' "$tree/etc/os-release")" "$(nproc)"
printf '| wheel | %s MB |\n' "$(size "$root/dist/$wheel")"
timed 'virtual environment' python3 -m venv /root/test/env
timed '`pip install`, with downloads' pip install --quiet --no-cache-dir "/root/test/$wheel"
printf '| environment | %s MB |\n' "$(size "$tree/root/test/env")"
timed '`laps-zoo reproduce shapes_vit`, with drawing the scenes' laps-zoo reproduce shapes_vit --quiet
timed '`laps-zoo reproduce shapes_vit` again' laps-zoo reproduce shapes_vit --quiet
timed 'Python example of the README' python /root/test/readme.py
timed '`python/examples/evaluate.py`' python /root/test/evaluate.py
torch_wheels=("$root"/dist/laps_zoo_torch-[0-9]*.whl)
if [[ -f ${torch_wheels[0]} ]]; then
    cp "${torch_wheels[0]}" "$tree/root/test"
    printf '| wheel of `laps-zoo-torch` | %s MB |\n' "$(size "${torch_wheels[0]}")"
    timed '`pip install laps-zoo[torch]`, with downloads' pip install --quiet --no-cache-dir --find-links /root/test "/root/test/$wheel[torch]"
    printf '| environment | %s MB |\n' "$(size "$tree/root/test/env")"
    inside laps-zoo info --yaml shapes_vit | sed -e 's/^name: .*/name: few/' -e 's/drawn: {.*}/drawn: { seed: 7, train: 64, dev: 8, test: 8 }/' \
        -e '/^references:/,$d' -e '/^checkpoint:/d' > "$tree/root/test/few.yaml"
    few=(laps-zoo train /root/test/few.yaml --set train.epochs=1 --set train.batch_size=16 --device cpu --quiet)
    timed '`laps-zoo train`, 20 steps' "${few[@]}" --out /root/test/run
    timed '`torchrun --no-python --nproc_per_node=2 laps-zoo train`, 20 steps' \
        torchrun --no-python --standalone --nproc_per_node=2 "${few[@]}" --out /root/test/run-of-two
fi
