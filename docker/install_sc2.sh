#!/usr/bin/env bash
# Installs StarCraft II for Linux (4.10) and the maps of SMAC and SMACv2.
set -euo pipefail

SC2PATH=${SC2PATH:-$HOME/StarCraftII}
LICENCE=https://blzdistsc2-a.akamaihd.net/AI_AND_MACHINE_LEARNING_LICENSE.html
PASSWORD=iagreetotheeula # of the archive; who types it accepts the licence, says Blizzard

# The version that SMAC's papers since 2021 and EPyMARL call 2.4.10: 4.10, build 75689.
GAME_URL=${SC2_GAME_URL:-https://blzdistsc2-a.akamaihd.net/Linux/SC2.4.10.zip}
GAME_SHA256=${SC2_GAME_SHA256:-} # Blizzard publishes none
GAME_BINARY=Versions/Base75689/SC2_x64

# The 23 maps of SMAC and those of SMACv2, MIT licence. The checksum is that of the file in this commit.
COMMIT=577ab5a2cff2391f8df582da5731ea9cd6adf3c6
MAPS_URL=${SC2_MAPS_URL:-https://github.com/oxwhirl/smacv2/raw/$COMMIT/smacv2/env/starcraft2/maps/SMAC_Maps/SMAC_Maps.zip}
MAPS_SHA256=${SC2_MAPS_SHA256:-e507cc53b49f0ac334732d62628a42e0be2c53e9df29eeeaf608bb861a2a76cd}

TRIES=${SC2_TRIES:-5}
WAIT=${SC2_WAIT:-5} # seconds before the second try; then twice as many each time

usage() {
    cat <<USAGE
usage: [SC2PATH=FOLDER] $0 --accept-licence

Installs StarCraft II for Linux, version 4.10 (which SMAC calls 2.4.10), and the maps of SMAC and SMACv2 into
SC2PATH (now: $SC2PATH). What is there already is left alone; a download that was cut goes on where it stopped.

The game is Blizzard's. Using it means accepting the Blizzard StarCraft II AI and Machine Learning License:
  $LICENCE
Read it; if you accept it, give --accept-licence or set SC2_ACCEPT_LICENCE=yes.

Checked: the size that the server tells, each file's checksum inside the archives (CRC-32), and the maps' SHA-256.
Blizzard publishes no checksum of the game; its SHA-256 is printed, and compared where SC2_GAME_SHA256 gives one.

SC2_GAME_URL, SC2_MAPS_URL, SC2_GAME_SHA256 and SC2_MAPS_SHA256 replace where from and which.
exit status: 0 installed; 1 not, the reason last; 2 no licence accepted, or a wrong option
USAGE
}

die() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

main() {
    read_options "$@"
    for program in curl unzip sha256sum; do
        command -v "$program" >/dev/null || die "$program is not installed; install it with: apt-get install curl unzip coreutils"
    done
    mkdir -p "$SC2PATH" 2>/dev/null || die "SC2PATH=$SC2PATH cannot be made"
    local work=$SC2PATH/.install
    mkdir -p "$work" 2>/dev/null || die "SC2PATH=$SC2PATH cannot be written"
    install_game "$work"
    install_maps "$work"
    rm -rf "$work"
    echo "installed in $SC2PATH; tell the trainer with: export SC2PATH=$SC2PATH"
}

read_options() {
    local accepted=${SC2_ACCEPT_LICENCE:-}
    for option in "$@"; do
        case $option in
        --accept-licence | --accept-license) accepted=yes ;;
        -h | --help) usage && exit 0 ;;
        *) die "unknown option $option; --help tells the options" 2 ;;
        esac
    done
    if [ "$accepted" != yes ]; then
        usage >&2
        die "the licence is not accepted" 2
    fi
    echo "you accept the Blizzard StarCraft II AI and Machine Learning License: $LICENCE"
}

install_game() {
    if [ -x "$SC2PATH/$GAME_BINARY" ]; then
        echo "the game is there already: $SC2PATH/$GAME_BINARY"
        return
    fi
    if compgen -G "$SC2PATH/Versions/Base*" >/dev/null; then
        die "SC2PATH=$SC2PATH holds another version, or half of one, in Versions; give another SC2PATH, or delete that"
    fi
    fetch "$GAME_URL" "$1/game.zip" "$GAME_SHA256"
    unpack "$1/game.zip" "$1/game"
    local tree=$1/game/StarCraftII
    if [ ! -f "$tree/$GAME_BINARY" ]; then
        rm -rf "$1/game" "$1/game.zip"
        die "$GAME_URL holds no StarCraftII/$GAME_BINARY"
    fi
    chmod +x "$tree/$GAME_BINARY"
    # Versions last, whole: it is what tells that the game is there. The rest may meet maps that are there already.
    rm -rf "$1/Versions"
    mv "$tree/Versions" "$1/Versions"
    cp -rlf "$tree/." "$SC2PATH"
    mv -T "$1/Versions" "$SC2PATH/Versions"
    rm -rf "$1/game" "$1/game.zip"
}

