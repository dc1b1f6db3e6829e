package io.penstock.stream;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ReadOnlyBroadcastState;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.TimerService;
import org.apache.flink.streaming.api.functions.co.KeyedBroadcastProcessFunction;
import org.apache.flink.table.data.RowData;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The last stage of the chain. It also hears the control messages, so that stamping rows with model
 * and rules costs no exchange of its own.
 */
final class ControlledFunction<K>
        extends KeyedBroadcastProcessFunction<K, Event, byte[], RowData> implements Host {
    private static final long serialVersionUID = 1L;
    private static final Logger LOG = LoggerFactory.getLogger(ControlledFunction.class);

    /** The message in force, under one fixed key. */
    static final MapStateDescriptor<String, byte[]> CONTROL =
            new MapStateDescriptor<>(
                    "control",
                    Types.STRING,
                    PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    private static final String IN_FORCE = "in-force";

    private final Stage stage;
    private final Schema schema;
    private final Stamp initial;
    private transient Stamp stamp;
    // Set while a row or timer is in hand.
    private transient ReadOnlyContext context;
    private transient Collector<RowData> out;

    ControlledFunction(Stage stage, Schema schema, Stamp initial) {
        this.stage = stage;
        this.schema = schema;
        this.initial = initial;
    }

    @Override
    public void open(OpenContext ignored) throws Exception {
        stage.open(getRuntimeContext());
    }

    @Override
    public void processElement(Event event, ReadOnlyContext given, Collector<RowData> collector)
            throws Exception {
        context = given;
        out = collector;
        restoreStamp(given);
        stage.handle(event, this);
    }

    @Override
    public void onTimer(long timestamp, OnTimerContext given, Collector<RowData> collector)
            throws Exception {
        context = given;
        out = collector;
        restoreStamp(given);
        stage.onTimer(timestamp, given.timeDomain(), this);
    }

    /** A message that cannot be read changes nothing: the rules in force stay. */
    @Override
    public void processBroadcastElement(byte[] message, Context given, Collector<RowData> none)
            throws Exception {
        final Stamp read = Stamp.parse(message);
        if (read == null) {
            LOG.warn(
                    "control message of {} bytes ignored: it is no JSON object with 'model' and "
                            + "'rules'; the rules in force stay",
                    message.length);
            return;
        }
        given.getBroadcastState(CONTROL).put(IN_FORCE, message);
        stamp = read;
        LOG.info("model {} and rules {} are in force", read.model, read.rules);
    }

    private void restoreStamp(ReadOnlyContext given) throws Exception {
        if (stamp != null) {
            return;
        }
        final ReadOnlyBroadcastState<String, byte[]> kept = given.getBroadcastState(CONTROL);
        final byte[] message = kept.get(IN_FORCE);
        final Stamp read = message == null ? null : Stamp.parse(message);
        stamp = read == null ? initial : read;
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
        out.collect(Rows.of(event, stamp, schema));
    }

    @Override
    public <T> void emit(OutputTag<T> tag, T value) {
        context.output(tag, value);
    }
}
