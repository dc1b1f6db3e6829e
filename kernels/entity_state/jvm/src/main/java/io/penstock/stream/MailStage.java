package io.penstock.stream;

import java.nio.charset.StandardCharsets;

/**
 * Keeps the mailboxes of one kind: a row reads those of its entity, all roles, and leaves a message
 * afterwards. One entity may stand in several columns of a row; each of them reads before any of
 * them leaves a message.
 */
final class MailStage extends KeyedStage<Mailbox> {
    private static final long serialVersionUID = 1L;

    private final Schema schema;
    private final StateLayout layout;
    private final MailPlan plan;
    private final byte[] kind;
    private final int[] columns;
    private final int groupBytes;
    private final long[] vector;

    MailStage(Settings settings, String kind) {
        super(settings, MailboxSerializer.INSTANCE);
        this.schema = settings.schema;
        this.layout = settings.layouts.get(kind);
        this.plan = settings.mailPlan;
        this.kind = kind.getBytes(StandardCharsets.UTF_8);
        this.columns = plan.columnsOf(kind);
        this.groupBytes = layout.mailSize * Mailbox.slotBytes(settings.message.width);
        this.vector = new long[layout.mailWords];
    }

    @Override
    Mailbox fresh() {
        return new Mailbox(layout);
    }

    @Override
    void handle(Event event, Mailbox memory, Host host) {
        if (event.mail == null) {
            event.mail = new byte[plan.size()];
        }
        final EntityId id = host.key();
        for (int column : columns) {
            if (event.entityId(column).equals(id)) {
                read(event, memory, column);
            }
        }
        settings.message.write(settings, event, vector);
        for (int column : columns) {
            if (event.entityId(column).equals(id)) {
                leave(event, memory, column);
            }
        }
        host.emit(event);
    }

    @Override
    long fetch(Mailbox memory, Event event) {
        return memory.fetch();
    }

    private void read(Event event, Mailbox memory, int column) {
        int at = plan.from(column);
        for (int role = 0; role < layout.roles; role++, at += groupBytes) {
            memory.read(layout, role, settings.message.width, event.mail, at);
        }
    }

    /** The counterpart is the entity of the next column; with one column there is none. */
    private void leave(Event event, Mailbox memory, int column) {
        final int next = (column + 1) % schema.columns.length;
        final boolean alone = next == column;
        memory.deposit(
                layout,
                schema.roles[column],
                event.time(),
                event.amount(),
                alone ? -1 : event.entityKey(schema, next),
                alone ? -1 : next,
                vector);
    }

    @Override
    boolean isChanged(Mailbox memory) {
        for (int role = 0; role < memory.changes.length; role++) {
            if (memory.changes[role] != memory.publishedChanges[role]) {
                return true;
            }
        }
        return false;
    }

    @Override
    void publish(Mailbox memory, long now, Host host) {
        for (int role = 0; role < memory.changes.length; role++) {
            if (memory.changes[role] == memory.publishedChanges[role]) {
                continue;
            }
            byte[] key = Upsert.key(kind, host.key(), layout.mailbox(role).number);
            final long version = settings.version(memory.changes[role]);
            byte[] value = Upsert.ofMail(layout.digest, version, now, memory.words[role]);
            host.emit(Outputs.STATE, new Upsert(key, value));
            memory.publishedChanges[role] = memory.changes[role];
        }
    }
}
