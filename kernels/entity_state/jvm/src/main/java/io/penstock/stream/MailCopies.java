package io.penstock.stream;

import java.io.Serializable;
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

    /** Sends a row once per distinct entity; the copy names the first column that holds it. */
    private static final class Send implements FlatMapFunction<Event, Event> {
        private static final long serialVersionUID = 1L;
        private final MailCopies copies;

        Send(MailCopies copies) {
            this.copies = copies;
        }

        @Override
        public void flatMap(Event event, Collector<Event> out) {
            for (int i = 0; i < copies.columns.length; i++) {
                if (copies.isFirst(event, i)) {
                    event.setReader(copies.columns[i]);
                    out.collect(event); // goes over an exchange, so it is written at once
                }
            }
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
            final Event joined = before == null ? event : copies.merge(before, event);
            joined.setReader(before == null ? 1 : before.reader() + 1);
            if (joined.reader() == copies.count(event)) {
                if (before != null) {
                    waiting.clear();
                }
                host.emit(joined);
            } else {
                waiting.update(joined);
            }
        }

        @Override
        public void onTimer(long timestamp, TimeDomain domain, Host host) {}
    }

    private int count(Event event) {
        int count = 0;
        for (int i = 0; i < columns.length; i++) {
            count += isFirst(event, i) ? 1 : 0;
        }
        return count;
    }

    /** Adds to {@code before} the mail of the columns whose entity the copy {@code event} saw. */
    private Event merge(Event before, Event event) {
        for (int column : columns) {
            if (event.sameText(1 + event.reader(), 1 + column)) {
                final int from = plan.from(column);
                System.arraycopy(event.mail, from, before.mail, from, plan.to(column) - from);
            }
        }
        return before;
    }
}
