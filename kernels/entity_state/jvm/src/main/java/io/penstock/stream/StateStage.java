package io.penstock.stream;

import java.nio.charset.StandardCharsets;

/**
 * Keeps the tiles of the entities of one column: every transaction gets the features it sees and is
 * entered, every label waits until a transaction may know it. The first column's stage also drops
 * duplicates.
 */
final class StateStage extends KeyedStage<StatePart> {
    private static final long serialVersionUID = 1L;

    private final StateLayout layout;
    private final StateLayout.Part part;
    private final byte[] kind;
    private final boolean first;
    private final boolean last;
    /** Where the features of this column lie, and the size of those of all columns. */
    private final int from;

    private final int to;
    private final int size;

    StateStage(Settings settings, int column) {
        super(settings, PartSerializer.INSTANCE);
        final Schema schema = settings.schema;
        layout = settings.layouts.get(schema.kinds[column]);
        part = layout.tiles(schema.roles[column]);
        kind = schema.kinds[column].getBytes(StandardCharsets.UTF_8);
        first = column == 0;
        last = column == schema.columns.length - 1;
        from = settings.stateOffset(column);
        to = settings.stateOffset(column + 1);
        size = settings.stateOffset(schema.columns.length);
    }

    @Override
    StatePart fresh() {
        return new StatePart(part.empty, layout.sums);
    }

    /** In latency mode labels have no place in line, so none is late. */
    @Override
    void onLate(Event event, Host host) {
        if (first && (settings.eventTime || event.kind() == Event.TRANSACTION)) {
            event.markLate();
            late.inc();
            host.emit(Outputs.LATE, event);
        }
    }

    @Override
    void handle(Event event, StatePart memory, Host host) {
        if (event.kind() == Event.LABEL) {
            final boolean isNew =
                    memory.addLabel(event.labelTime(), event.time(), event.id(), event.label());
            if (!isNew && first) {
                setAside(event, host);
            } else if (!last) {
                event.dropPayload();
                host.emit(event);
            }
            return;
        }
        final long id = event.id();
        if (first && memory.isRecent(layout, id)) {
            setAside(event, host);
            return;
        }
        final long time = event.time();
        final long amount = event.amount();
        memory.releaseDue(layout, time, id);
        memory.read(layout, time, amount, event.stateWithRoom(size), from);
        event.stateLength = to;
        if (!memory.apply(layout, id, time, amount)) {
            duplicates.inc();
        }
        if (first) {
            event.dropPayload();
        }
        host.emit(event);
    }

    @Override
    long fetch(StatePart memory, Event event) {
        final long waiting = memory.fetchWaiting();
        return event.kind() == Event.LABEL ? waiting : waiting + memory.fetchPart();
    }

    private void setAside(Event event, Host host) {
        duplicates.inc();
        host.emit(Outputs.DEAD, event.duplicate(settings.schema.eventId));
    }

    @Override
    boolean isChanged(StatePart memory) {
        return memory.changes != memory.publishedChanges;
    }

    @Override
    void publish(StatePart memory, long now, Host host) {
        byte[] key = Upsert.key(kind, host.key(), part.number);
        final long version = settings.version(memory.changes);
        byte[] value = Upsert.ofPart(layout.digest, version, now, memory);
        host.emit(Outputs.STATE, new Upsert(key, value));
        memory.publishedChanges = memory.changes;
    }
}
