package io.penstock.stream;

import java.io.Serializable;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.flink.api.common.state.StateDescriptor;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonProcessingException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/** What the operators need to know, read once from the JSON of the job. */
final class Settings implements Serializable {
    private static final long serialVersionUID = 1L;
    private static final int EPOCH_SHIFT = 38;

    final Schema schema;
    final Map<String, StateLayout> layouts = new LinkedHashMap<>();
    final boolean eventTime;
    /** Least milliseconds between upserts of one key; below 0, or without a sink, there are none. */
    final long publishMs;
    final long epoch;
    /** Rows that are handled together in latency mode, see {@link MiniBatch}; 1: each at once. */
    final int batchRows;
    /** Milliseconds after which the state of an entity is forgotten; 0 for never. */
    final long ttlMs;
    /** Milliseconds for which event ids are remembered beside the blocks; 0 for not at all. */
    final long dedupMs;
    final long outOfOrderMs;
    /** Milliseconds after which a silent partition holds nothing up; 0 for never. */
    final long idleMs;
    /** Milliseconds by which the watermark of one partition may lead; 0: any. Kafka only. */
    final long alignMs;
    /** Version of the feature definition, told with every score. */
    final int featuresVersion;
    /** What dead letters say about each rule. */
    final Map<String, String> expected = new LinkedHashMap<>();
    final String detectorVersion;
    /** How messages are made; null without the stage of mail. */
    final MessageVector message;

    final MailPlan mailPlan;
    /** JSON of the parts that only the set-up of the job reads. */
    final transient JsonNode source;
    final transient JsonNode sinks;
    final transient JsonNode control;

    private Settings(JsonNode config) {
        schema = new Schema(config.get("dataset"));
        for (Map.Entry<String, JsonNode> plan : config.get("layouts").properties()) {
            layouts.put(plan.getKey(), new StateLayout(plan.getValue()));
        }
        final String mode = config.get("mode").asText();
        eventTime = mode.equals("event-time");
        if (!eventTime && !mode.equals("latency")) {
            throw new IllegalArgumentException(
                    "mode '" + mode + "' does not exist; choose 'latency' or 'event-time'");
        }
        final boolean published = config.path("sinks").hasNonNull("state");
        publishMs = published ? config.path("publish_ms").asLong(1000) : -1;
        epoch = config.path("epoch").asLong(0);
        batchRows = config.path("batch_rows").asInt(1);
        ttlMs = config.path("ttl_ms").asLong(0);
        dedupMs = config.path("dedup_ms").asLong(0);
        outOfOrderMs = config.path("out_of_order_ms").asLong(0);
        alignMs = config.path("align_ms").asLong(0);
        idleMs = config.path("idle_ms").asLong(0);
        featuresVersion = config.path("features_version").asInt(0);
        JsonNode texts = config.path("expected");
        texts.fieldNames().forEachRemaining(n -> expected.put(n, texts.get(n).asText()));
        detectorVersion = config.path("detector_version").asText("checks/1");
        message = config.hasNonNull("message") ? new MessageVector(config.get("message")) : null;
        mailPlan = message == null ? null : new MailPlan(this);
        source = config.get("source");
        sinks = config.path("sinks");
        control = config.path("control");
    }

    static Settings parse(String json) {
        try {
            return new Settings(new ObjectMapper().readTree(json));
        } catch (JsonProcessingException e) {
            throw new IllegalArgumentException("the configuration of the job is no JSON", e);
        }
    }

    /** First byte of a column's features; one past the last column: the size of all. */
    int stateOffset(int column) {
        int offset = 0;
        for (int c = 0; c < column; c++) {
            offset += 8 * layouts.get(schema.kinds[c]).features;
        }
        return offset;
    }

    long version(long changes) {
        return epoch << EPOCH_SHIFT | changes;
    }

    void expire(StateDescriptor<?, ?> state) {
        if (ttlMs > 0) {
            state.enableTimeToLive(ttl(ttlMs));
        }
    }

    static StateTtlConfig ttl(long millis) {
        return StateTtlConfig.newBuilder(Duration.ofMillis(millis))
                .cleanupIncrementally(5, false)
                .cleanupInRocksdbCompactFilter(1000)
                .build();
    }
}
