#!/usr/bin/env bash
# Trains in a container: on the GPU where there is one, results in ./results.
set -euo pipefail

usage() {
    cat <<USAGE
usage: $0 --config=ALGORITHM --env-config=ENVIRONMENT [with KEY=VALUE ...]
       $0 doctor|sweep|report|main [its arguments]

  $0 --config=qtran_alt --env-config=matrix_game with seed=1
  SC2PATH=\$HOME/StarCraftII IMAGE=qtran:sc2 $0 --config=qtran_alt --env-config=sc2

The arguments are those of src/main.py, or of the named command. Results are written to \$RESULTS (now: $RESULTS), by
your own user. Where \$SC2PATH is a folder, it is the game's folder inside too.

ENGINE   docker, or what takes its arguments (podman)           now: $ENGINE
GPU      yes, no, or auto: yes where nvidia-smi lists one        now: $GPU
IMAGE    built when it is not there, from the target after the colon   now: $IMAGE
TORCH_INDEX, SC2_ACCEPT_LICENCE   for that build; docker/Dockerfile tells what they are

exit status: that of the command inside
USAGE
}

has_gpu() {
    nvidia-smi -L 2>/dev/null | grep -q '^GPU'
}

main() {
    case ${1:-} in
    doctor | sweep | report | main) local command=src/$1.py && shift ;;
    "" | -h | --help) usage && exit 0 ;;
    *) local command=src/main.py ;;
    esac
    command -v "$ENGINE" >/dev/null || {
        echo "error: $ENGINE is not installed; install it, or name another with ENGINE=podman" >&2
        exit 127
    }
    if ! "$ENGINE" image inspect "$IMAGE" >/dev/null 2>&1; then
        "$ENGINE" build --file "$HERE/Dockerfile" --target "${IMAGE##*:}" --tag "$IMAGE" \
            --build-arg "TORCH_INDEX=${TORCH_INDEX:-}" --build-arg "SC2_ACCEPT_LICENCE=${SC2_ACCEPT_LICENCE:-}" "$HERE/.."
    fi
    mkdir -p "$RESULTS"
    # --init hands signals on and buries what a dead game leaves; environments in processes share memory. After `stop` a
    # run ends its round and saves its state.
    local options=(--rm --init --stop-timeout=180 --shm-size=1g --user "$(id -u):$(id -g)" --volume "$(realpath "$RESULTS"):/app/results")
    [ "$GPU" = yes ] && options+=(--gpus all)
    [ -t 0 ] && [ -t 1 ] && options+=(--interactive --tty)
    [ -d "${SC2PATH:-}" ] && options+=(--volume "$(realpath "$SC2PATH"):/opt/StarCraftII" --env SC2PATH=/opt/StarCraftII)
    exec "$ENGINE" run "${options[@]}" "$IMAGE" python "$command" "$@"
}

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ENGINE=${ENGINE:-docker}
RESULTS=${RESULTS:-results}
GPU=${GPU:-auto}
if [ "$GPU" = auto ]; then GPU=$(has_gpu && echo yes || echo no); fi
IMAGE=${IMAGE:-qtran:$([ "$GPU" = yes ] && echo cuda || echo cpu)}
main "$@"
