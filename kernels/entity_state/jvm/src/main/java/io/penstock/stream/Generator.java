package io.penstock.stream;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFlatMapFunction;
import org.apache.flink.api.connector.source.lib.NumberSequenceSource;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.Schema;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.internal.AbstractStreamTableEnvironmentImpl;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.logical.BigIntType;
import org.apache.flink.table.types.logical.LocalZonedTimestampType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.util.Collector;

/**
 * Made-up rows in order of time, for measuring the operators without a source's cost: row {@code
 * i}'s values are functions of {@code i} alone, and its label comes when the delay is over.
 */
public final class Generator {
    private static final long START = 1_522_540_800_000L;

    private Generator() {}

    /** How many rows, of how many entities per column, how fast, and which share is labelled. */
    private static final class Plan implements Serializable {
        private static final long serialVersionUID = 1L;
        final long rows;
        final long[] entities;
        final long rowsPerDay;
        /** Of a thousand rows, how many get a label. */
        final long labelled;
        final long delayMs;

        Plan(JsonNode config, long delayMs) {
            rows = config.get("rows").asLong();
            rowsPerDay = config.get("rows_per_day").asLong();
            labelled = Math.round(1000 * config.path("labelled").asDouble(1.0));
            entities = new long[config.get("entities").size()];
            for (int c = 0; c < entities.length; c++) {
                entities[c] = config.get("entities").get(c).asLong();
            }
            this.delayMs = delayMs;
        }

        long time(long i) {
            return START + i * 86_400_000L / rowsPerDay;
        }

        long entity(long i, int column) {
            return Long.remainderUnsigned(EntityKeys.mix(i * 31 + column), entities[column]);
        }

        long amount(long i) {
            return 100 + Long.remainderUnsigned(EntityKeys.mix(~i), 20_000);
        }

        boolean isLabelled(long i) {
            return Long.remainderUnsigned(EntityKeys.mix(i ^ 0x5555), 1000) < labelled;
        }

        /** The row whose label comes with row {@code i}; negative for none. */
        long due(long i) {
            return i - delayMs * rowsPerDay / 86_400_000L;
        }
    }

    static DataStream<Event> events(StreamExecutionEnvironment env, Settings settings) {
        final Plan plan = new Plan(settings.source, settings.schema.delayMs);
        return numbers(env, plan)
                .flatMap(new MakeEvents(plan))
                .returns(EventSerializer.type())
                .assignTimestampsAndWatermarks(Watermarks.of(settings, false));
    }

    /** Returns as many numbers as rows; what they are does not matter. */
    private static DataStream<Long> numbers(StreamExecutionEnvironment env, Plan plan) {
        return env.fromSource(
                        new NumberSequenceSource(0, plan.rows - 1),
                        WatermarkStrategy.noWatermarks(),
                        "generated")
                .uid("source-generated");
    }

    /** Numbers rows so that parallel sources together go through time once. */
    private abstract static class Numbering<T> extends RichFlatMapFunction<Long, T> {
        private static final long serialVersionUID = 1L;
        private transient long next;
        private transient long step;

        @Override
        public void open(OpenContext context) {
            next = getRuntimeContext().getTaskInfo().getIndexOfThisSubtask();
            step = getRuntimeContext().getTaskInfo().getNumberOfParallelSubtasks();
        }

        long number() {
            final long number = next;
            next += step;
            return number;
        }
    }

    private static final class MakeEvents extends Numbering<Event> {
        private static final long serialVersionUID = 1L;
        private final Plan plan;
        private transient EventWriter writer;

        MakeEvents(Plan plan) {
            this.plan = plan;
        }

        @Override
        public void flatMap(Long ignored, Collector<Event> out) {
            if (writer == null) {
                writer = new EventWriter();
            }
            final long number = number();
            out.collect(make(Event.TRANSACTION, number));
            final long due = plan.due(number);
            if (due >= 0 && plan.isLabelled(due)) {
                out.collect(make(Event.LABEL, due));
            }
        }

        private Event make(byte kind, long i) {
            final long time = plan.time(i);
            final boolean label = kind == Event.LABEL;
            writer.start(kind, plan.entities.length + 2, 0)
                    .head(i, time, label ? 0 : plan.amount(i), label ? time + plan.delayMs : 0, i)
                    .label(label && i % 100 == 0 ? 1 : 0)
                    .text("");
            for (int c = 0; c < plan.entities.length; c++) {
                writer.text(Long.toString(plan.entity(i, c)));
            }
            return writer.text("").tail(i, Event.NOTHING, Event.NOTHING, 0, 0);
        }
    }

    /**
     * Returns the same transactions as a table (id, c0, c1 ..., amount, ts), for a comparison with
     * plain SQL.
     *
     * @param json configuration of a job whose source is of the type {@code generate}
     */
    public static Table table(StreamTableEnvironment tables, String json) {
        final Settings settings = Settings.parse(json);
        final Plan plan = new Plan(settings.source, settings.schema.delayMs);
        final List<RowType.RowField> fields = new ArrayList<>();
        fields.add(new RowType.RowField("id", new BigIntType(false)));
        for (int c = 0; c < plan.entities.length; c++) {
            fields.add(new RowType.RowField("c" + c, new BigIntType(false)));
        }
        fields.add(new RowType.RowField("amount", new BigIntType(false)));
        fields.add(new RowType.RowField("ts", new LocalZonedTimestampType(false, 3)));
        final StreamExecutionEnvironment env =
                ((AbstractStreamTableEnvironmentImpl) tables).execEnv();
        final int last = fields.size() - 1;
        final DataStream<RowData> rows =
                numbers(env, plan)
                        .flatMap(new MakeRows(plan))
                        .returns(InternalTypeInfo.of(new RowType(fields)))
                        .assignTimestampsAndWatermarks(
                                WatermarkStrategy.<RowData>forMonotonousTimestamps()
                                        .withTimestampAssigner(
                                                (row, t) ->
                                                        row.getTimestamp(last, 3)
                                                                .getMillisecond()));
        return tables.fromDataStream(
                rows, Schema.newBuilder().watermark("ts", "SOURCE_WATERMARK()").build());
    }

    private static final class MakeRows extends Numbering<RowData> {
        private static final long serialVersionUID = 1L;
        private final Plan plan;

        MakeRows(Plan plan) {
            this.plan = plan;
        }

        @Override
        public void flatMap(Long ignored, Collector<RowData> out) {
            final long i = number();
            final int columns = plan.entities.length;
            final GenericRowData row = new GenericRowData(columns + 3);
            row.setField(0, i);
            for (int c = 0; c < columns; c++) {
                row.setField(1 + c, plan.entity(i, c));
            }
            row.setField(columns + 1, plan.amount(i));
            row.setField(columns + 2, TimestampData.fromEpochMillis(plan.time(i)));
            out.collect(row);
        }
    }
}
