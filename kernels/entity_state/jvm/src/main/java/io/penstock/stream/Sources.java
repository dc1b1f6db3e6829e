package io.penstock.stream;

import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.fs.Path;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.OffsetResetStrategy;

/** Builds the sources of transactions and labels that the configuration names. */
final class Sources {
    private Sources() {}

    /** Returns transactions and labels by name, among them rows to be set aside. */
    static Map<String, DataStream<Event>> build(
            StreamExecutionEnvironment env, Settings settings) {
        if (settings.source.get("type").asText().equals("generate")) {
            return Map.of("generated", Generator.events(env, settings));
        }
        final Map<String, DataStream<Event>> sources = new LinkedHashMap<>();
        sources.put("transactions", one(env, settings, "transactions"));
        if (settings.source.hasNonNull("labels")) {
            sources.put("labels", one(env, settings, "labels"));
        }
        return sources;
    }

    private static DataStream<Event> one(
            StreamExecutionEnvironment env, Settings settings, String what) {
        final boolean labels = what.equals("labels");
        final String type = settings.source.get("type").asText();
        final Source<Event, ?, ?> source;
        switch (type) {
            case "files":
                source = files(settings.source, what, new LineFormat(settings.schema, labels));
                break;
            case "kafka":
                source = kafka(settings.source, what, new KafkaRows(settings.schema, labels));
                break;
            default:
                throw new IllegalArgumentException(
                        "source '" + type + "' does not exist; choose 'files' or 'kafka'");
        }
        final int readers = settings.source.path("parallelism").asInt(0);
        final boolean files = type.equals("files");
        final WatermarkStrategy<Event> watermarks = Watermarks.of(settings, !files);
        SingleOutputStreamOperator<Event> rows =
                env.fromSource(
                                source,
                                files ? WatermarkStrategy.noWatermarks() : watermarks,
                                what,
                                EventSerializer.type())
                        .uid("source-" + what);
        if (readers > 0) {
            rows.setParallelism(readers);
        }
        if (files) {
            // A partition lives on, but a file ends, and with it what was to be its next watermark:
            // here every reader has one that outlives its files.
            rows = rows.assignTimestampsAndWatermarks(watermarks).uid("time-" + what);
            if (readers > 0) {
                rows.setParallelism(readers);
            }
        }
        return rows;
    }

    private static FileSource<Event> files(JsonNode config, String what, LineFormat format) {
        final Path folder = new Path(config.get(what).asText());
        FileSource.FileSourceBuilder<Event> made =
                FileSource.forBulkFileFormat(format, folder);
        if (!config.path("bounded").asBoolean(false)) {
            made.monitorContinuously(
                    Duration.ofMillis(config.path("monitor_ms").asLong(1000)));
        }
        return made.build();
    }

    private static KafkaSource<Event> kafka(JsonNode config, String what, KafkaRows rows) {
        final Properties properties = new Properties();
        for (Map.Entry<String, JsonNode> property : config.path("properties").properties()) {
            properties.setProperty(property.getKey(), property.getValue().asText());
        }
        KafkaSourceBuilder<Event> made =
                KafkaSource.<Event>builder()
                        .setBootstrapServers(config.get("bootstrap").asText())
                        .setTopics(config.get(what).asText())
                        .setGroupId(config.get("group").asText())
                        .setStartingOffsets(start(config.path("start").asText("committed")))
                        .setDeserializer(rows)
                        .setProperties(properties);
        if (config.path("bounded").asBoolean(false)) {
            made.setBounded(OffsetsInitializer.latest());
        }
        return made.build();
    }

    @SuppressWarnings("deprecation") // of OffsetResetStrategy there is no other yet
    private static OffsetsInitializer start(String name) {
        switch (name) {
            case "earliest":
                return OffsetsInitializer.earliest();
            case "latest":
                return OffsetsInitializer.latest();
            case "committed":
                return OffsetsInitializer.committedOffsets(OffsetResetStrategy.EARLIEST);
            default:
                throw new IllegalArgumentException(
                        "start '"
                                + name
                                + "' does not exist; choose 'earliest', 'latest' or 'committed'");
        }
    }
}
