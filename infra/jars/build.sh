#!/usr/bin/env bash
# Brings the Kafka connector and the broker by Maven, and builds the stream's Java module, all into
# .venv. Safe to repeat: a stamp of the poms and Java sources makes it a no-op without network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly MODULE=kernels/entity_state/jvm
readonly JARS="$PWD/.venv/share/penstock/jars"
readonly STAMP="$JARS/.stamp"

say() { printf 'jars: %s\n' "$*"; }

fingerprint() {
    find infra/jars "$MODULE/pom.xml" "$MODULE/src" -type f \( -name '*.xml' -o -name '*.java' -o -name '*.sh' \) -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

maven() { mvn --batch-mode --quiet --no-transfer-progress -Dstyle.color=never -f infra/jars/pom.xml "-Djars=$JARS" "$@" package; }

main() {
    local now
    now=$(fingerprint)
    [[ ! -f $STAMP || $(<"$STAMP") != "$now" ]] || return 0
    command -v mvn >/dev/null || { echo "jars: mvn is missing: apt-get install maven, then repeat make setup" >&2; exit 1; }
    say "building the stream's Java module"
    mkdir -p "$JARS"
    rm -rf "$JARS/build" "$JARS/flink" "$JARS/kafka" "$STAMP"
    # From Maven's own cache alone where it suffices: then it needs no network.
    maven --offline >"$JARS/build.log" 2>&1 || maven || { echo "jars: Maven failed, see above; mend it, then repeat make jars" >&2; exit 1; }
    rm -rf "$JARS/build"
    echo "$now" >"$STAMP"
}

main "$@"
