package io.penstock.stream;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import org.apache.flink.metrics.SimpleCounter;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.streaming.api.TimerService;
import org.apache.flink.util.OutputTag;

/**
 * Runs the core without a cluster, bytes in and bytes out, so that tests in another language can
 * drive it a thousand times a second. All numbers little endian.
 */
public final class Probe {
    private final Settings settings;

    /**
     * Makes a probe.
     *
     * @param json configuration of a job, see docs/reference/stream-jvm.md
     */
    public Probe(String json) {
        settings = Settings.parse(json);
    }

    /** Returns the key of an entity. */
    public static long entityKey(String kind, String id) {
        return EntityKeys.entityKey(kind, id);
    }

    /** Tells whether the heap state of this Flink can be read ahead. */
    public static boolean readsHeapAhead() {
        return HeapIndex.isKnown();
    }

    /** Returns the key of an event id in text. */
    public static long eventKey(String text) {
        return new Identifiers().eventKey(text);
    }

    /** Returns the 8-byte BLAKE2b digest as a big-endian number. */
    public static long blake2b(byte[] message) {
        return new Blake2b().hash(message, 0, message.length);
    }

    /**
     * Runs operations on one block.
     *
     * @param plan JSON of the layout
     * @param script int64 words, one operation after the other: {@code 0 role id time amount} (read
     *     and enter), {@code 1 role time label} (release), {@code 2 role time amount counterpart
     *     counterpart-role} and the words of the vector (deposit)
     * @return per operation 0 its features and 1.0 or 0.0 (entered or not), then the parts of the
     *     block in order, then the messages of every role, newest first
     */
    public static byte[] script(String plan, byte[] script) throws IOException {
        final StateLayout layout = new StateLayout(new ObjectMapper().readTree(plan));
        final StatePart[] tiles = new StatePart[layout.roles];
        for (int role = 0; role < layout.roles; role++) {
            tiles[role] = new StatePart(layout.tiles(role).empty, layout.sums);
        }
        final Mailbox mailbox = new Mailbox(layout);
        final long[] words = new long[script.length / 8];
        Bytes.getWords(script, 0, words, 0, words.length);
        final Output out = new Output();
        int at = 0;
        while (at < words.length) {
            final int role = (int) words[at + 1];
            if (words[at] == 0) {
                final byte[] features = new byte[8 * layout.features];
                tiles[role].read(layout, words[at + 3], words[at + 4], features, 0);
                out.write(features);
                final boolean entered =
                        tiles[role].apply(layout, words[at + 2], words[at + 3], words[at + 4]);
                out.put(Double.doubleToRawLongBits(entered ? 1.0 : 0.0));
                at += 5;
            } else if (words[at] == 1) {
                tiles[role].release(layout, words[at + 2], words[at + 3]);
                at += 4;
            } else {
                final long[] vector = new long[layout.mailWords];
                System.arraycopy(words, at + 6, vector, 0, vector.length);
                mailbox.deposit(
                        layout,
                        role,
                        words[at + 2],
                        words[at + 3],
                        words[at + 4],
                        words[at + 5],
                        vector);
                at += 6 + vector.length;
            }
        }
        for (int role = 0; role < layout.roles; role++) {
            out.put(Arrays.copyOf(tiles[role].words, tiles[role].size));
            out.put(mailbox.words[role]);
        }
        final int group = layout.mailSize * Mailbox.slotBytes(layout.mailWidth);
        final byte[] mail = new byte[layout.roles * group];
        for (int role = 0; role < layout.roles; role++) {
            mailbox.read(layout, role, layout.mailWidth, mail, role * group);
        }
        out.write(mail);
        return out.toByteArray();
    }

    /**
     * Checks rows.
     *
     * @param rows u32 length and bytes of each row
     * @param labels whether they are labels
     * @return per row either 1 (byte) and rule, column, observed as texts (u32 length and UTF-8,
     *     length -1 for none), or 0 and id, time, amount, label time, label (int64), name, entities,
     *     categories as texts, and the numeric columns
     */
    public byte[] parse(byte[] rows, boolean labels) throws IOException {
        final EventParser parser = new EventParser(settings.schema, labels);
        final Output out = new Output();
        for (int at = 0; at < rows.length; ) {
            final int length = Bytes.getInt(rows, at);
            final Event event = parser.parse(rows, at + 4, length, at, new byte[0], at);
            at += 4 + length;
            final int texts = event.texts();
            if (event.kind() == Event.DEAD) {
                out.write(1);
                for (int t = 0; t < texts; t++) {
                    out.put(event.text(t).equals("\0") ? null : event.text(t));
                }
                continue;
            }
            out.write(0);
            out.put(event.id());
            out.put(event.time());
            out.put(event.amount());
            out.put(event.labelTime());
            out.put(event.label());
            for (int t = 0; t < texts; t++) {
                out.put(event.text(t));
            }
            out.write(event.row, event.numbersAt(), 8 * event.numbers());
        }
        return out.toByteArray();
    }

