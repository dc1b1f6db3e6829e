package io.penstock.stream;

import org.apache.flink.streaming.api.TimerService;
import org.apache.flink.util.OutputTag;

/** What a stage may do while it handles a row or a timer. */
interface Host {
    TimerService timers();

    /** The key in hand, where keys are entities. */
    EntityId key();

    void emit(Event event);

    <T> void emit(OutputTag<T> tag, T value);
}
