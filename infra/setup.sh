#!/usr/bin/env bash
# Creates .venv with the pinned environment, and the system packages where it may.
# Safe to repeat: a stamp keyed by the checkout's place, constraints.txt, pyproject.toml and this
# script makes it a no-op.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

HERE=$(pwd -P)
CACHE=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/uv}
UV_PIN=$(grep -E '^uv==' constraints.txt)
readonly HERE CACHE UV_PIN
readonly VENV=.venv
readonly STAMP="$VENV/.penstock-setup"
readonly DISK_GIB=12
# Beside what uv keeps, so that it goes with it: the pinned uv itself, and a note of each complete
# set of packages that came through this cache.
readonly KEPT="$CACHE/penstock"

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

packages_key() { cat constraints.txt pyproject.toml | sha256sum | cut -d' ' -f1; }

fingerprint() { { echo "$HERE"; cat constraints.txt pyproject.toml infra/setup.sh; } | sha256sum | cut -d' ' -f1; }

# ldconfig is in /sbin, which is not on the PATH of an ordinary user.
has_library() { grep -q "$1" <<<"$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null)"; }

# Java 17 is what Flink needs; JAVA_HOME wins over the PATH, as for Flink.
has_java_17() {
    local java=java
    [[ -z ${JAVA_HOME:-} ]] || java="$JAVA_HOME/bin/java"
    grep -q 'version "17[".]' <<<"$("$java" -version 2>&1)"
}

# Debian package names of what is missing; $1 is "needed" or "useful".
missing_packages() {
    if [[ $1 == needed ]]; then
        command -v python3.11 >/dev/null || echo python3.11
        python3.11 -c 'import ensurepip' 2>/dev/null || echo python3.11-venv
        has_java_17 || echo openjdk-17-jdk-headless
        command -v mvn >/dev/null || echo maven
        has_library libgomp.so.1 || echo libgomp1
    else
        command -v chromium >/dev/null || command -v google-chrome >/dev/null || echo chromium
        command -v redis-server >/dev/null || echo redis-server
    fi
}

# Java 17 may be installed and yet not be the one in use.
check_java() {
    local found=("${JVM_FOLDER:-/usr/lib/jvm}"/java-17-openjdk-*/bin/java)
    has_java_17 || ! [[ -x ${found[0]} ]] ||
        stop "Java 17 is installed, but another is in use. Run: export JAVA_HOME=${found[0]%/bin/java} ; then repeat make setup"
}

# Installs what is missing as root; otherwise names the command, and stops if it is needed.
system_packages() {
    local kind=$1 packages
    mapfile -t packages < <(missing_packages "$kind")
    ((${#packages[@]} == 0)) && return
    local command="apt-get install -y --no-install-recommends ${packages[*]}"
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        [[ $kind == useful ]] || stop "missing: ${packages[*]}. Run: sudo $command ; then repeat make setup"
        say "some tests will be skipped without ${packages[*]}: sudo $command"
        return
    fi
    say "installing ${packages[*]}"
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive $command -qq >/dev/null; }; then
        [[ $kind == useful ]] || stop "could not install ${packages[*]}; mend apt, then repeat make setup"
        say "could not install ${packages[*]}; tests that need them will be skipped"
    fi
    # Ours is started by 'penstock up redis'; the distribution's would hold its port.
    if [[ " ${packages[*]} " == *" redis-server "* ]] && command -v systemctl >/dev/null; then
        systemctl disable --now redis-server >/dev/null 2>&1 || true
    fi
}

# The first thing of all: what a first set-up costs, and whether there is room for it.
announce() {
    [[ ! -f $STAMP ]] || return 0
    local free_gib
    if [[ -f $KEPT/$(packages_key) && $(stat -c %d "$CACHE") == "$(stat -c %d .)" ]]; then
        say "from the packages in $CACHE: a minute at most, and little room"
        return
    fi
    free_gib=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
    ((free_gib >= DISK_GIB)) || stop "$free_gib GiB free here, $DISK_GIB GiB needed: free some space, then repeat make setup"
    say "first set-up: up to 3 GB to download and 7.5 GB on disk"
}

# Prints a uv of the pinned version: from .venv, from the PATH, or the one kept in the cache.
find_uv() {
    local candidate
    for candidate in "$VENV/bin/uv" "$(command -v uv || true)" "$KEPT/$UV_PIN/bin/uv"; do
        [[ -x $candidate && "uv==$("$candidate" --version | cut -d' ' -f2)" == "$UV_PIN" ]] || continue
        echo "$candidate"
        return
    done
}

# Lets pip bring the pinned uv, once for all checkouts.
fetch_uv() {
    local draft="$KEPT/.draft-$$"
    if ! "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --target "$draft" "$UV_PIN"; then
        rm -rf "$draft"
        stop "could not fetch $UV_PIN; mend the network, then repeat make setup"
    fi
    rm -rf "${KEPT:?}/$UV_PIN"
    mv -T "$draft" "$KEPT/$UV_PIN" || rm -rf "$draft"
}

# Scripts in .venv name their interpreter by its whole path: after a move of the checkout all fail.
make_venv() {
    grep -qsF -- "-m venv --clear $HERE/$VENV" "$VENV/pyvenv.cfg" &&
        "$VENV/bin/python" -c 'import pip' 2>/dev/null && return
    python3.11 -m venv --clear "$HERE/$VENV"
}

install() {
    "$UV" pip install "$@" --python "$VENV/bin/python" \
        --constraint constraints.txt "$UV_PIN" --editable '.[dev]'
}

jars() {
    infra/jars/build.sh
    # A stream runs without them too; what stood in the way was said.
    "$VENV/bin/python" -m infra.services.class_archive || true
}

main() {
    if [[ -x $VENV/bin/penstock && -f $STAMP && $(<"$STAMP") == "$(fingerprint)" ]]; then
        jars
        return
    fi
    announce
    check_java
    system_packages needed
    check_java
    system_packages useful
    make_venv
    mkdir -p "$KEPT"
    UV=$(find_uv)
    if [[ -z $UV ]]; then
        fetch_uv
        UV="$KEPT/$UV_PIN/bin/uv"
    fi
    # From uv's cache alone where it suffices: a second checkout then costs seconds and no network.
    install --offline --quiet 2>/dev/null || install
    touch "$KEPT/$(packages_key)"
    jars
    fingerprint >"$STAMP"
    say "done: $VENV is ready; run $VENV/bin/penstock, or first: source $VENV/bin/activate"
}

main "$@"
