package io.penstock.stream;

import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.internal.AbstractStreamTableEnvironmentImpl;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.util.Collector;

/**
 * Builds the job up to the table that the scoring function reads: sources, checks, one keyed
 * operator per entity column, mail, rules, and the side outputs with their sinks.
 */
public final class Pipeline {
    static final int MAX_PARALLELISM = 720;

    private Pipeline() {}

    /**
     * Adds the operators to the environment's job.
     *
     * @param tables environment of the table
     * @param json configuration, see docs/reference/stream-jvm.md
     * @return one row per transaction
     */
    public static Table build(StreamTableEnvironment tables, String json) {
        final Settings settings = Settings.parse(json);
        final StreamExecutionEnvironment env =
                ((AbstractStreamTableEnvironmentImpl) tables).execEnv();
        env.setMaxParallelism(MAX_PARALLELISM);
        SingleOutputStreamOperator<Event> rows =
                Sources.build(env, settings)
                        .process(new RouteDead())
                        .returns(EventSerializer.type())
                        .uid("check")
                        .name("check");
        DataStream<Event> dead = rows.getSideOutput(Outputs.DEAD);
        DataStream<Event> late = null;
        DataStream<Upsert> state = null;
        for (int c = 0; c < settings.schema.columns.length; c++) {
            final String column = settings.schema.columns[c];
            final int number = c;
            rows =
                    rows.keyBy(event -> event.entity(number))
                            .process(new StateFunction(settings, c))
                            .returns(EventSerializer.type())
                            .uid("state-" + column)
                            .name("state(" + column + ")");
            final DataStream<Upsert> upserts = rows.getSideOutput(Outputs.STATE);
            state = state == null ? upserts : state.union(upserts);
            if (c == 0) {
                dead = dead.union(rows.getSideOutput(Outputs.DEAD));
                late = rows.getSideOutput(Outputs.LATE);
            }
        }
        Sinks.attach(settings, dead, late, state);
        final Stamp stamp = new Stamp(settings.control.path("initial"));
        final DataStream<RowData> result =
                rows.map(event -> Rows.of(event, stamp, settings.schema))
                        .returns(InternalTypeInfo.of(Rows.TYPE))
                        .uid("rules")
                        .name("rules");
        return tables.fromDataStream(result);
    }

    /** Sends rows that broke a rule their own way. */
    static final class RouteDead extends ProcessFunction<Event, Event> {
        private static final long serialVersionUID = 1L;

        @Override
        public void processElement(Event event, Context context, Collector<Event> out) {
            if (event.kind() == Event.DEAD) {
                context.output(Outputs.DEAD, event);
            } else {
                out.collect(event);
            }
        }
    }
}
