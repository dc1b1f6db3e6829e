#!/usr/bin/env bash
# What penstock-lite needs on 64-bit ARM (glibc 2.28 or newer), resolved and pinned here.
#
#   infra/lite/arm64.sh                        writes .penstock/dist/lite-aarch64.txt
#   infra/lite/arm64.sh MODEL.onnx INPUT...    also holds MODEL on ARM against its record, of which
#                                              INPUT are images: Debian's Python for arm64 and the
#                                              ARM wheels, under QEMU
#
# QEMU 10 or newer: 7.2 ends with a segmentation fault while ONNX Runtime 1.32 is loaded. QEMU names
# another one, QEMU_CPU the processor, for example cortex-a72.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly OUT=.penstock/dist
readonly PINS=$OUT/lite-aarch64.txt
readonly ROOT=.penstock/arm64
readonly PLATFORM=(--python-platform aarch64-manylinux_2_28 --python-version 3.11)
readonly UV=.venv/bin/uv
# Python 3.11 and what it and the wheels link to.
readonly DEBS=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1
    libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5)

stop() { printf 'lite-arm64: %s\n' "$*" >&2; exit 1; }

pin() {
    mkdir -p "$OUT"
    printf 'numpy\nonnxruntime\n' |
        "$UV" pip compile - "${PLATFORM[@]}" --python .venv/bin/python --quiet --no-header \
            --constraint constraints.txt --only-binary :all: --generate-hashes --output-file "$PINS"
    echo "lite-arm64: $PINS, $(grep -c '==' "$PINS") packages"
}

# A root with Python for arm64, from packages that are unpacked and not installed.
unpack() {
    [[ ! -x $ROOT/root/usr/bin/python3.11 ]] || return 0
    local state="$PWD/$ROOT/apt" deb
    mkdir -p "$state/lists/partial" "$state/archives/partial" "$ROOT/root"
    : >"$state/status"
    local apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64
        -o APT::Sandbox::User= -o "Dir::State=$state" -o "Dir::State::Lists=$state/lists"
        -o "Dir::State::status=$state/status" -o "Dir::Cache=$state")
    "${apt[@]}" update || stop "no lists of packages for arm64; Debian 12 has Python 3.11"
    (cd "$state" && "${apt[@]}" download "${DEBS[@]}") || stop "could not fetch Python for arm64"
    for deb in "$state"/*.deb; do
        dpkg-deb -x "$deb" "$ROOT/root"
    done
}

check() {
    local qemu=${QEMU:-$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)}
    [[ -n $qemu ]] || stop "no QEMU here: install qemu-user, 10 or newer, or name one by QEMU="
    unpack
    rm -rf "$ROOT/site"
    "$UV" pip install "${PLATFORM[@]}" --python .venv/bin/python --quiet --require-hashes \
        --only-binary :all: --target "$ROOT/site" --requirement "$PINS"
    "$UV" pip install "${PLATFORM[@]}" --python .venv/bin/python --quiet --no-deps \
        --target "$ROOT/site" "$OUT"/penstock_lite-*.whl
    local python=("$qemu" -L "$ROOT/root" "$ROOT/root/usr/bin/python3.11" -S -E)
    local start="import sys; sys.path.insert(0, '$ROOT/site')
from penstock_lite.command import main; sys.exit(main())"
    "${python[@]}" -c "import platform; print('lite-arm64:', platform.machine(), platform.python_version())"
    "${python[@]}" -c "$start" info "$1" --demand-record
    "${python[@]}" -c "$start" check "$@"
}

pin
if (($# > 1)); then check "$@"; fi
