package io.penstock.stream;

import java.io.Serializable;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;

/** Makes records of a topic; classes of their own, since Flink asks lambdas for their types. */
final class KafkaRecords {
    private KafkaRecords() {}

    /** Makes the bytes of a quarantine record. */
    interface Format extends Serializable {
        byte[] bytes(Event event);
    }

    /** Quarantine records without a key. */
    static final class Quarantine implements KafkaRecordSerializationSchema<Event> {
        private static final long serialVersionUID = 1L;
        private final String topic;
        private final Format format;

        Quarantine(String topic, Format format) {
            this.topic = topic;
            this.format = format;
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(
                Event event, KafkaSinkContext context, Long timestamp) {
            return new ProducerRecord<>(topic, format.bytes(event));
        }
    }

    /** Scores and alerts, without a key. */
    static final class Messages implements KafkaRecordSerializationSchema<Tuple2<String, byte[]>> {
        private static final long serialVersionUID = 1L;
        private final String scores;
        private final String alerts;

        Messages(String scores, String alerts) {
            this.scores = scores;
            this.alerts = alerts;
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(
                Tuple2<String, byte[]> message, KafkaSinkContext context, Long timestamp) {
            return new ProducerRecord<>(
                    message.f0.equals(Results.ALERTS) ? alerts : scores, message.f1);
        }
    }

    /** Upserts, so that one partition holds all versions of a key. */
    static final class Upserts implements KafkaRecordSerializationSchema<Upsert> {
        private static final long serialVersionUID = 1L;
        private final String topic;

        Upserts(String topic) {
            this.topic = topic;
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(
                Upsert upsert, KafkaSinkContext context, Long timestamp) {
            return new ProducerRecord<>(topic, upsert.key, upsert.value);
        }
    }
}
