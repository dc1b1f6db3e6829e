package io.penstock.stream;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.apache.flink.api.common.functions.RuntimeContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.metrics.Counter;
import org.apache.flink.streaming.api.TimeDomain;

/**
 * An operator that keeps one memory per entity, in either mode, and publishes it.
 *
 * <p>In latency mode rows are handled as they come. In event-time mode they are held until the
 * watermark passes them and handled in the order of time, labels first, then by id; rows that come
 * behind the watermark are handled at once.
 *
 * <p>A changed memory is published at once if the last upsert is old enough, else by a timer, so
 * the last change always goes out; the first upsert of an entity waits a part of that time. Timers
 * and what they are for are part of savepoints.
 */
abstract class KeyedStage<M extends Memory> implements Stage {
    private static final long serialVersionUID = 1L;

    static final Comparator<Event> ORDER =
            Comparator.comparingLong(Event::orderTime)
                    .thenComparing(e -> e.kind() == Event.LABEL ? 0 : 1)
                    .thenComparingLong(Event::time)
                    .thenComparingLong(Event::id)
                    .thenComparingLong(Event::label)
                    .thenComparingLong(Event::origin);

    /** Distinct times at which timers publish, within the least time between upserts. */
    private static final long GROUPS = 32;

    final Settings settings;
    private final TypeSerializer<M> serializer;

    private transient ValueState<M> state;
    private transient ListState<Event> held;
    /** Memories of the rows of a {@link MiniBatch}, by their place in it. */
    private transient Memory[] lookedUp;
    /** That of the row about to be handled; null: not looked up, or there is none yet. */
    private transient M inHand;

    transient Counter duplicates;
    transient Counter late;

    KeyedStage(Settings settings, TypeSerializer<M> serializer) {
        this.settings = settings;
        this.serializer = serializer;
    }

    abstract M fresh();

    abstract void handle(Event event, M memory, Host host);

    abstract boolean isChanged(M memory);

    /** Sends the changed parts to the online store and notes that they are published. */
    abstract void publish(M memory, long now, Host host);

    /** Reads what handling a row will need, and returns a sum of it; the memory stays as it is. */
    abstract long fetch(M memory, Event event);

    /** Called for rows that come behind the watermark, before they are handled. */
    void onLate(Event event, Host host) {}

    @Override
    public final void open(RuntimeContext context) throws Exception {
        ValueStateDescriptor<M> described = new ValueStateDescriptor<>("memory", serializer);
        settings.expire(described);
        state = context.getState(described);
        if (settings.eventTime) {
            held = context.getListState(new ListStateDescriptor<>("held", EventSerializer.INSTANCE));
        }
        count(
                context.getMetricGroup().counter("duplicates"),
                context.getMetricGroup().counter("late"));
    }

    final void count(Counter repeated, Counter behind) {
        duplicates = repeated;
        late = behind;
    }

    @Override
    public final void handle(Event event, Host host) throws Exception {
        M memory = inHand == null ? state.value() : inHand;
        inHand = null;
        if (memory == null) {
            memory = fresh();
        }
        final long watermark = host.timers().currentWatermark();
        if (settings.eventTime && event.orderTime() > watermark) {
            held.add(event);
            if (event.orderTime() < memory.heldFrom) {
                memory.heldFrom = event.orderTime();
                host.timers().registerEventTimeTimer(memory.heldFrom);
            }
        } else {
            if (event.orderTime() <= watermark) {
                onLate(event, host);
            }
            handle(event, memory, host);
            publishSoon(memory, host);
        }
        state.update(memory);
    }

    /** Returns the index of all memories, null where it cannot be read. */
    final HeapIndex index(int keyGroups) {
        return HeapIndex.of(state, keyGroups, settings.batchRows);
    }

    /** Looks up the memory of the key in hand for {@link #use}. Only with state on the heap. */
    final void lookUp(int place) throws Exception {
        if (lookedUp == null) {
            lookedUp = new Memory[settings.batchRows];
        }
        lookedUp[place] = state.value();
    }

    @SuppressWarnings("unchecked") // lookUp put it there
    final long fetch(Event[] rows, int count) {
        long sum = 0;
        // The memories themselves first, then what they refer to: so the waits overlap.
        for (int i = 0; i < count; i++) {
            sum += lookedUp[i] == null ? 0 : lookedUp[i].touch();
        }
        for (int i = 0; i < count; i++) {
            sum += lookedUp[i] == null ? 0 : fetch((M) lookedUp[i], rows[i]);
        }
        return sum;
    }

    /** Makes the next row handled find its memory without another look. */
    @SuppressWarnings("unchecked") // lookUp put it there
    final void use(int place) {
        inHand = (M) lookedUp[place];
        lookedUp[place] = null;
    }

    @Override
    public final void onTimer(long timestamp, TimeDomain domain, Host host) throws Exception {
        final M memory = state.value();
        if (memory == null) {
            return; // it expired meanwhile
        }
        if (domain == TimeDomain.PROCESSING_TIME) {
            memory.timer = false;
            publishNow(memory, host);
        } else {
            if (settings.eventTime && timestamp >= memory.heldFrom) {
                releaseHeld(memory, host);
            }
            if (timestamp == Long.MAX_VALUE) {
                publishNow(memory, host);
            } else {
                publishSoon(memory, host);
            }
        }
        state.update(memory);
    }

    private void releaseHeld(M memory, Host host) throws Exception {
        final long watermark = host.timers().currentWatermark();
        List<Event> due = new ArrayList<>();
        List<Event> early = new ArrayList<>();
        memory.heldFrom = Long.MAX_VALUE;
        for (Event event : held.get()) {
            if (event.orderTime() <= watermark) {
                due.add(event);
            } else {
                early.add(event);
                memory.heldFrom = Math.min(memory.heldFrom, event.orderTime());
            }
        }
        held.update(early);
        if (!early.isEmpty()) {
            host.timers().registerEventTimeTimer(memory.heldFrom);
        }
        due.sort(ORDER);
        for (Event event : due) {
            handle(event, memory, host);
        }
    }

    private void publishSoon(M memory, Host host) {
        if (settings.publishMs < 0 || memory.timer || !isChanged(memory)) {
            return;
        }
        final long now = host.timers().currentProcessingTime();
        if (memory.publishedAt == Memory.NONE) {
            // As if it had been published some time ago: else all entities would for ever be
            // published in waves, since they are first seen when the job begins.
            final long phase = (host.key().hashCode() & 0xffffffffL) % Math.max(settings.publishMs, 1);
            memory.publishedAt = now - phase;
        }
        if (now - memory.publishedAt >= settings.publishMs) {
            publish(memory, now, host);
            memory.publishedAt = now;
            return;
        }
        final long due = memory.publishedAt + settings.publishMs;
        // Rounded up, so that timers come in groups: Flink wakes up for each distinct time.
        final long grain = Math.max(settings.publishMs / GROUPS, 1);
        host.timers().registerProcessingTimeTimer((due / grain + 1) * grain);
        memory.timer = true;
        if (!memory.endTimer) {
            // A bounded job ends before its processing-time timers fire; this one always fires.
            host.timers().registerEventTimeTimer(Long.MAX_VALUE);
            memory.endTimer = true;
        }
    }

    private void publishNow(M memory, Host host) {
        if (settings.publishMs >= 0 && isChanged(memory)) {
            final long now = host.timers().currentProcessingTime();
            publish(memory, now, host);
            memory.publishedAt = now;
        }
    }
}
