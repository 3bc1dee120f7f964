#!/bin/bash
# Measures `laps-zoo serve` on drawn scenes with wrk (Debian package `wrk`):
#
#   bench/serve_load.sh [FOLDER]
#
# speed     Requests a second, p50 and p99 of /v1/search and /v1/embeddings at concurrency 1, 4, 16 and 64, and one
#           `laps-zoo search` after the other.
# memory    Resident memory before and after 100,000 embedded texts (REQUESTS). It may grow by 16 MB.
# overload  A queue of 4 texts: only the statuses 200 and 429, and no failed connection.
# stop      A stop under load: every request that was sent is answered, or its connection was never accepted.
#
# PARTS="memory stop" runs some of them. The exit code is 1 if one of the last three does not hold.
#
# LAPS_ZOO is the program, `target/release/laps-zoo` by default, ENTRY the entry (`shapes_vit`), SECONDS_EACH the duration of a
# measurement (10). GRAPHS is a folder of exported graphs to serve instead of the entry, of which `laps-bench`'s example
# `random_checkpoint` and `laps-zoo export` make one with the size of a published model. The load of the machine is printed,
# because the generator shares its cores with the server.
set -eu
program=${LAPS_ZOO:-target/release/laps-zoo}
model=(--entry "${ENTRY:-shapes_vit}")
[ -z "${GRAPHS:-}" ] || model=(--graphs "$GRAPHS")
seconds=${SECONDS_EACH:-10}
requests=${REQUESTS:-100000}
folder=${1:-$(mktemp -d)}
command -v wrk > /dev/null || { echo 'wrk is not installed (Debian package `wrk`)' >&2; exit 2; }
mkdir -p "$folder"
server=
# The clients of the part `stop` run until this file exists.
stopped=$folder/stopped
trap 'touch "$stopped"; [ -z "$server" ] || kill "$server" 2> /dev/null || true' EXIT

# The drawn scenes are written to the cache when their entry is evaluated.
export LAPS_ZOO_CACHE=$folder/cache
"$program" reproduce shapes_vit --limit 200 --quiet > /dev/null
images=$(find "$LAPS_ZOO_CACHE" -type d -name images | head -n 1)
"$program" index "$images" "${model[@]}" --out "$folder/scenes.index" --quiet

# A request with a text that differs each time, and a count of statuses at the end.
cat > "$folder/search.lua" << 'LUA'
local colors = { "red", "green", "blue", "yellow", "small", "large" }
local shapes = { "circle", "square", "star", "triangle" }
local threads, count = {}, 0
function setup(thread) table.insert(threads, thread) end
function init(arguments)
  path, field, statuses = arguments[1], arguments[2], {}
end
function request()
  count = count + 1
  local text = "a " .. colors[count % 6 + 1] .. " " .. shapes[math.floor(count / 6) % 4 + 1] .. " " .. count % 997
  local body = '{"' .. field .. '":"' .. text .. '"}'
  return wrk.format("POST", path, { ["Content-Type"] = "application/json" }, body)
end
function response(status) statuses[status] = (statuses[status] or 0) + 1 end
function done(summary, latency)
  local all = {}
  for _, thread in ipairs(threads) do
    for status, number in pairs(thread:get("statuses")) do all[status] = (all[status] or 0) + number end
  end
  local errors = summary.errors
  io.write(string.format("%.1f requests/s, p50 %.1f ms, p99 %.1f ms, statuses", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
  for status, number in pairs(all) do io.write(string.format(" %d: %d", status, number)) end
  io.write(string.format(", errors connect %d read %d write %d timeout %d\n", errors.connect, errors.read, errors.write,
    errors.timeout))
end
LUA

# start [OPTION ...]
start() {
    "$program" serve "$folder/scenes.index" "${model[@]}" --port 0 --quiet "$@" > "$folder/server.out" 2> "$folder/server.err" &
    server=$!
    url=
    while [ -z "$url" ]; do
        kill -0 "$server" 2> /dev/null || { cat "$folder/server.err" >&2; exit 1; }
        url=$(sed -n 's/^listening on //p' "$folder/server.out")
    done
}
stop() {
    kill -INT "$server"
    wait "$server"
    server=
}
# load CONNECTIONS PATH FIELD [OPTION ...]
load() {
    local connections=$1 path=$2 field=$3
    shift 3
    wrk -t1 -c"$connections" -d"${seconds}s" --timeout 60s "$@" -s "$folder/search.lua" "$url" -- "$path" "$field" | tail -n 1
}
kibibytes() { awk '/VmRSS/ { print $2 }' "/proc/$server/status"; }
megabytes() { awk "BEGIN { print $1 / 1024 \" MB\" }"; }
# has PART
has() { case " ${PARTS:-speed memory overload stop} " in *" $1 "*) ;; *) false ;; esac; }
# fail MESSAGE
fail() {
    echo "failed: $1" >&2
    failed=1
}

