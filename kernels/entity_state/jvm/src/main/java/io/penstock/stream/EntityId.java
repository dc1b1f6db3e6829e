package io.penstock.stream;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/**
 * The id of an entity as a key of Flink's state: its UTF-8 bytes, up to 16 of them inside this very
 * object. Text would be two objects more to fetch whenever a key is looked up.
 */
public final class EntityId {
    private static final int INSIDE = 16;

    private final int length;
    private final int hash;
    private final long low;
    private final long high;
    /** All bytes of a long id, else null. */
    private final byte[] all;

    /** Takes a copy of some bytes. */
    EntityId(byte[] bytes, int from, int length) {
        this.length = length;
        if (length <= INSIDE) {
            low = pack(bytes, from, Math.min(length, 8));
            high = length > 8 ? pack(bytes, from + 8, length - 8) : 0;
            all = null;
            hash = (int) EntityKeys.mix((low * 31 + high) * 31 + length);
        } else {
            low = 0;
            high = 0;
            all = Arrays.copyOfRange(bytes, from, from + length);
            hash = (int) EntityKeys.mix(Arrays.hashCode(all));
        }
    }

    private static long pack(byte[] bytes, int from, int count) {
        if (count == 8) {
            return Bytes.getLong(bytes, from);
        }
        long packed = 0;
        for (int i = 0; i < count; i++) {
            packed |= (bytes[from + i] & 0xffL) << 8 * i;
        }
        return packed;
    }

    byte[] bytes() {
        if (all != null) {
            return all;
        }
        byte[] bytes = new byte[length];
        for (int i = 0; i < length; i++) {
            bytes[i] = (byte) (i < 8 ? low >>> 8 * i : high >>> 8 * (i - 8));
        }
        return bytes;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof EntityId that
                && low == that.low
                && high == that.high
                && length == that.length
                && (all == null || Arrays.equals(all, that.all));
    }

    /** The same on every machine: it decides which subtask owns the key. */
    @Override
    public int hashCode() {
        return hash;
    }

    @Override
    public String toString() {
        return new String(bytes(), StandardCharsets.UTF_8);
    }

    static TypeInformation<EntityId> type() {
        return new OwnType<>(EntityId.class, Serializer.INSTANCE);
    }

    /** Writes the length and the bytes. */
    public static final class Serializer extends OwnSerializer<EntityId> {
        private static final long serialVersionUID = 1L;
        static final Serializer INSTANCE = new Serializer();

        @Override
        public boolean isImmutableType() {
            return true;
        }

        @Override
        public EntityId createInstance() {
            return new EntityId(Event.NOTHING, 0, 0);
        }

        @Override
        public EntityId copy(EntityId from) {
            return from;
        }

        @Override
        public void serialize(EntityId id, DataOutputView out) throws IOException {
            out.writeShort(id.length);
            out.write(id.bytes());
        }

        @Override
        public EntityId deserialize(DataInputView in) throws IOException {
            byte[] bytes = new byte[in.readUnsignedShort()];
            in.readFully(bytes);
            return new EntityId(bytes, 0, bytes.length);
        }

        @Override
        public TypeSerializerSnapshot<EntityId> snapshotConfiguration() {
            return new Snapshot();
        }
    }

    /** Names the serializer in savepoints. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<EntityId> {
        public Snapshot() {
            super(() -> Serializer.INSTANCE);
        }
    }
}
