#!/usr/bin/env bash
# Creates .venv with the pinned environment, and the system packages where it may.
# Safe to repeat: a stamp keyed by constraints.txt and pyproject.toml makes it a no-op.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv
readonly STAMP="$VENV/.penstock-setup"
readonly DISK_GIB=12

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

fingerprint() { cat constraints.txt pyproject.toml infra/setup.sh | sha256sum | cut -d' ' -f1; }

# ldconfig is in /sbin, which is not on the PATH of an ordinary user.
has_library() { grep -q "$1" <<<"$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null)"; }

# Debian package names of what is missing; $1 is "needed" or "useful".
missing_packages() {
    if [[ $1 == needed ]]; then
        command -v python3.11 >/dev/null || echo python3.11
        python3.11 -c 'import ensurepip' 2>/dev/null || echo python3.11-venv
        command -v java >/dev/null || echo openjdk-17-jdk-headless
        has_library libgomp.so.1 || echo libgomp1
    else
        command -v mvn >/dev/null || echo maven
        command -v chromium >/dev/null || command -v google-chrome >/dev/null || echo chromium
    fi
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
}

check_disk() {
    local free_gib
    free_gib=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1048576))
    ((free_gib >= DISK_GIB)) || stop "$free_gib GiB free here, $DISK_GIB GiB needed: free some space, then repeat make setup"
}

install() {
    "$VENV/bin/uv" pip install "$@" --python "$VENV/bin/python" \
        --constraint constraints.txt --editable '.[dev]'
}

main() {
    if [[ -x $VENV/bin/penstock && -f $STAMP && $(<"$STAMP") == "$(fingerprint)" ]]; then
        return
    fi
    system_packages needed
    system_packages useful
    "$VENV/bin/python" -c 'import pip' 2>/dev/null || python3.11 -m venv --clear "$VENV"
    local uv_pin
    uv_pin=$(grep -E '^uv==' constraints.txt)
    [[ "uv $("$VENV/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" == "uv ${uv_pin#uv==}" ]] ||
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$uv_pin"
    # From uv's cache alone where it suffices: a second checkout then costs seconds and no network.
    if ! install --offline --quiet 2>/dev/null; then
        if ! [[ -f $STAMP ]]; then
            check_disk
            say "first set-up: about 3 GB to download and 7.5 GB on disk"
        fi
        install
    fi
    fingerprint >"$STAMP"
    say "done: $VENV is ready"
}

main "$@"
