package io.penstock.stream;

import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.runtime.state.heap.HeapKeyedStateBackend;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.tasks.ProcessingTimeService;
import org.apache.flink.util.function.ThrowingConsumer;

/**
 * Rows that an operator collects and then handles in a row, so that the memories of their entities
 * are fetched at once.
 *
 * <p>With hundreds of thousands of entities on the heap nearly every access misses the cache, and an
 * operator spends most of its time waiting for one miss after the other. Looking up all rows of a
 * batch first, without doing anything else, lets the processor overlap those waits: the same work
 * takes a third less CPU. (The idea is group prefetching, Chen et al., "Improving hash join
 * performance through prefetching", ICDE 2004.)
 *
 * <p>A batch is handled when it is full, before a watermark or a checkpoint passes, at the end, and
 * at the latest {@link #WAIT_MS} after its first row. With state outside the heap a lookup is a copy
 * that the next row would not see; {@link #of} gives null there.
 */
final class MiniBatch {
    /** Longest wait of a row, milliseconds. */
    static final long WAIT_MS = 10;

    private final AbstractStreamOperator<?> operator;
    private final KeyedStage<?> stage;
    private final KeySelector<Event, ?> keys;
    private final ThrowingConsumer<StreamRecord<Event>, Exception> handle;
    private final StreamRecord<Event> record = new StreamRecord<>(null);

    /** Null: not to be read. */
    private final HeapIndex index;

    private final Event[] rows;
    private final Object[] keysOfRows;
    private final long[] timestamps;
    private int count;
    private boolean timer;
    /** Sum of what was fetched: the compiler may not drop it. */
    long fetched;

    private MiniBatch(
            AbstractStreamOperator<?> operator,
            KeyedStage<?> stage,
            KeySelector<Event, ?> keys,
            ThrowingConsumer<StreamRecord<Event>, Exception> handle) {
        this.operator = operator;
        this.stage = stage;
        this.keys = keys;
        this.handle = handle;
        index =
                stage.index(
                        operator.getRuntimeContext()
                                .getTaskInfo()
                                .getMaxNumberOfParallelSubtasks());
        rows = new Event[stage.settings.batchRows];
        keysOfRows = new Object[rows.length];
        timestamps = new long[rows.length];
    }

    /**
     * Returns a batch for an operator, or null where rows are better handled one by one.
     *
     * @param operator that has been opened
     * @param keys of its rows
     * @param handle called for each row, its key set
     */
    static MiniBatch of(
            AbstractStreamOperator<?> operator,
            KeyedStage<?> stage,
            KeySelector<Event, ?> keys,
            ThrowingConsumer<StreamRecord<Event>, Exception> handle) {
        final boolean useful = stage.settings.batchRows > 1 && !stage.settings.eventTime;
        return useful && operator.getKeyedStateBackend() instanceof HeapKeyedStateBackend
                ? new MiniBatch(operator, stage, keys, handle)
                : null;
    }

    void add(StreamRecord<Event> given) throws Exception {
        final Event event = given.getValue();
        rows[count] = event;
        keysOfRows[count] = keys.getKey(event);
        timestamps[count] = given.hasTimestamp() ? given.getTimestamp() : Memory.NONE;
        count++;
        if (count == rows.length) {
            flush();
        } else if (!timer) {
            flushSoon();
        }
    }

    private void flushSoon() {
        timer = true;
        final ProcessingTimeService service = operator.getProcessingTimeService();
        service.registerTimer(
                service.getCurrentProcessingTime() + WAIT_MS,
                time -> {
                    timer = false;
                    flush();
                });
    }

    void flush() throws Exception {
        if (count == 0) {
            return;
        }
        if (index != null) {
            fetched += index.fetch(keysOfRows, count);
        }
        for (int i = 0; i < count; i++) {
            operator.setCurrentKey(keysOfRows[i]);
            stage.lookUp(i);
        }
        fetched += stage.fetch(rows, count);
        for (int i = 0; i < count; i++) {
            operator.setCurrentKey(keysOfRows[i]);
            stage.use(i);
            if (timestamps[i] == Memory.NONE) {
                record.replace(rows[i]);
                record.eraseTimestamp();
            } else {
                record.replace(rows[i], timestamps[i]);
            }
            handle.accept(record);
            rows[i] = null;
            keysOfRows[i] = null;
        }
        count = 0;
    }
}
