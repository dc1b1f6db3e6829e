package io.penstock.stream;

import org.apache.flink.api.common.functions.RuntimeContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.metrics.Counter;
import org.apache.flink.streaming.api.TimeDomain;

/** Drops repeated event ids, and repeated labels, over a longer horizon than a block remembers. */
final class DedupStage implements Stage {
    private static final long serialVersionUID = 1L;

    private final Settings settings;
    private transient ValueState<Boolean> transaction;
    private transient ValueState<Boolean> label;
    private transient Counter duplicates;

    DedupStage(Settings settings) {
        this.settings = settings;
    }

    @Override
    public void open(RuntimeContext context) {
        transaction = seen(context, "transaction");
        label = seen(context, "label");
        duplicates = context.getMetricGroup().counter("duplicates");
    }

    private ValueState<Boolean> seen(RuntimeContext context, String name) {
        ValueStateDescriptor<Boolean> described = new ValueStateDescriptor<>(name, Types.BOOLEAN);
        described.enableTimeToLive(Settings.ttl(settings.dedupMs));
        return context.getState(described);
    }

    @Override
    public void handle(Event event, Host host) throws Exception {
        final ValueState<Boolean> seen = event.kind() == Event.LABEL ? label : transaction;
        if (seen.value() != null) {
            duplicates.inc();
            host.emit(Outputs.DEAD, event.duplicate(settings.schema.eventId));
            return;
        }
        seen.update(Boolean.TRUE);
        host.emit(event);
    }

    @Override
    public void onTimer(long timestamp, TimeDomain domain, Host host) {}
}
