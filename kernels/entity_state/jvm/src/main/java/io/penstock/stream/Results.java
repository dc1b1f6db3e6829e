package io.penstock.stream;

import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.data.RowData;
import org.apache.flink.util.Collector;

/**
 * Decides about scored rows and writes them: each to the scores, those that are not approved to the
 * alerts as well.
 */
public final class Results {
    static final String SCORES = "scores";
    static final String ALERTS = "alerts";

    /** Where a message goes, and its bytes. */
    private static final TypeInformation<Tuple2<String, byte[]>> MESSAGE =
            Types.TUPLE(
                    Types.STRING, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    private Results() {}

    /**
     * Adds decision and sinks to the environment's job.
     *
     * @param tables environment of the table
     * @param scored columns {@code event_name, time, late, model, rules, review_at, block_at,
     *     listed, p}, in this order; {@code p} is NaN where no model could score
     * @param json configuration of the job
     */
    public static void attach(StreamTableEnvironment tables, Table scored, String json) {
        final Settings settings = Settings.parse(json);
        // Not in SQL: the planner would copy the scoring function to every mention of its result.
        final DataStream<RowData> rows =
                tables.toDataStream(
                        scored,
                        scored.getResolvedSchema()
                                .toPhysicalRowDataType()
                                .bridgedTo(RowData.class));
        Sinks.attachResults(
                settings.sinks,
                rows.process(new Decide(settings.featuresVersion))
                        .returns(MESSAGE)
                        .uid("decide")
                        .name("decide"));
    }

    private static final class Decide extends ProcessFunction<RowData, Tuple2<String, byte[]>> {
        private static final long serialVersionUID = 1L;
        private final int featuresVersion;
        private transient ResultWriter writer;

        Decide(int featuresVersion) {
            this.featuresVersion = featuresVersion;
        }

        @Override
        public void processElement(
                RowData row, Context context, Collector<Tuple2<String, byte[]>> out) {
            if (writer == null) {
                writer = new ResultWriter(featuresVersion);
            }
            final byte[] message = writer.write(row);
            out.collect(Tuple2.of(SCORES, message));
            if (!writer.isApproved()) {
                out.collect(Tuple2.of(ALERTS, message));
            }
        }
    }
}
