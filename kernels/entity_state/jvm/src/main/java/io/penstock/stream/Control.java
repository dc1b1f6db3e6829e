package io.penstock.stream;

import java.io.IOException;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.SimpleStreamFormat;
import org.apache.flink.connector.file.src.reader.StreamFormat;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.core.fs.Path;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** Reads control messages: a topic from its beginning, or a folder of one-message files. */
final class Control {
    private static final int MAX_BYTES = 16 * 1024 * 1024;

    private Control() {}

    /** Returns the messages in their order, null when the configuration names no place for them. */
    static DataStream<byte[]> build(StreamExecutionEnvironment env, JsonNode control) {
        if (!control.hasNonNull("source")) {
            return null;
        }
        final JsonNode config = control.get("source");
        return env.fromSource(source(config), WatermarkStrategy.noWatermarks(), "control")
                .uid("source-control")
                .setParallelism(1)
                .assignTimestampsAndWatermarks(always())
                .uid("time-control")
                .setParallelism(1);
    }

    private static Source<byte[], ?, ?> source(JsonNode config) {
        final boolean bounded = config.path("bounded").asBoolean(false);
        if (config.get("type").asText().equals("kafka")) {
            KafkaSourceBuilder<byte[]> made =
                    KafkaSource.<byte[]>builder()
                            .setBootstrapServers(config.get("bootstrap").asText())
                            .setTopics(config.get("control").asText())
                            .setStartingOffsets(OffsetsInitializer.earliest())
                            .setValueOnlyDeserializer(new Whole());
            return bounded ? made.setBounded(OffsetsInitializer.latest()).build() : made.build();
        }
        FileSource.FileSourceBuilder<byte[]> made =
                FileSource.forRecordStreamFormat(
                        new WholeFile(), new Path(config.get("control").asText()));
        if (!bounded) {
            made.monitorContinuously(Duration.ofMillis(config.path("monitor_ms").asLong(1000)));
        }
        return made.build();
    }

    /** Control messages hold up no event time. */
    private static WatermarkStrategy<byte[]> always() {
        return WatermarkStrategy.forGenerator(
                context ->
                        new WatermarkGenerator<byte[]>() {
                            @Override
                            public void onEvent(byte[] message, long time, WatermarkOutput out) {}

                            @Override
                            public void onPeriodicEmit(WatermarkOutput out) {
                                out.emitWatermark(Watermark.MAX_WATERMARK);
                            }
                        });
    }

    private static final class Whole extends AbstractDeserializationSchema<byte[]> {
        private static final long serialVersionUID = 1L;

        @Override
        public byte[] deserialize(byte[] message) {
            return message;
        }
    }

    /** A file is one message. */
    private static final class WholeFile extends SimpleStreamFormat<byte[]> {
        private static final long serialVersionUID = 1L;

        @Override
        public Reader<byte[]> createReader(Configuration config, FSDataInputStream stream) {
            return new StreamFormat.Reader<>() {
                private boolean done;

                @Override
                public byte[] read() throws IOException {
                    if (done) {
                        return null;
                    }
                    done = true;
                    return stream.readNBytes(MAX_BYTES);
                }

                @Override
                public void close() throws IOException {
                    stream.close();
                }
            };
        }

        @Override
        public TypeInformation<byte[]> getProducedType() {
            return PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
        }
    }
}
