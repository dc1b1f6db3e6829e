package io.penstock.stream;

import java.nio.charset.StandardCharsets;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;

/** Reads the records of a topic as events. */
final class KafkaRows implements KafkaRecordDeserializationSchema<Event> {
    private static final long serialVersionUID = 1L;

    private final Schema schema;
    private final boolean labels;
    private transient EventParser parser;
    private transient byte[][] sources;
    private transient long[] hashes;
    private transient String topic;

    KafkaRows(Schema schema, boolean labels) {
        this.schema = schema;
        this.labels = labels;
    }

    @Override
    public void open(DeserializationSchema.InitializationContext context) {
        parser = new EventParser(schema, labels);
        sources = new byte[0][];
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Event> out) {
        final int partition = record.partition();
        if (partition >= sources.length || !record.topic().equals(topic)) {
            nameSources(record.topic(), partition + 1);
        }
        final byte[] value = record.value();
        final long offset = record.offset();
        out.collect(
                parser.parse(
                        value,
                        0,
                        value == null ? 0 : value.length,
                        offset,
                        sources[partition],
                        EntityKeys.mix(hashes[partition] ^ offset)));
    }

    private void nameSources(String name, int partitions) {
        topic = name;
        sources = new byte[partitions][];
        hashes = new long[partitions];
        for (int p = 0; p < partitions; p++) {
            final String source = name + "/" + p;
            sources[p] = source.getBytes(StandardCharsets.UTF_8);
            hashes[p] = EntityKeys.entityKey("topic", source);
        }
    }

    @Override
    public TypeInformation<Event> getProducedType() {
        return EventSerializer.type();
    }
}
