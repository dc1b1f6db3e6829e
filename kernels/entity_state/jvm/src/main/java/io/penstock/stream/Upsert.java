package io.penstock.stream;

import java.io.IOException;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** One part of an entity's block as the online store gets it: key and value. */
public final class Upsert {
    /** Most waiting labels that go along; those due first. */
    static final int MAX_WAITING = 2048;

    private static final int HEAD = 32;

    final byte[] key;
    final byte[] value;

    Upsert(byte[] key, byte[] value) {
        this.key = key;
        this.value = value;
    }

    /** Returns the key: kind, 0, id, 0, number of the part. */
    static byte[] key(byte[] kind, EntityId id, int part) {
        final byte[] text = id.bytes();
        byte[] key = new byte[kind.length + text.length + 3];
        System.arraycopy(kind, 0, key, 0, kind.length);
        System.arraycopy(text, 0, key, kind.length + 1, text.length);
        key[key.length - 1] = (byte) part;
        return key;
    }

    /** Returns the value of a part of tiles: head, words, labels that wait. */
    static byte[] ofPart(long digest, long version, long now, StatePart part) {
        final int labels = Math.min(part.waiting(), MAX_WAITING);
        final int end = HEAD + 8 * part.size;
        byte[] value = new byte[end + 8 * WaitingLabels.WIDTH * labels];
        writeHead(value, digest, version, now, 8 * part.size, labels);
        Bytes.putWords(value, HEAD, part.words, 0, part.size);
        part.writeWaiting(value, end, labels);
        return value;
    }

    /** Returns the value of a mailbox: head and words. */
    static byte[] ofMail(long digest, long version, long now, long[] words) {
        byte[] value = new byte[HEAD + 8 * words.length];
        writeHead(value, digest, version, now, 8 * words.length, 0);
        Bytes.putWords(value, HEAD, words, 0, words.length);
        return value;
    }

    private static void writeHead(
            byte[] value, long digest, long version, long now, int size, int labels) {
        Bytes.putLong(value, 0, digest);
        Bytes.putLong(value, 8, version);
        Bytes.putLong(value, 16, now);
        Bytes.putInt(value, 24, size);
        Bytes.putInt(value, 28, labels);
    }

    static TypeInformation<Upsert> type() {
        return new OwnType<>(Upsert.class, Serializer.INSTANCE);
    }

    /** Writes key and value, each as a length and bytes. */
    public static final class Serializer extends OwnSerializer<Upsert> {
        private static final long serialVersionUID = 1L;
        static final Serializer INSTANCE = new Serializer();

        @Override
        public boolean isImmutableType() {
            return true;
        }

        @Override
        public Upsert createInstance() {
            return new Upsert(Event.NOTHING, Event.NOTHING);
        }

        @Override
        public Upsert copy(Upsert from) {
            return from;
        }

        @Override
        public void serialize(Upsert upsert, DataOutputView out) throws IOException {
            out.writeInt(upsert.key.length);
            out.write(upsert.key);
            out.writeInt(upsert.value.length);
            out.write(upsert.value);
        }

        @Override
        public Upsert deserialize(DataInputView in) throws IOException {
            byte[] key = new byte[in.readInt()];
            in.readFully(key);
            byte[] value = new byte[in.readInt()];
            in.readFully(value);
            return new Upsert(key, value);
        }

        @Override
        public TypeSerializerSnapshot<Upsert> snapshotConfiguration() {
            return new Snapshot();
        }
    }

    /** Names the serializer in savepoints. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<Upsert> {
        public Snapshot() {
            super(() -> Serializer.INSTANCE);
        }
    }
}
