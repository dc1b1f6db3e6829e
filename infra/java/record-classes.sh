#!/usr/bin/env bash
# Records which classes the services on the JVM load, while a stream runs and is killed part by part:
# infra/java/classes. To be repeated after a new version of Flink, Kafka or Java.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

FOLDER=$(mktemp -d)
readonly FOLDER
trap 'rm -rf "$FOLDER"' EXIT

# One sorted list out of those of the processes that ran a main class.
merge() {
    local name=$1 main=$2 lists
    mapfile -t lists < <(grep -lE "^($main)\$" "$FOLDER"/*)
    grep -hv '^#' "${lists[@]}" | LC_ALL=C sort -u | gzip -9n >"infra/java/classes/$name.txt.gz"
    echo "$name: $(zcat "infra/java/classes/$name.txt.gz" | wc -l) classes and lambdas of ${#lists[@]} processes"
}

# Every JVM reads this variable. Without any archive: a lambda out of one would not be recorded.
JAVA_TOOL_OPTIONS="-Xshare:off -XX:DumpLoadedClassList=$FOLDER/%p" .venv/bin/penstock bench chaos
merge flink 'org/apache/flink/.*/(StandaloneSessionClusterEntrypoint|TaskManagerRunner|PythonGatewayServer)|org/apache/flink/shaded/zookeeper3/.*/ZooKeeperServerMain'
merge kafka 'kafka/Kafka|kafka/tools/StorageTool'
