package io.penstock.stream;

import org.apache.flink.util.OutputTag;

/** Side outputs of the operators. */
final class Outputs {
    /** Rows set aside, duplicates among them. */
    static final OutputTag<Event> DEAD = new OutputTag<>("dead", EventSerializer.type());
    /** Copies of rows older than the watermark. */
    static final OutputTag<Event> LATE = new OutputTag<>("late", EventSerializer.type());
    /** State for the online store. */
    static final OutputTag<Upsert> STATE = new OutputTag<>("state", Upsert.type());

    private Outputs() {}
}
