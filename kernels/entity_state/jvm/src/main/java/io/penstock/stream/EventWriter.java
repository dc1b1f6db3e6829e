package io.penstock.stream;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** Writes the flat row of an {@link Event}, field after field; reused from row to row. */
final class EventWriter {
    private byte[] scratch = new byte[1024];
    private int texts;
    private int written;
    private int at;

    EventWriter start(byte kind, int texts, int numbers) {
        this.texts = texts;
        written = 0;
        at = Event.ENDS + 4 * texts + 8 * numbers;
        makeRoom(0);
        scratch[Event.KIND] = kind;
        scratch[Event.LATE] = 0;
        scratch[Event.LABEL_VALUE] = 0;
        scratch[Event.TEXTS] = (byte) texts;
        scratch[Event.NUMBERS] = (byte) numbers;
        scratch[Event.NUMBERS + 1] = (byte) (numbers >> 8);
        scratch[Event.READER] = 0;
        return this;
    }

    EventWriter head(long id, long time, long amount, long labelTime, long origin) {
        Bytes.putLong(scratch, Event.ID, id);
        Bytes.putLong(scratch, Event.TIME, time);
        Bytes.putLong(scratch, Event.AMOUNT, amount);
        Bytes.putLong(scratch, Event.LABEL_TIME, labelTime);
        Bytes.putLong(scratch, Event.ORIGIN, origin);
        return this;
    }

    EventWriter label(int value) {
        scratch[Event.LABEL_VALUE] = (byte) value;
        return this;
    }

    EventWriter number(int place, double value) {
        Bytes.putDouble(scratch, Event.ENDS + 4 * texts + 8 * place, value);
        return this;
    }

    EventWriter text(String value) {
        final int length = value.length();
        makeRoom(3 * length);
        int to = at;
        for (int i = 0; i < length; i++) {
            final char c = value.charAt(i);
            if (c >= 0x80) {
                byte[] encoded = value.getBytes(StandardCharsets.UTF_8);
                System.arraycopy(encoded, 0, scratch, at, encoded.length);
                to = at + encoded.length;
                break;
            }
            scratch[to++] = (byte) c;
        }
        at = to;
        Bytes.putInt(scratch, Event.ENDS + 4 * written++, at);
        return this;
    }

    /** Appends where the row came from and its bytes, and returns the event. */
    Event tail(long place, byte[] source, byte[] payload, int from, int length) {
        makeRoom(12 + source.length + length);
        Bytes.putLong(scratch, at, place);
        Bytes.putInt(scratch, at + 8, source.length);
        System.arraycopy(source, 0, scratch, at + 12, source.length);
        at += 12 + source.length;
        System.arraycopy(payload, from, scratch, at, length);
        at += length;
        return finish();
    }

    /** Appends the tail of another row, and returns the event. */
    Event tail(byte[] row, int from, int to) {
        makeRoom(to - from);
        System.arraycopy(row, from, scratch, at, to - from);
        at += to - from;
        return finish();
    }

    private Event finish() {
        return new Event(Arrays.copyOf(scratch, at), at);
    }

    private void makeRoom(int more) {
        if (scratch.length < at + more) {
            scratch = Arrays.copyOf(scratch, Math.max(2 * scratch.length, at + more));
        }
    }
}
