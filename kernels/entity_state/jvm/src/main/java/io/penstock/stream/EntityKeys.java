package io.penstock.stream;

import java.nio.charset.StandardCharsets;

/** 64-bit keys of entities, see {@code kernels/entity_state/keys.py}. */
final class EntityKeys {
    private static final long OFFSET = 0xcbf29ce484222325L;
    private static final long PRIME = 0x100000001b3L;

    private EntityKeys() {}

    /** FNV-1a over kind, a zero byte and id, then MurmurHash3's finaliser. */
    static long entityKey(String kind, String id) {
        final byte[] bytes = id.getBytes(StandardCharsets.UTF_8);
        return entityKey(start(kind), bytes, 0, bytes.length);
    }

    /** The same for an id in UTF-8, given the {@link #start} of its kind. */
    static long entityKey(long start, byte[] id, int from, int to) {
        long hash = start;
        for (int i = from; i < to; i++) {
            hash = (hash ^ (id[i] & 0xff)) * PRIME;
        }
        return mix(hash);
    }

    /** What the keys of a kind begin with. */
    static long start(String kind) {
        long hash = OFFSET;
        for (byte b : kind.getBytes(StandardCharsets.UTF_8)) {
            hash = (hash ^ (b & 0xff)) * PRIME;
        }
        return hash * PRIME; // the zero byte
    }

    /** The finaliser of MurmurHash3 for 64 bits. */
    static long mix(long hash) {
        hash = (hash ^ (hash >>> 33)) * 0xff51afd7ed558ccdL;
        hash = (hash ^ (hash >>> 33)) * 0xc4ceb9fe1a85ec53L;
        return hash ^ (hash >>> 33);
    }
}
