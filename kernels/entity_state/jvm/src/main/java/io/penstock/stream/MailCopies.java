package io.penstock.stream;

import java.io.Serializable;
import java.util.function.IntConsumer;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.api.common.functions.RuntimeContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.streaming.api.TimeDomain;
import org.apache.flink.util.Collector;

/**
 * Several columns of one kind: a row visits the mailbox of each of its entities, so it is sent once
 * per distinct entity, and put together again by its origin.
 */
final class MailCopies implements Serializable {
    private static final long serialVersionUID = 1L;

    private final int[] columns;
    private final MailPlan plan;

    MailCopies(Settings settings, String kind) {
        this.plan = settings.mailPlan;
        this.columns = plan.columnsOf(kind);
    }

    /** Tells whether no earlier column of the kind holds the same entity. */
    private boolean isFirst(Event event, int place) {
        for (int i = 0; i < place; i++) {
            if (event.sameText(1 + columns[i], 1 + columns[place])) {
                return false;
            }
        }
        return true;
    }

    FlatMapFunction<Event, Event> send() {
        return new Send(this);
    }

    Stage join() {
        return new Join(this);
    }

    /** Names, for each distinct entity of a row, the first column that holds it. */
    void sendTo(Event event, IntConsumer readers) {
        for (int i = 0; i < columns.length; i++) {
            if (isFirst(event, i)) {
                readers.accept(columns[i]);
            }
        }
    }

    /** Sends a row once per distinct entity. */
    private static final class Send implements FlatMapFunction<Event, Event> {
        private static final long serialVersionUID = 1L;
        private final MailCopies copies;

        Send(MailCopies copies) {
            this.copies = copies;
        }

        @Override
        public void flatMap(Event event, Collector<Event> out) {
            copies.sendTo(
                    event,
                    reader -> {
                        event.setReader(reader);
                        out.collect(event); // goes over an exchange, so it is written at once
                    });
        }
    }

    /** Waits for all copies of a row, keyed by its origin. */
    private static final class Join implements Stage {
        private static final long serialVersionUID = 1L;
        private final MailCopies copies;
        private transient ValueState<Event> waiting;

        Join(MailCopies copies) {
            this.copies = copies;
        }

        @Override
        public void open(RuntimeContext context) {
            waiting =
                    context.getState(
                            new ValueStateDescriptor<>("waiting", EventSerializer.INSTANCE));
        }

        @Override
        public void handle(Event event, Host host) throws Exception {
            final Event before = waiting.value();
            final Event joined = copies.join(before, event);
            if (!copies.isComplete(joined)) {
                waiting.update(joined);
                return;
            }
            if (before != null) {
                waiting.clear();
            }
            host.emit(joined);
        }

        @Override
        public void onTimer(long timestamp, TimeDomain domain, Host host) {}
    }

    /**
     * Adds to a row what another copy of it read; {@code before} is null for the first copy. Instead
     * of its reader, a joined row counts the copies.
     */
    Event join(Event before, Event copy) {
        if (before == null) {
            copy.setReader(1);
            return copy;
        }
        for (int column : columns) {
            if (copy.sameText(1 + copy.reader(), 1 + column)) {
                final int from = plan.from(column);
                System.arraycopy(copy.mail, from, before.mail, from, plan.to(column) - from);
            }
        }
        before.setReader(before.reader() + 1);
        return before;
    }

    boolean isComplete(Event joined) {
        int count = 0;
        for (int i = 0; i < columns.length; i++) {
            count += isFirst(joined, i) ? 1 : 0;
        }
        return joined.reader() == count;
    }
}
