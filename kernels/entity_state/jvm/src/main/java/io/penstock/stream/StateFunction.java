package io.penstock.stream;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.metrics.Counter;
import org.apache.flink.streaming.api.TimeDomain;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Keeps the tiles of the entities of one column: every transaction gets the features it sees and
 * is entered, every label waits until a transaction may know it.
 *
 * <p>In latency mode rows are handled as they come. In event-time mode they are held until the
 * watermark passes them and handled in the order of time, labels first, then by id.
 */
public final class StateFunction extends KeyedProcessFunction<String, Event, Event> {
    private static final long serialVersionUID = 1L;

    /** Order of handling in event-time mode. */
    static final Comparator<Event> ORDER =
            Comparator.comparingLong(Event::orderTime)
                    .thenComparing(e -> e.kind() == Event.LABEL ? 0 : 1)
                    .thenComparingLong(Event::time)
                    .thenComparingLong(Event::id)
                    .thenComparingLong(Event::label)
                    .thenComparingLong(Event::origin);

    private final Settings settings;
    private final StateLayout layout;
    private final StateLayout.Part part;
    private final byte[] kind;
    private final boolean first;
    private final boolean last;
    private final int stateAt;
    private final int stateSize;
    private final int columnStateSize;

    private transient ValueState<StatePart> state;
    private transient ListState<Event> held;
    private transient Counter duplicates;
    private transient Counter late;

    StateFunction(Settings settings, int column) {
        final Schema schema = settings.schema;
        this.settings = settings;
        this.layout = settings.layouts.get(schema.kinds[column]);
        this.part = layout.tiles(schema.roles[column]);
        this.kind = schema.kinds[column].getBytes(StandardCharsets.UTF_8);
        this.first = column == 0;
        this.last = column == schema.columns.length - 1;
        this.stateAt = settings.stateOffset(column);
        this.columnStateSize = 8 * layout.features;
        this.stateSize = settings.stateOffset(schema.columns.length);
    }

    @Override
    public void open(OpenContext context) throws Exception {
        ValueStateDescriptor<StatePart> described =
                new ValueStateDescriptor<>("part", PartSerializer.INSTANCE);
        settings.expire(described);
        state = getRuntimeContext().getState(described);
        if (settings.eventTime) {
            held =
                    getRuntimeContext()
                            .getListState(
                                    new ListStateDescriptor<>("held", EventSerializer.INSTANCE));
        }
        duplicates = getRuntimeContext().getMetricGroup().counter("duplicates");
        late = getRuntimeContext().getMetricGroup().counter("late");
    }

    @Override
    public void processElement(Event event, Context context, Collector<Event> out)
            throws Exception {
        StatePart found = state.value();
        if (found == null) {
            found = new StatePart(part);
        }
        final long watermark = context.timerService().currentWatermark();
        if (settings.eventTime && event.orderTime() > watermark) {
            held.add(event);
            if (event.orderTime() < found.heldFrom) {
                found.heldFrom = event.orderTime();
                context.timerService().registerEventTimeTimer(found.heldFrom);
            }
        } else {
            if (first && event.orderTime() <= watermark) {
                noteLate(event, context);
            }
            handle(event, found, context, out);
            publish(found, context);
        }
        state.update(found);
    }

    /** Labels have no place in line in latency mode, so none is late there. */
    private void noteLate(Event event, Context context) {
        if (event.kind() == Event.LABEL && !settings.eventTime) {
            return;
        }
        event.markLate();
        late.inc();
        context.output(Outputs.LATE, event);
    }

    @Override
    public void onTimer(long timestamp, OnTimerContext context, Collector<Event> out)
            throws Exception {
        final StatePart found = state.value();
        if (found == null) {
            return; // expired
        }
        if (context.timeDomain() == TimeDomain.PROCESSING_TIME) {
            found.timer = false;
            emitIfChanged(found, context);
        } else {
            if (settings.eventTime && timestamp >= found.heldFrom) {
                releaseHeld(found, context, out);
            }
            if (timestamp == Long.MAX_VALUE) {
                emitIfChanged(found, context);
            } else {
                publish(found, context);
            }
        }
        state.update(found);
    }

    private void releaseHeld(StatePart found, Context context, Collector<Event> out)
            throws Exception {
        final long watermark = context.timerService().currentWatermark();
        List<Event> due = new ArrayList<>();
        List<Event> early = new ArrayList<>();
        found.heldFrom = Long.MAX_VALUE;
        for (Event event : held.get()) {
            if (event.orderTime() <= watermark) {
                due.add(event);
            } else {
                early.add(event);
                found.heldFrom = Math.min(found.heldFrom, event.orderTime());
            }
        }
        held.update(early);
        if (!early.isEmpty()) {
            context.timerService().registerEventTimeTimer(found.heldFrom);
        }
        due.sort(ORDER);
        for (Event event : due) {
            handle(event, found, context, out);
        }
    }

    private void handle(Event event, StatePart found, Context context, Collector<Event> out) {
        if (event.kind() == Event.LABEL) {
            final boolean isNew =
                    found.addLabel(event.labelTime(), event.time(), event.id(), event.label());
            if (!isNew && first) {
                setAside(event, context);
            } else if (!last) {
                event.dropPayload();
                out.collect(event);
            }
            return;
        }
        final long id = event.id();
        if (first && found.isRecent(layout, id)) {
            setAside(event, context);
            return;
        }
        final long time = event.time();
        final long amount = event.amount();
        found.releaseDue(layout, time, id);
        found.read(layout, time, amount, event.stateWithRoom(stateSize), stateAt);
        event.stateLength = stateAt + columnStateSize;
        if (!found.apply(layout, id, time, amount)) {
            duplicates.inc();
        }
        if (first) {
            event.dropPayload();
        }
        out.collect(event);
    }

    private void setAside(Event event, Context context) {
        duplicates.inc();
        final String name = event.name();
        final String observed = name.isEmpty() ? Long.toString(event.id()) : name;
        context.output(
                Outputs.DEAD, event.dead("duplicate-of", settings.schema.eventId, observed));
    }

    /** Publishes at once if the last upsert is old enough, else sees to it that a timer does. */
    private void publish(StatePart found, Context context) {
        if (settings.publishMs < 0 || found.timer || found.changes == found.publishedChanges) {
            return;
        }
        final long now = context.timerService().currentProcessingTime();
        if (found.publishedAt == StatePart.NONE
                || now - found.publishedAt >= settings.publishMs) {
            emitIfChanged(found, context);
            return;
        }
        context.timerService().registerProcessingTimeTimer(found.publishedAt + settings.publishMs);
        found.timer = true;
        if (!found.endTimer) {
            context.timerService().registerEventTimeTimer(Long.MAX_VALUE);
            found.endTimer = true;
        }
    }

    private void emitIfChanged(StatePart found, Context context) {
        if (settings.publishMs < 0 || found.changes == found.publishedChanges) {
            return;
        }
        final long now = context.timerService().currentProcessingTime();
        byte[] key = Upsert.key(kind, context.getCurrentKey(), part.number);
        final long version = settings.version(found.changes);
        byte[] value = Upsert.value(layout.digest, version, now, found.words, found.waiting);
        context.output(Outputs.STATE, new Upsert(key, value));
        found.publishedAt = now;
        found.publishedChanges = found.changes;
    }
}
