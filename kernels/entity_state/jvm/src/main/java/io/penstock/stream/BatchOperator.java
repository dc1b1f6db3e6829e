package io.penstock.stream;

import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.operators.KeyedProcessOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;

/**
 * Flink's operator for a {@link StageFunctions stage function} that handles rows in a {@link
 * MiniBatch}. Its state is that of the plain operator, so either goes on from the other's savepoint.
 */
final class BatchOperator<K, O> extends KeyedProcessOperator<K, Event, O> {
    private static final long serialVersionUID = 1L;

    private final KeyedStage<?> stage;
    private final KeySelector<Event, K> keys;
    private transient MiniBatch batch;

    /**
     * Makes an operator.
     *
     * @param function that calls {@code stage}
     */
    BatchOperator(
            KeyedProcessFunction<K, Event, O> function,
            KeyedStage<?> stage,
            KeySelector<Event, K> keys) {
        super(function);
        this.stage = stage;
        this.keys = keys;
    }

    @Override
    public void open() throws Exception {
        super.open();
        batch = MiniBatch.of(this, stage, keys, super::processElement);
    }

    /** The batch sets the key itself, later. */
    @Override
    @SuppressWarnings("rawtypes") // so does Flink
    public void setKeyContextElement1(StreamRecord record) throws Exception {
        if (batch == null) {
            super.setKeyContextElement1(record);
        }
    }

    @Override
    public void processElement(StreamRecord<Event> record) throws Exception {
        if (batch == null) {
            super.processElement(record);
        } else {
            batch.add(record);
        }
    }

    private void flush() throws Exception {
        if (batch != null) {
            batch.flush();
        }
    }

    @Override
    public void processWatermark(Watermark mark) throws Exception {
        flush();
        super.processWatermark(mark);
    }

    @Override
    public void processWatermarkStatus(WatermarkStatus status) throws Exception {
        flush();
        super.processWatermarkStatus(status);
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
        flush();
        super.prepareSnapshotPreBarrier(checkpoint);
    }

    @Override
    public void finish() throws Exception {
        flush();
        super.finish();
    }
}
