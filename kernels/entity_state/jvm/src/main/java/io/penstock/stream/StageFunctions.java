package io.penstock.stream;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.streaming.api.TimerService;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.table.data.RowData;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/** A stage as a Flink function; see {@link ControlledFunction} for one that obeys messages. */
final class StageFunctions {
    private StageFunctions() {}

    /** A stage inside the chain. */
    static final class Inner<K> extends Base<K, Event> {
        private static final long serialVersionUID = 1L;

        Inner(Stage stage) {
            super(stage);
        }

        @Override
        Event result(Event event) {
            return event;
        }
    }

    /** The last stage, where model and rules never change: it makes the rows of the table. */
    static final class Last<K> extends Base<K, RowData> {
        private static final long serialVersionUID = 1L;
        private final Schema schema;
        private final Stamp stamp;

        Last(Stage stage, Schema schema, Stamp stamp) {
            super(stage);
            this.schema = schema;
            this.stamp = stamp;
        }

        @Override
        RowData result(Event event) {
            return Rows.of(event, stamp, schema);
        }
    }

    private abstract static class Base<K, O> extends KeyedProcessFunction<K, Event, O>
            implements Host {
        private static final long serialVersionUID = 1L;

        private final Stage stage;
        // Set while a row or timer is in hand.
        private transient Context context;
        private transient Collector<O> out;

        Base(Stage stage) {
            this.stage = stage;
        }

        abstract O result(Event event);

        @Override
        public void open(OpenContext ignored) throws Exception {
            stage.open(getRuntimeContext());
        }

        @Override
        public void processElement(Event event, Context given, Collector<O> collector)
                throws Exception {
            context = given;
            out = collector;
            stage.handle(event, this);
        }

        @Override
        public void onTimer(long timestamp, OnTimerContext given, Collector<O> collector)
                throws Exception {
            context = given;
            out = collector;
            stage.onTimer(timestamp, given.timeDomain(), this);
        }

        @Override
        public TimerService timers() {
            return context.timerService();
        }

        @Override
        public EntityId key() {
            return (EntityId) context.getCurrentKey();
        }

        @Override
        public void emit(Event event) {
            out.collect(result(event));
        }

        @Override
        public <T> void emit(OutputTag<T> tag, T value) {
            context.output(tag, value);
        }
    }
}
