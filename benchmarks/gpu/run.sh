#!/bin/bash
# Run the GPU kit in the root of the repository: OUT=FOLDER bash benchmarks/gpu/run.sh
# The results are $OUT/results.jsonl, $OUT/report.md, $OUT/log.txt and profiles. docs/gpu.md explains them.
set -u
SECONDS=0
mkdir -p "${OUT:?set OUT to the folder for the results}"
OUT=$(realpath "$OUT")
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
DEADLINE=${DEADLINE:-520} # seconds; no part runs longer
SLOWER=1                  # a factor of the time limits
if [ "${DDO_DEVICE:-}" = cpu ]; then DEADLINE=3600 SLOWER=6; fi
WORK=${WORK:-/tmp/ddo-gpu}
KIT=$PWD/.gpu-kit
rm -rf "$WORK"
mkdir -p "$WORK/site" "$WORK/source" "$WORK/networks"
export OUT PYTHONUNBUFFERED=1 MASTER_ADDR=127.0.0.1 # a machine without network may not resolve its own name
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo} GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo}
rm -f "$OUT"/{results.jsonl,report.md,log.txt,profile-*.txt}

log() { sed -u "s/^/[$1] /" >>"$OUT/log.txt"; }

part() { # NAME LIMIT COMMAND...: run a command within a time limit, and record how it ended
    local name=$1 limit=$(($2 * SLOWER)) left=$((DEADLINE - SECONDS)) begin=$SECONDS
    shift 2
    [[ $name =~ ${PARTS:-.} ]] || return
    if ((left < 10)); then
        "$PYTHON" -m benchmarks.gpu.results "$name" "left out" 0 >>"$OUT/log.txt"
        return
    fi
    ((limit > left)) && limit=$left
    timeout -k 5 "$limit" "$@" 2>&1 | log "$name"
    "$PYTHON" -m benchmarks.gpu.results "$name" "${PIPESTATUS[0]}" $((SECONDS - begin)) >>"$OUT/log.txt" 2>&1
    echo "$SECONDS s: $name ended"
}

beside() { # COMMAND...: in the background; on a CPU, which has few cores, one after the other
    if ((SLOWER > 1)); then "$@"; else "$@" & fi
}

in_checkout() { # CHECKOUT COMMAND...: with the checkout's modules on the path
    local checkout=$WORK/$1
    shift
    PYTHONPATH=$checkout:$PYTHONPATH "$PYTHON" -m "$@"
}
export -f in_checkout
export WORK PYTHON

# 1. Install the package and what the machine lacks; unpack the checkouts.
{
    nvidia-smi || echo "no nvidia-smi"
    "$PYTHON" --version
    install="$PYTHON -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir"
    $install --target "$WORK/build" "$KIT"/build/*.whl
    $install --target "$WORK/site" "$KIT"/wheels/*.whl
    cp -r ddo_plugin integrations patches recipes pyproject.toml README.md LICENSE "$WORK/source"
    PYTHONPATH=$WORK/build $install --no-build-isolation --upgrade --target "$WORK/site" "$WORK/source"
    for archive in "$KIT"/checkouts/*.tar.gz; do tar -xzf "$archive" -C "$WORK"; done
} 2>&1 | log install
export PYTHONPATH=$WORK/site${PYTHONPATH:+:$PYTHONPATH}
"$PYTHON" -m ddo_plugin doctor "$WORK/edm" 2>&1 | log install
echo "$SECONDS s: installed"

# 2. Correctness, and the networks of the speed parts: side by side, because nothing is timed.
correct=benchmarks.gpu.correct_diffusion
for upstream in edm edm2 var; do
    checkout=${upstream/var/VAR}
    module=benchmarks.gpu.make_networks
    beside part "networks $upstream" 150 bash -c 'in_checkout "$@"' - "$checkout" $module $upstream "$WORK/networks"
done
beside part edm 170 "$PYTHON" -m $correct edm "$WORK/edm" "$WORK/correct-edm"
beside part edm2 170 "$PYTHON" -m $correct edm2 "$WORK/edm2" "$WORK/correct-edm2"
beside part var 200 "$PYTHON" -m benchmarks.gpu.correct_var "$WORK/VAR" "$WORK/correct-var"
wait

# 3. Speed and memory: one after the other, the most important first.
speed() { # NAME LIMIT CHECKOUT MODULE ARGUMENT
    part "speed $1" "$2" bash -c 'in_checkout "$@"' - "$3" "$4" "$5" "$WORK/networks"
}
depth=16
[ "${DDO_DEVICE:-}" = cpu ] && depth=2
speed edm 100 edm benchmarks.gpu.speed_diffusion edm
speed var-d$depth 110 VAR benchmarks.gpu.speed_var $depth
speed edm2-s 90 edm2 benchmarks.gpu.speed_diffusion edm2-s
speed "refset edm" 150 edm benchmarks.gpu.speed_refset edm
speed "refset edm2-s" 130 edm2 benchmarks.gpu.speed_refset edm2-s
speed "refset var-d$depth" 60 VAR benchmarks.gpu.speed_refset var-d$depth
speed edm2-l 90 edm2 benchmarks.gpu.speed_diffusion edm2-l
[ $depth = 16 ] && speed var-d30 120 VAR benchmarks.gpu.speed_var 30
part digits 480 "$PYTHON" -m benchmarks.gpu.digits_proof "$WORK/edm" "$KIT" "$WORK/digits"

# 4. The summary.
"$PYTHON" -m benchmarks.gpu.report "$OUT/results.jsonl" | tee "$OUT/report.md"
echo "$SECONDS s: done"
