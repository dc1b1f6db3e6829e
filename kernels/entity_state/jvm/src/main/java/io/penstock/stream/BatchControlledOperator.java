package io.penstock.stream;

import java.util.List;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.dag.Transformation;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.operators.co.CoBroadcastWithKeyedOperator;
import org.apache.flink.streaming.api.transformations.TwoInputTransformation;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.RowData;

/** What {@link BatchOperator} is, for the stage that also hears the control messages. */
final class BatchControlledOperator<K>
        extends CoBroadcastWithKeyedOperator<K, Event, byte[], RowData> {
    private static final long serialVersionUID = 1L;

    private final KeyedStage<?> stage;
    private final KeySelector<Event, K> keys;
    private transient MiniBatch batch;

    private BatchControlledOperator(
            ControlledFunction<K> function, KeyedStage<?> stage, KeySelector<Event, K> keys) {
        super(function, List.of(ControlledFunction.CONTROL));
        this.stage = stage;
        this.keys = keys;
    }

    /**
     * Adds the operator to a job. Flink offers this for functions only; these are its own steps.
     *
     * @param control messages, which every instance gets
     */
    static <K> SingleOutputStreamOperator<RowData> connect(
            KeyedStream<Event, K> rows,
            DataStream<byte[]> control,
            ControlledFunction<K> function,
            KeyedStage<?> stage,
            TypeInformation<RowData> type) {
        final StreamExecutionEnvironment env = rows.getExecutionEnvironment();
        TwoInputTransformation<Event, byte[], RowData> made =
                new TwoInputTransformation<>(
                        rows.getTransformation(),
                        control.broadcast().getTransformation(),
                        "controlled",
                        new BatchControlledOperator<>(function, stage, rows.getKeySelector()),
                        type,
                        env.getParallelism(),
                        false);
        made.setStateKeySelectors(rows.getKeySelector(), null);
        made.setStateKeyType(rows.getKeyType());
        env.addOperator(made);
        return new Connected(env, made);
    }

    /** Its constructor is not public in Flink. */
    private static final class Connected extends SingleOutputStreamOperator<RowData> {
        Connected(StreamExecutionEnvironment env, Transformation<RowData> made) {
            super(env, made);
        }
    }

    @Override
    public void open() throws Exception {
        super.open();
        batch = MiniBatch.of(this, stage, keys, super::processElement1);
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
    public void processElement1(StreamRecord<Event> record) throws Exception {
        if (batch == null) {
            super.processElement1(record);
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
    public void processWatermark1(Watermark mark) throws Exception {
        flush();
        super.processWatermark1(mark);
    }

    @Override
    public void processWatermark2(Watermark mark) throws Exception {
        flush();
        super.processWatermark2(mark);
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
