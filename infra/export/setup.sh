#!/usr/bin/env bash
# Makes .venvs/FORMAT for an export format whose packages clash with those of .venv.
# Safe to repeat: a stamp keyed by the checkout's place, the constraints and this script makes it a
# no-op. Packages come through uv's cache, by hard links: what .venv holds costs no room again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly FORMAT=${1:-}
readonly VENV=".venvs/$FORMAT" PINS="infra/export/constraints-$FORMAT.txt"
readonly UV=.venv/bin/uv

say() { printf 'export: %s\n' "$*"; }
stop() { printf 'export: %s\n' "$*" >&2; exit 1; }

# What is asked for; all else follows at the versions tried together.
case $FORMAT in
    executorch) packages=(torch executorch) ;;
    tflite) packages=(torch litert-torch) ;;
    coreml) packages=(torch coremltools) ;;
    *) stop "FORMAT is '$FORMAT'; give executorch, tflite or coreml, e.g. make export-venv FORMAT=tflite" ;;
esac
[[ -x $UV ]] || stop "$UV is missing; run make setup first"

fingerprint() { { pwd -P; cat "$PINS" infra/export/setup.sh; } | sha256sum | cut -d' ' -f1; }

install() {
    "$UV" pip install "$@" --python "$VENV/bin/python" --constraint "$PINS" "${packages[@]}"
}

if [[ -f $VENV/.complete && $(<"$VENV/.complete") == "$(fingerprint)" ]]; then
    exit 0
fi
say "$FORMAT: up to 3 GB to download, once for all checkouts"
rm -rf "$VENV"
"$UV" venv --quiet --python python3.11 "$VENV"
# From uv's cache alone where it suffices: seconds then, and no network.
install --offline --quiet 2>/dev/null || install
fingerprint >"$VENV/.complete"
say "$VENV is ready: penstock export MODEL --to $FORMAT"