    /**
     * Runs rows through the stages of a job, in latency mode as they come, in event-time mode in
     * order, as if the watermark came last.
     *
     * @param rows u32 length and bytes of each row, of which the first is {@code T} for a
     *     transaction, {@code L} for a label, and the rest the JSON
     * @return u32 count of results, and per result id (int64), features, mail; then u32 count of rows
     *     set aside and per row its rule and observed value; then key and value of an upsert (u32
     *     length and bytes) for every entity
     */
    public byte[] stream(byte[] rows) throws IOException {
        final EventParser transactions = new EventParser(settings.schema, false);
        final EventParser labels = new EventParser(settings.schema, true);
        final Sink sink = new Sink();
        List<Event> events = new ArrayList<>();
        for (int at = 0; at < rows.length; ) {
            final int length = Bytes.getInt(rows, at);
            final EventParser parser = rows[at + 4] == 'L' ? labels : transactions;
            final Event event = parser.parse(rows, at + 5, length - 1, at, new byte[0], at);
            at += 4 + length;
            if (event.kind() == Event.DEAD) {
                sink.dead.add(event);
            } else {
                events.add(event);
            }
        }
        final Schema schema = settings.schema;
        for (int c = 0; c < schema.columns.length; c++) {
            final int column = c;
            events = sink.run(new StateStage(settings, c), e -> e.entityId(column), events);
        }
        if (settings.message != null) {
            for (String kind : new LinkedHashSet<>(List.of(schema.kinds))) {
                events = sink.runMail(new MailStage(settings, kind), kind, events);
            }
        }
        final Output out = new Output();
        out.putInt(events.size());
        for (Event event : events) {
            out.put(event.id());
            out.write(event.state, 0, event.stateLength);
            if (event.mail != null) {
                out.write(event.mail);
            }
        }
        out.putInt(sink.dead.size());
        for (Event event : sink.dead) {
            out.put(event.text(0));
            out.put(event.text(2));
        }
        for (Upsert upsert : sink.upserts) {
            out.putInt(upsert.key.length);
            out.write(upsert.key);
            out.putInt(upsert.value.length);
            out.write(upsert.value);
        }
        return out.toByteArray();
    }

    private interface KeyOf {
        EntityId of(Event event);
    }

    /** Stands for Flink: keeps memories by key and collects what stages emit. */
    private final class Sink implements Host {
        private final List<Event> dead = new ArrayList<>();
        private final List<Upsert> upserts = new ArrayList<>();
        private List<Event> emitted = new ArrayList<>();
        private EntityId key;

        <M extends Memory> List<Event> run(KeyedStage<M> stage, KeyOf keys, List<Event> events) {
            stage.count(new SimpleCounter(), new SimpleCounter());
            final Map<EntityId, M> memories = new LinkedHashMap<>();
            final List<Event> ordered = new ArrayList<>(events);
            if (settings.eventTime) {
                ordered.sort(KeyedStage.ORDER);
            }
            emitted = new ArrayList<>();
            for (Event event : ordered) {
                key = keys.of(event);
                stage.handle(event, memories.computeIfAbsent(key, k -> stage.fresh()), this);
            }
            for (Map.Entry<EntityId, M> memory : memories.entrySet()) {
                key = memory.getKey();
                if (stage.isChanged(memory.getValue())) {
                    stage.publish(memory.getValue(), 0, this);
                }
            }
            return emitted;
        }

        List<Event> runMail(MailStage stage, String kind, List<Event> events) {
            final MailCopies copies = new MailCopies(settings, kind);
            final List<Event> sent = new ArrayList<>();
            for (Event event : events) {
                copies.sendTo(event, reader -> sent.add(event.copyFor(reader)));
            }
            final List<Event> joined = new ArrayList<>();
            final Map<Long, Event> waiting = new LinkedHashMap<>();
            for (Event copy : run(stage, e -> e.entityId(e.reader()), sent)) {
                final Event whole = copies.join(waiting.remove(copy.origin()), copy);
                if (copies.isComplete(whole)) {
                    joined.add(whole);
                } else {
                    waiting.put(copy.origin(), whole);
                }
            }
            return joined;
        }

        @Override
        public TimerService timers() {
            throw new UnsupportedOperationException("no timers here");
        }

        @Override
        public EntityId key() {
            return key;
        }

        @Override
        public void emit(Event event) {
            emitted.add(event);
        }

        @Override
        public <T> void emit(OutputTag<T> tag, T value) {
            if (value instanceof Upsert upsert) {
                upserts.add(upsert);
            } else if (tag == (Object) Outputs.DEAD) {
                dead.add((Event) value);
            }
        }
    }

    /** Collects numbers and texts. */
    private static final class Output extends ByteArrayOutputStream {
        void put(long value) {
            final byte[] bytes = new byte[8];
            Bytes.putLong(bytes, 0, value);
            writeBytes(bytes);
        }

        void put(long[] words) {
            final byte[] bytes = new byte[8 * words.length];
            Bytes.putWords(bytes, 0, words, 0, words.length);
            writeBytes(bytes);
        }

        void putInt(int value) {
            final byte[] bytes = new byte[4];
            Bytes.putInt(bytes, 0, value);
            writeBytes(bytes);
        }

        void put(String text) {
            if (text == null) {
                putInt(-1);
                return;
            }
            final byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
            putInt(bytes.length);
            writeBytes(bytes);
        }
    }
}