install_maps() {
    local maps=$SC2PATH/Maps/SMAC_Maps
    # .sha256 holds the archive's checksum, and those of the maps that came with it.
    if [ "$(head -n 1 "$maps/.sha256" 2>/dev/null)" = "# $MAPS_SHA256" ] && (cd "$maps" && sha256sum --status -c .sha256); then
        echo "the maps are there already: $maps"
        return
    fi
    fetch "$MAPS_URL" "$1/maps.zip" "$MAPS_SHA256"
    unpack "$1/maps.zip" "$1/maps" -j
    compgen -G "$1/maps/*.SC2Map" >/dev/null || die "$MAPS_URL holds no map"
    mkdir -p "$maps"
    (cd "$1/maps" && echo "# $MAPS_SHA256" && sha256sum -- *.SC2Map) >"$1/.sha256"
    mv -f -t "$maps" "$1/maps/"*.SC2Map
    mv -f "$1/.sha256" "$maps/.sha256"
    echo "maps: $(grep -c SC2Map "$maps/.sha256") in $maps"
    rm -rf "$1/maps" "$1/maps.zip"
}

# fetch URL FILE SHA256: all of FILE, or the reason why not. What a cut download left is gone on with.
fetch() {
    local wait=$WAIT try
    for ((try = 1; ; try++)); do
        fetch_once "$1" "$2" && break
        [ "$try" -lt "$TRIES" ] || die "$1: $REASON; the same command goes on from $(length "$2") bytes"
        sleep "$wait"
        wait=$((2 * wait))
    done
    check_sum "$1" "$2" "$3"
}

# fetch_once URL FILE: true when FILE is as long as the server tells; else REASON says why not.
fetch_once() {
    local size status=0
    size=$(size_of "$1") || status=$?
    REASON="not to be had (curl's status $status)"
    [ "$status" -eq 0 ] || return 1
    # Where the server tells no size, or less than is there, the part that is there cannot be trusted.
    if [ -z "$size" ] || [ "$(length "$2")" -gt "$size" ]; then rm -f "$2"; fi
    [ -n "$size" ] && [ "$(length "$2")" -eq "$size" ] && return 0
    echo "downloading $1: ${size:-unknown} bytes, $(length "$2") of them there"
    curl --fail --location --silent --show-error --continue-at - --output "$2" "$1" || status=$?
    if [ "$status" -eq 33 ]; then rm -f "$2"; fi # the server cannot go on in the middle
    REASON="the download failed (curl's status $status)"
    [ "$status" -eq 0 ] || return 1
    REASON="$(length "$2") bytes came, not $size"
    [ -z "$size" ] || [ "$(length "$2")" -eq "$size" ]
}

check_sum() {
    local sum
    sum=$(sha256sum "$2" | cut -d ' ' -f 1)
    echo "SHA-256 $sum  $1"
    if [ -n "$3" ] && [ "$sum" != "$3" ]; then
        rm -f "$2"
        die "$1: the SHA-256 is not $3; the file was deleted, run the same command again"
    fi
}

# unpack ARCHIVE FOLDER [-j]. unzip checks the CRC-32 of each file; with -j it leaves out the archive's folders.
unpack() {
    rm -rf "$2"
    local status=0
    unzip -qo ${3:+"$3"} -P "$PASSWORD" "$1" -d "$2" </dev/null || status=$?
    [ "$status" -eq 0 ] && return
    rm -rf "$2"
    [ "$status" -eq 50 ] && die "no room to unpack $1; make some and run the same command again"
    rm -f "$1"
    die "$1 is damaged (unzip's status $status) and was deleted; run the same command again"
}

size_of() { # bytes, as the server tells; nothing where it does not
    curl --fail --location --silent --head "$1" | tr -d '\r' |
        awk 'tolower($1) == "content-length:" { size = $2 } END { print size }'
}

length() {
    stat --format %s "$1" 2>/dev/null || echo 0
}

main "$@"
