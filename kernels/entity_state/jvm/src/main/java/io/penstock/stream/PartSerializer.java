package io.penstock.stream;

import java.io.IOException;
import java.util.Arrays;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** Writes a {@link StatePart} into savepoints, and for every access with RocksDB. */
public final class PartSerializer extends OwnSerializer<StatePart> {
    private static final long serialVersionUID = 1L;
    public static final PartSerializer INSTANCE = new PartSerializer();

    /** So many equal words are written as one. */
    private static final int REPEATS = 4;

    /** Most words of one run; a length is 16 bits. */
    private static final int LONGEST = 0xffff - 1;

    @Override
    public boolean isImmutableType() {
        return false;
    }

    @Override
    public StatePart createInstance() {
        return new StatePart(new long[0], 0);
    }

    @Override
    public StatePart copy(StatePart from) {
        return from.copy();
    }

    @Override
    public void serialize(StatePart part, DataOutputView out) throws IOException {
        writeWords(part.words, part.size, out);
        out.writeInt(part.kept);
        writeWords(part.waitingWords(), out);
        part.writeMemory(out);
        out.writeLong(part.changes);
        out.writeLong(part.publishedChanges);
    }

    @Override
    public StatePart deserialize(DataInputView in) throws IOException {
        final long[] words = readWords(in);
        StatePart part = new StatePart(words, in.readInt());
        part.readWaitingWords(readWords(in));
        part.readMemory(in);
        part.changes = in.readLong();
        part.publishedChanges = in.readLong();
        return part;
    }

    @Override
    public TypeSerializerSnapshot<StatePart> snapshotConfiguration() {
        return new Snapshot();
    }

    static void writeWords(long[] words, DataOutputView out) throws IOException {
        writeWords(words, words.length, out);
    }

    /**
     * Writes the count, then alternately u16 and so many words as they are, u16 and the one word
     * that comes so many times, in one go. Most of a young entity's part is the same word, and every
     * checkpoint writes all parts.
     */
    private static void writeWords(long[] words, int count, DataOutputView out) throws IOException {
        byte[] packed = new byte[16 + 8 * count + 12 * (count / REPEATS + 1)];
        int at = 0;
        int from = 0;
        while (from < count) {
            final int same = firstRepeated(words, from, count);
            Bytes.putShort(packed, at, same - from);
            Bytes.putWords(packed, at + 2, words, from, same - from);
            at += 2 + 8 * (same - from);
            from = same;
            if (same < count) {
                from = endOfRepeated(words, same, count);
                Bytes.putShort(packed, at, from - same);
                Bytes.putLong(packed, at + 2, words[same]);
                at += 10;
            }
        }
        out.writeInt(count);
        out.writeInt(at);
        out.write(packed, 0, at);
    }

    /** Start of the next words that are all the same and worth it; {@code count} without. */
    private static int firstRepeated(long[] words, int from, int count) {
        int start = from;
        for (int k = from + 1; k < count; k++) {
            if (words[k] != words[start]) {
                start = k;
            } else if (k - start + 1 >= REPEATS) {
                return start;
            }
            if (k - from >= LONGEST) {
                return k;
            }
        }
        return count;
    }

    private static int endOfRepeated(long[] words, int start, int count) {
        int end = start + 1;
        while (end < count && end - start < LONGEST && words[end] == words[start]) {
            end++;
        }
        return end;
    }

    static long[] readWords(DataInputView in) throws IOException {
        long[] words = new long[in.readInt()];
        byte[] packed = new byte[in.readInt()];
        in.readFully(packed);
        int at = 0;
        int from = 0;
        while (from < words.length) {
            final int plain = Bytes.getShort(packed, at);
            Bytes.getWords(packed, at + 2, words, from, plain);
            at += 2 + 8 * plain;
            from += plain;
            if (from < words.length) {
                final int same = Bytes.getShort(packed, at);
                Arrays.fill(words, from, from + same, Bytes.getLong(packed, at + 2));
                at += 10;
                from += same;
            }
        }
        return words;
    }

    /** Names the serializer in savepoints. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<StatePart> {
        public Snapshot() {
            super(() -> INSTANCE);
        }
    }
}
