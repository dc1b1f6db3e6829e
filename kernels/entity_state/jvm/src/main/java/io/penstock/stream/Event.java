package io.penstock.stream;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * A row on its way through the job: a checked transaction or label, or one that was set aside.
 *
 * <p>What came from outside lies in one flat array, so that a row goes over an exchange by copying
 * bytes: a head of fixed fields, the ends of the texts, the numeric columns, the texts, and last,
 * dropped after the first operator, where the row came from and its original bytes. State and mail
 * are appended on the way.
 */
public final class Event {
    static final byte TRANSACTION = 0;
    static final byte LABEL = 1;
    /** Set aside: its texts are rule, column and what was observed. */
    static final byte DEAD = 2;

    static final byte[] NOTHING = new byte[0];

    // Places in the head.
    static final int KIND = 0;
    static final int LATE = 1;
    static final int LABEL_VALUE = 2;
    static final int TEXTS = 3;
    static final int NUMBERS = 4;
    static final int READER = 6;
    static final int ID = 8;
    static final int TIME = 16;
    static final int AMOUNT = 24;
    static final int LABEL_TIME = 32;
    static final int ORIGIN = 40;
    static final int ENDS = 48;

    /** The flat row; only its first {@code length} bytes count. */
    final byte[] row;

    int length;
    /** Features of the columns passed so far, float64 little endian. */
    byte[] state = NOTHING;

    int stateLength;
    /** Mail, null before the stage of mail. */
    byte[] mail;

    Event(byte[] row, int length) {
        this.row = row;
        this.length = length;
    }

    byte kind() {
        return row[KIND];
    }

    boolean isLate() {
        return row[LATE] != 0;
    }

    void markLate() {
        row[LATE] = 1;
    }

    long id() {
        return Bytes.getLong(row, ID);
    }

    long time() {
        return Bytes.getLong(row, TIME);
    }

    long amount() {
        return Bytes.getLong(row, AMOUNT);
    }

    /** When a label counts: {@code max(time + delay, time known)}. */
    long labelTime() {
        return Bytes.getLong(row, LABEL_TIME);
    }

    long label() {
        return row[LABEL_VALUE];
    }

    /** Entity column for which a copy of the row visits a mailbox. */
    int reader() {
        return row[READER];
    }

    void setReader(int column) {
        row[READER] = (byte) column;
    }

    /** A number that only this row has, made of its source and place there. */
    long origin() {
        return Bytes.getLong(row, ORIGIN);
    }

    /** The instant by which rows are held and ordered. */
    long orderTime() {
        return kind() == LABEL ? labelTime() : time();
    }

    /** Id as it was sent; empty when it is the text of {@link #id}. */
    String name() {
        return text(0);
    }

    /** Id of an entity column. */
    String entity(int column) {
        return text(1 + column);
    }

    /** Key of an entity column. */
    EntityId entityId(int column) {
        final int start = textStart(1 + column);
        return new EntityId(row, start, textEnd(1 + column) - start);
    }

    /** 64-bit key of an entity column, see {@link EntityKeys}. */
    long entityKey(Schema schema, int column) {
        return EntityKeys.entityKey(
                schema.keyStarts[column], row, textStart(1 + column), textEnd(1 + column));
    }

    /** Start of a text in {@link #row}. */
    int textStart(int number) {
        return number == 0
                ? numbersAt() + 8 * numbers()
                : Bytes.getInt(row, ENDS + 4 * (number - 1));
    }

    int textEnd(int number) {
        return Bytes.getInt(row, ENDS + 4 * number);
    }

    boolean sameText(int one, int other) {
        return one == other
                || Arrays.equals(
                        row, textStart(one), textEnd(one), row, textStart(other), textEnd(other));
    }

    String text(int number) {
        final int start = textStart(number);
        return new String(row, start, textEnd(number) - start, StandardCharsets.UTF_8);
    }

    int texts() {
        return row[TEXTS] & 0xff;
    }

    int numbers() {
        return (row[NUMBERS] & 0xff) | (row[NUMBERS + 1] & 0xff) << 8;
    }

    int numbersAt() {
        return ENDS + 4 * texts();
    }

    /** Where the tail begins: place in the source, name of the source, original bytes. */
    private int tail() {
        return textEnd(texts() - 1);
    }

    boolean hasPayload() {
        return length > tail();
    }

    /** Offset in the topic's partition, or byte in the file. */
    long place() {
        return Bytes.getLong(row, tail());
    }

    String source() {
        final int at = tail() + 8;
        return new String(row, at + 4, Bytes.getInt(row, at), StandardCharsets.UTF_8);
    }

    int payloadStart() {
        final int at = tail() + 8;
        return at + 4 + Bytes.getInt(row, at);
    }

    void dropPayload() {
        length = tail();
    }

    /** Returns the place for the features of a column, making room for all columns at first. */
    byte[] stateWithRoom(int size) {
        if (state.length < size) {
            byte[] larger = new byte[size];
            System.arraycopy(state, 0, larger, 0, stateLength);
            state = larger;
        }
        return state;
    }

    Event copy() {
        byte[] own = new byte[length];
        System.arraycopy(row, 0, own, 0, length);
        Event copy = new Event(own, length);
        copy.state = stateLength == 0 ? NOTHING : state.clone();
        copy.stateLength = stateLength;
        copy.mail = mail == null ? null : mail.clone();
        return copy;
    }

    Event copyFor(int reader) {
        Event copy = copy();
        copy.setReader(reader);
        return copy;
    }

    /** Returns this row set aside because its id came before. */
    Event duplicate(String idColumn) {
        final String name = name();
        return new EventWriter()
                .start(DEAD, 3, 0)
                .head(id(), time(), amount(), labelTime(), origin())
                .text("duplicate-of")
                .text(idColumn)
                .text(name.isEmpty() ? Long.toString(id()) : name)
                .tail(row, tail(), length);
    }
}
