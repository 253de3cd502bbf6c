#!/usr/bin/env bash
# All that is to be known about a GPU, in under 8 minutes and without a network:
#
#     bash bench/gpu.sh                        the first python3 that is found
#     PYTHON=.venv/bin/python bash bench/gpu.sh
#     EPYMARL=../epymarl bash bench/gpu.sh     beside EPyMARL on the same card
#
# It installs nothing into that Python. Packages that it lacks can lie as wheels in bench/wheels: they are unpacked into
# a temporary folder. Where there is a network, for a Python 3.12 elsewhere:
#
#     grep -v '^torch' requirements.txt > /tmp/core.txt
#     python3 -m pip download -d bench/wheels --python-version 3.12 --only-binary :all: -r /tmp/core.txt pytest==9.2.0
#
# What is missing is skipped by name. Each part has a time limit and prints as soon as it is done. Exit status: 0, or 1
# where a part failed or ran out of time.
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
epymarl=${EPYMARL:-bench/wheels/epymarl}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "interrupted"; exit 130' INT TERM
status=0

has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }

# part NAME SECONDS "PACKAGES" COMMAND...: run it, or say why not.
part() {
    local name=$1 limit=$2 needs=$3 began=$SECONDS code
    shift 3
    echo
    echo "== $name"
    if [ -z "$card" ]; then
        echo "skipped: $no_card"
        return
    fi
    for package in $needs; do
        if ! has "$package"; then
            echo "skipped: the package $package is missing"
            return
        fi
    done
    timeout --kill-after=5 "$limit" "$@" 2>&1
    code=$?
    case $code in
        0) echo "-- $name: $((SECONDS - began)) s" ;;
        124 | 137) echo "-- $name: stopped after its limit of $limit s"; status=1 ;;
        *) echo "-- $name: failed with status $code after $((SECONDS - began)) s"; status=1 ;;
    esac
}

# play COPIES: so many runs of QTRAN-base on predator-prey at once on the card; fails if one does.
play() {
    local i jobs=() failed=0 began
    began=$(date +%s.%N)
    for i in $(seq "$1"); do
        "$python" src/main.py --config=qtran_base --env-config=predator_prey with seed="$i" use_cuda=True \
            t_max=48000 learning_starts=0 buffer_size=2000 test_nepisode=32 test_interval=1000000 save_model=False \
            local_results_path="$work/together" >"$work/run$i.txt" 2>&1 &
        jobs+=($!)
    done
    for i in "${jobs[@]}"; do wait "$i" || failed=1; done
    [ "$failed" = 0 ] || tail -n 3 "$work"/run*.txt
    "$python" -c "import sys; print(f'$1 at once: {float(sys.argv[2]) - float(sys.argv[1]):.1f} s')" "$began" "$(date +%s.%N)"
    return "$failed"
}

if [ "${1:-}" = play ]; then # a part of this script that `timeout` can call
    play "$2"
    exit
fi

echo "== versions"
if compgen -G "bench/wheels/*.whl" >/dev/null; then
    "$python" -m pip install --quiet --no-index --no-deps --target "$work/packages" bench/wheels/*.whl 2>&1 | tail -n 2
    export PYTHONPATH="$work/packages${PYTHONPATH:+:$PYTHONPATH}"
fi
"$python" --version || { echo "skipped all: $python is no Python"; exit 1; }
for package in torch numpy pyyaml rich sacred setuptools matplotlib pytest jaxmarl; do
    "$python" -c "import importlib.metadata as m; print('$package', m.version('$package'))" 2>/dev/null \
        || echo "$package is missing"
done
card=$("$python" -c "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')" 2>/dev/null)
no_card="torch sees no GPU"
has torch || no_card="the package torch is missing"
if [ -n "$card" ]; then
    "$python" -c "import torch; print('CUDA', torch.version.cuda, 'cuDNN', torch.backends.cudnn.version())"
    command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    echo "card: $card"
else
    echo "no card: $no_card"
fi
peer=()
if [ -d "$epymarl" ]; then peer=(--peer "$epymarl"); else echo "no checkout of EPyMARL: ours alone (EPYMARL=PATH)"; fi

bench=("$python" bench/run.py)
part "tests marked cuda" 100 "torch numpy yaml rich pytest" \
    "$python" -m pytest -p no:cacheprovider -m cuda tests/test_cuda.py -rs
part "update, 2s3z" 85 "torch numpy yaml" "${bench[@]}" update --device cuda --repeats 5 --only 2s3z "${peer[@]}"
part "update, MMM2" 85 "torch numpy yaml" "${bench[@]}" update --device cuda --repeats 5 --only MMM2 "${peer[@]}"
part "predator-prey, end to end" 50 "torch numpy yaml rich sacred pkg_resources" \
    "${bench[@]}" train --device cuda --repeats 1 --only predator-prey QTRAN-base
part "SMAX, end to end" 70 "torch numpy yaml rich sacred pkg_resources jaxmarl" \
    "${bench[@]}" train --device cuda --repeats 1 --only smax 3m
part "one run on the card" 25 "torch numpy yaml rich sacred pkg_resources" bash bench/gpu.sh play 1
part "four runs on the card" 45 "torch numpy yaml rich sacred pkg_resources" bash bench/gpu.sh play 4
echo
echo "done in $SECONDS s"
exit $status
