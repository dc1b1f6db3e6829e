package io.penstock.stream;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** Writes a {@link StatePart} into savepoints, and for every access with RocksDB. */
public final class PartSerializer extends TypeSerializerSingleton<StatePart> {
    private static final long serialVersionUID = 1L;
    public static final PartSerializer INSTANCE = new PartSerializer();

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
    public StatePart copy(StatePart from, StatePart reuse) {
        return from.copy();
    }

    @Override
    public int getLength() {
        return -1;
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
    public StatePart deserialize(StatePart reuse, DataInputView in) throws IOException {
        return deserialize(in);
    }

    @Override
    public void copy(DataInputView in, DataOutputView out) throws IOException {
        serialize(deserialize(in), out);
    }

    @Override
    public TypeSerializerSnapshot<StatePart> snapshotConfiguration() {
        return new Snapshot();
    }

    static void writeWords(long[] words, DataOutputView out) throws IOException {
        writeWords(words, words.length, out);
    }

    private static void writeWords(long[] words, int count, DataOutputView out) throws IOException {
        byte[] bytes = new byte[8 * count];
        Bytes.putWords(bytes, 0, words, 0, count);
        out.writeInt(count);
        out.write(bytes);
    }

    static long[] readWords(DataInputView in) throws IOException {
        long[] words = new long[in.readInt()];
        byte[] bytes = new byte[8 * words.length];
        in.readFully(bytes);
        Bytes.getWords(bytes, 0, words, 0, words.length);
        return words;
    }

    /** Names the serializer in savepoints. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<StatePart> {
        public Snapshot() {
            super(() -> INSTANCE);
        }
    }
}
