package io.penstock.stream;

import java.io.IOException;
import java.io.OutputStream;
import java.util.List;
import org.apache.flink.api.common.serialization.Encoder;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.KafkaSinkBuilder;
import org.apache.flink.core.fs.Path;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.functions.sink.filesystem.rollingpolicies.OnCheckpointRollingPolicy;

/**
 * Attaches the sinks of results, dead letters, late rows and state upserts. Of the latter three,
 * each that the configuration does not name is left without a sink.
 */
final class Sinks {
    private Sinks() {}

    static void attach(Settings settings, DataStream<Event> dead, DataStream<Event> late) {
        final QuarantineRecord record = new QuarantineRecord(settings);
        final String timeColumn = settings.schema.time;
        records(settings.sinks, "dead_letters", dead, record::ofDead);
        records(settings.sinks, "late", late, event -> record.ofLate(event, timeColumn));
    }

    private static void records(
            JsonNode sinks, String what, DataStream<Event> events, KafkaRecords.Format format) {
        if (!sinks.hasNonNull(what)) {
            return;
        }
        final String target = sinks.get(what).asText();
        if (isKafka(sinks)) {
            final KafkaSink<Event> sink =
                    exactlyOnce(sinks, new KafkaRecords.Quarantine(target, format), "-" + what);
            events.sinkTo(sink).uid("sink-" + what).name(what);
        } else {
            final Encoder<Event> lines = (event, stream) -> writeLine(format.bytes(event), stream);
            events.sinkTo(files(target, lines)).uid("sink-" + what).name(what);
        }
    }

    /**
     * Attaches the sinks of scores and alerts. In Kafka it is one with one transaction: an alert is
     * committed with its score, and a checkpoint holds rows up once, not twice.
     */
    static void attachResults(JsonNode sinks, DataStream<Tuple2<String, byte[]>> messages) {
        if (!isKafka(sinks)) {
            for (String what : List.of(Results.SCORES, Results.ALERTS)) {
                final Encoder<Tuple2<String, byte[]>> lines =
                        (message, stream) -> writeLine(message.f1, stream);
                messages.filter(message -> message.f0.equals(what))
                        .sinkTo(files(sinks.get(what).asText(), lines))
                        .uid("sink-" + what)
                        .name(what);
            }
            return;
        }
        final String scores = sinks.get(Results.SCORES).asText();
        final String alerts = sinks.get(Results.ALERTS).asText();
        final KafkaSink<Tuple2<String, byte[]>> sink =
                exactlyOnce(sinks, new KafkaRecords.Messages(scores, alerts), ".scores");
        messages.sinkTo(sink).uid("sink-results").name("scores, alerts");
    }

    private static void writeLine(byte[] line, OutputStream stream) throws IOException {
        stream.write(line);
        stream.write('\n');
    }

    /** Attaches a sink to the upserts of one operator; in its chain it costs no exchange. */
    static void attachState(Settings settings, DataStream<Upsert> state, String operator) {
        final JsonNode sinks = settings.sinks;
        if (!sinks.hasNonNull("state")) {
            return;
        }
        final String uid = "sink-state-" + operator;
        final String target = sinks.get("state").asText();
        if (isKafka(sinks)) {
            KafkaSinkBuilder<Upsert> made = kafka(sinks, new KafkaRecords.Upserts(target));
            made.setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE);
            // Versions make repetitions harmless. An idempotent producer that lost its place, as
            // after a broker was fenced, would repeat "out of order" for ever.
            made.setProperty("enable.idempotence", "false");
            made.setProperty("acks", "all");
            state.sinkTo(made.build()).uid(uid).name("state");
        } else {
            state.sinkTo(files(target, Sinks::writeUpsert)).uid(uid).name("state");
        }
    }

    /** Writes u32 length and key, u32 length and value, little endian. */
    private static void writeUpsert(Upsert upsert, OutputStream stream) throws IOException {
        byte[] size = new byte[4];
        Bytes.putInt(size, 0, upsert.key.length);
        stream.write(size);
        stream.write(upsert.key);
        Bytes.putInt(size, 0, upsert.value.length);
        stream.write(size);
        stream.write(upsert.value);
    }

    private static boolean isKafka(JsonNode sinks) {
        final String type = sinks.get("type").asText();
        if (!type.equals("kafka") && !type.equals("files")) {
            throw new IllegalArgumentException(
                    "sinks of type '" + type + "' do not exist; choose 'files' or 'kafka'");
        }
        return type.equals("kafka");
    }

    /** Returns a sink whose transactions are named by the job's prefix and {@code name}. */
    private static <T> KafkaSink<T> exactlyOnce(
            JsonNode sinks, KafkaRecordSerializationSchema<T> schema, String name) {
        return kafka(sinks, schema)
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(sinks.get("transactional_id").asText() + name)
                .build();
    }

    private static <T> KafkaSinkBuilder<T> kafka(
            JsonNode sinks, KafkaRecordSerializationSchema<T> schema) {
        KafkaSinkBuilder<T> made =
                KafkaSink.<T>builder()
                        .setBootstrapServers(sinks.get("bootstrap").asText())
                        .setRecordSerializer(schema);
        sinks.path("properties")
                .properties()
                .forEach(p -> made.setProperty(p.getKey(), p.getValue().asText()));
        return made;
    }

    private static <T> FileSink<T> files(String folder, Encoder<T> encoder) {
        return FileSink.forRowFormat(new Path(folder), encoder)
                .withRollingPolicy(OnCheckpointRollingPolicy.build())
                .build();
    }
}