failed=0
uname -sr
nproc
uptime

speed() {
    start
    for path in '/v1/search query' '/v1/embeddings input'; do
        set -- $path
        for connections in 1 4 16 64; do
            echo "$1, $connections connections: $(load "$connections" "$1" "$2")"
        done
    done

    runs=20
    began=$(date +%s%N)
    for run in $(seq $runs); do
        "$program" search "$folder/scenes.index" "a red circle $run" "${model[@]}" --quiet > /dev/null
    done
    echo "laps-zoo search, one process after the other: $(( ($(date +%s%N) - began) / runs / 1000000 )) ms a search"
    stop
}

memory() {
    local before after answered=0
    start
    # The memory of threads and buffers grows with the first requests.
    load 16 /v1/embeddings input > "$folder/round"
    before=$(kibibytes)
    while [ "$answered" -lt "$requests" ]; do
        load 16 /v1/embeddings input > "$folder/round"
        answered=$((answered + $(grep -o ' 200: [0-9]*' "$folder/round" | cut -d: -f2)))
        grep -q ' [345][0-9][0-9]: ' "$folder/round" && { echo 'a request failed:' "$(cat "$folder/round")" >&2; exit 1; }
    done
    after=$(kibibytes)
    echo "resident memory: $(megabytes "$before") before, $(megabytes "$after") after $answered requests"
    [ "$after" -le $((before + 16384)) ] || fail 'resident memory grew by more than 16 MB'
    stop
}

overload() {
    start --queue 4 --max-inputs 4
    load 64 /v1/search query > "$folder/round"
    echo "queue of 4, 64 connections: $(cat "$folder/round")"
    grep -q ' 429: ' "$folder/round" || fail 'no request was refused'
    grep -o ' [1-5][0-9][0-9]: ' "$folder/round" | grep -v -e ' 200: ' -e ' 429: ' && fail 'expected only the statuses 200 and 429'
    grep -q 'errors connect 0 read 0 write 0 timeout 0' "$folder/round" || fail 'there are failed connections'
    stop
}

stop_under_load() {
    # Each client sends requests on new connections until the server is gone, and logs each answer that began and was cut off.
    start
    rm -f "$stopped"
    for client in 1 2 3 4 5 6 7 8; do
        while [ ! -e "$stopped" ]; do
            status=0
            curl -sS -o /dev/null -w '%{http_code}\n' -H 'Content-Type: application/json' -d '{"query":"a red circle"}' \
                "$url/v1/search" 2> /dev/null || status=$?
            # 7: not accepted. Anything else but 0 is a request that was accepted and lost.
            [ "$status" = 0 ] || echo "curl $status"
        done > "$folder/client-$client" &
    done
    sleep 2
    kill -INT "$server"
    code=0
    wait "$server" || code=$?
    server=
    touch "$stopped"
    wait
    lost=$(cat "$folder"/client-? | grep -c -v -e '^200$' -e '^curl 7$' -e '^000$' || true)
    answered=$(cat "$folder"/client-? | grep -c '^200$' || true)
    echo "stop under load: exit code $code, $answered answered, $lost lost"
    [ "$code" = 0 ] && [ "$lost" = 0 ] || fail 'the stop has lost requests'
    [ "$answered" -gt 0 ] || fail 'no request was answered before the stop'
}

if has speed; then speed; fi
if has memory; then memory; fi
if has overload; then overload; fi
if has stop; then stop_under_load; fi
uptime
exit "$failed"
