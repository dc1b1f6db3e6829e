#!/usr/bin/env bash
# Brings the Kafka connector and the broker by Maven, and builds the stream's Java module, all into
# .venv. Safe to repeat: a stamp of the poms and Java sources makes it a no-op without network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly MODULE=kernels/entity_state/jvm
readonly JARS="$PWD/.venv/share/penstock/jars"
readonly STAMP="$JARS/.stamp"
readonly DRAFT="$JARS.draft"

say() { printf 'jars: %s\n' "$*"; }
stop() { printf 'jars: %s\n' "$*" >&2; exit 1; }

fingerprint() {
    find infra/jars "$MODULE/pom.xml" "$MODULE/src" -type f \( -name '*.xml' -o -name '*.java' -o -name '*.sh' \) -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

maven() { mvn --batch-mode --quiet --no-transfer-progress -Dstyle.color=never -f infra/jars/pom.xml "-Djars=$DRAFT" "$@" package; }

main() {
    local now
    now=$(fingerprint)
    [[ ! -f $STAMP || $(<"$STAMP") != "$now" ]] || return 0
    command -v mvn >/dev/null || stop "mvn is missing. Run: sudo apt-get install maven ; then repeat make setup"
    say "building the stream's Java module"
    rm -rf "$DRAFT"
    mkdir -p "$DRAFT"
    # From Maven's own cache alone where it suffices: then it needs no network.
    maven --offline >"$DRAFT/offline.log" 2>&1 || maven || stop "Maven failed, see above; mend it, then repeat make jars"
    rm -rf "$DRAFT/build" "$DRAFT/offline.log" "$JARS"
    echo "$now" >"$DRAFT/.stamp"
    mv "$DRAFT" "$JARS"
}

main "$@"
