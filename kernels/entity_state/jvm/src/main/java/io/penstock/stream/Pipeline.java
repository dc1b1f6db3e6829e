package io.penstock.stream;

import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamUtils;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
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

    private final Settings settings;
    private final Stamp stamp;
    private final DataStream<byte[]> control;
    private final List<DataStream<Event>> dead = new ArrayList<>();
    private final List<DataStream<Event>> late = new ArrayList<>();

    private Pipeline(Settings settings, DataStream<byte[]> control) {
        this.settings = settings;
        this.stamp = new Stamp(settings.control.path("initial"));
        this.control = control;
    }

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
        Pipeline pipeline = new Pipeline(settings, Control.build(env, settings.control));
        final DataStream<RowData> rows = pipeline.chain(Sources.build(env, settings));
        Sinks.attach(settings, union(pipeline.dead), union(pipeline.late));
        return tables.fromDataStream(rows);
    }

    private DataStream<RowData> chain(Map<String, DataStream<Event>> sources) {
        List<DataStream<Event>> checked = new ArrayList<>();
        sources.forEach((name, source) -> checked.add(check(source, "check-" + name)));
        DataStream<Event> rows = union(checked);
        final List<Step<?>> steps = steps();
        for (Step<?> step : steps.subList(0, steps.size() - 1)) {
            rows = inner(rows, step);
        }
        return last(rows, steps.get(steps.size() - 1));
    }

    /** Before the union, so that it runs in the chain of the source and costs no exchange. */
    private DataStream<Event> check(DataStream<Event> source, String name) {
        SingleOutputStreamOperator<Event> rows =
                source.process(new RouteDead())
                        .returns(EventSerializer.type())
                        .uid(name)
                        .name(name);
        dead.add(rows.getSideOutput(Outputs.DEAD));
        return rows;
    }

    /** A keyed operator that is to come: how rows get to it, and what it does. */
    private static final class Step<K> {
        final String name;
        final KeyedBy<K> keyedBy;
        final Stage stage;
        /** Whether it sees rows before they are known to be new and in time. */
        final boolean isFirst;

        Step(String name, KeyedBy<K> keyedBy, Stage stage, boolean isFirst) {
            this.name = name;
            this.keyedBy = keyedBy;
            this.stage = stage;
            this.isFirst = isFirst;
        }
    }

    /** Brings rows to the operator that owns their key. */
    private interface KeyedBy<K> {
        KeyedStream<Event, K> apply(DataStream<Event> rows);
    }

    private List<Step<?>> steps() {
        List<Step<?>> steps = new ArrayList<>();
        final Schema schema = settings.schema;
        if (settings.dedupMs > 0) {
            steps.add(
                    new Step<>(
                            "dedup",
                            rows -> rows.keyBy(Event::id, Types.LONG),
                            new DedupStage(settings),
                            true));
        }
        for (int c = 0; c < schema.columns.length; c++) {
            final int column = c;
            steps.add(
                    new Step<>(
                            "state-" + schema.columns[c],
                            rows -> rows.keyBy(e -> e.entityId(column), EntityId.type()),
                            new StateStage(settings, c),
                            c == 0));
        }
        if (settings.message != null) {
            // The kind of the last column first: its rows are where their mailboxes are already.
            final List<String> kinds = new ArrayList<>(new LinkedHashSet<>(List.of(schema.kinds)));
            final String here = schema.kinds[schema.kinds.length - 1];
            kinds.remove(here);
            addMail(steps, here, true);
            for (String kind : kinds) {
                addMail(steps, kind, false);
            }
        }
        return steps;
    }

    /** Adds the mail of a kind. {@code here}: the rows come from the operator of the last column. */
    private void addMail(List<Step<?>> steps, String kind, boolean here) {
        final Stage stage = new MailStage(settings, kind);
        final int[] columns = settings.mailPlan.columnsOf(kind);
        final String name = "mail-" + kind;
        if (columns.length == 1) {
            final int column = columns[0];
            final KeySelector<Event, EntityId> key = e -> e.entityId(column);
            final KeyedBy<EntityId> keyedBy =
                    here
                            ? rows -> DataStreamUtils.reinterpretAsKeyedStream(rows, key, EntityId.type())
                            : rows -> rows.keyBy(key, EntityId.type());
            steps.add(new Step<>(name, keyedBy, stage, false));
            return;
        }
        final MailCopies copies = new MailCopies(settings, kind);
        steps.add(
                new Step<>(
                        name,
                        rows ->
                                rows.flatMap(copies.send())
                                        .returns(EventSerializer.type())
                                        .uid("send-" + name)
                                        .name("send-" + name)
                                        .keyBy(e -> e.entityId(e.reader()), EntityId.type()),
                        stage,
                        false));
        steps.add(
                new Step<>(
                        "join-" + name, rows -> rows.keyBy(Event::origin, Types.LONG), copies.join(), false));
    }

    private <K> SingleOutputStreamOperator<Event> inner(DataStream<Event> rows, Step<K> step) {
        final TypeInformation<Event> type = EventSerializer.type();
        SingleOutputStreamOperator<Event> made =
                process(step, step.keyedBy.apply(rows), new StageFunctions.Inner<>(step.stage), type)
                        .uid(step.name)
                        .name(step.name);
        takeSideOutputs(made, step);
        return made;
    }

    private <K> DataStream<RowData> last(DataStream<Event> rows, Step<K> step) {
        final TypeInformation<RowData> type = InternalTypeInfo.of(Rows.TYPE);
        final KeyedStream<Event, K> keyed = step.keyedBy.apply(rows);
        final Schema schema = settings.schema;
        SingleOutputStreamOperator<RowData> made =
                control == null
                        ? process(step, keyed, new StageFunctions.Last<>(step.stage, schema, stamp), type)
                        : control(step, keyed, new ControlledFunction<>(step.stage, schema, stamp), type);
        made = made.uid(step.name).name(step.name + ", rules");
        takeSideOutputs(made, step);
        return made;
    }

    private static <K, O> SingleOutputStreamOperator<O> process(
            Step<K> step,
            KeyedStream<Event, K> rows,
            KeyedProcessFunction<K, Event, O> function,
            TypeInformation<O> type) {
        return step.stage instanceof KeyedStage<?> stage
                ? rows.transform(
                        step.name, type, new BatchOperator<>(function, stage, rows.getKeySelector()))
                : rows.process(function).returns(type);
    }

    private <K> SingleOutputStreamOperator<RowData> control(
            Step<K> step,
            KeyedStream<Event, K> rows,
            ControlledFunction<K> function,
            TypeInformation<RowData> type) {
        return step.stage instanceof KeyedStage<?> stage
                ? BatchControlledOperator.connect(rows, control, function, stage, type)
                : rows.connect(control.broadcast(ControlledFunction.CONTROL))
                        .process(function)
                        .returns(type);
    }

    private void takeSideOutputs(SingleOutputStreamOperator<?> made, Step<?> step) {
        if (step.stage instanceof KeyedStage) {
            Sinks.attachState(settings, made.getSideOutput(Outputs.STATE), step.name);
        }
        if (step.isFirst) {
            dead.add(made.getSideOutput(Outputs.DEAD));
            late.add(made.getSideOutput(Outputs.LATE));
        }
    }

    private static <T> DataStream<T> union(List<DataStream<T>> streams) {
        DataStream<T> all = streams.get(0);
        for (DataStream<T> stream : streams.subList(1, streams.size())) {
            all = all.union(stream);
        }
        return all;
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
