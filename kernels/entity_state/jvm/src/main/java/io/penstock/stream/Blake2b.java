package io.penstock.stream;

/** BLAKE2b (RFC 7693) with a digest of 8 bytes and no key: the key of an event id in text. */
final class Blake2b {
    private static final int BLOCK = 128;
    private static final long[] IV = {
        0x6a09e667f3bcc908L, 0xbb67ae8584caa73bL, 0x3c6ef372fe94f82bL, 0xa54ff53a5f1d36f1L,
        0x510e527fade682d1L, 0x9b05688c2b3e6c1fL, 0x1f83d9abfb41bd6bL, 0x5be0cd19137e2179L,
    };
    private static final byte[][] SIGMA = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
        {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
        {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
        {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
        {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
        {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
        {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
        {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
        {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
        {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    };

    private final long[] state = new long[8];
    private final long[] work = new long[16];
    private final byte[] block = new byte[BLOCK];

    /** Returns the 8 bytes of the digest as one big-endian number. */
    long hash(byte[] message, int from, int length) {
        System.arraycopy(IV, 0, state, 0, 8);
        state[0] ^= 0x01010000L ^ 8L;
        int at = from;
        int left = length;
        long done = 0;
        while (left > BLOCK) {
            done += BLOCK;
            compress(message, at, done, false);
            at += BLOCK;
            left -= BLOCK;
        }
        java.util.Arrays.fill(block, (byte) 0);
        System.arraycopy(message, at, block, 0, left);
        compress(block, 0, done + left, true);
        return Long.reverseBytes(state[0]);
    }

    private void compress(byte[] message, int at, long count, boolean last) {
        final long[] v = work;
        System.arraycopy(state, 0, v, 0, 8);
        System.arraycopy(IV, 0, v, 8, 8);
        v[12] ^= count;
        if (last) {
            v[14] = ~v[14];
        }
        for (int round = 0; round < 12; round++) {
            final byte[] s = SIGMA[round % 10];
            mix(v, 0, 4, 8, 12, word(message, at, s[0]), word(message, at, s[1]));
            mix(v, 1, 5, 9, 13, word(message, at, s[2]), word(message, at, s[3]));
            mix(v, 2, 6, 10, 14, word(message, at, s[4]), word(message, at, s[5]));
            mix(v, 3, 7, 11, 15, word(message, at, s[6]), word(message, at, s[7]));
            mix(v, 0, 5, 10, 15, word(message, at, s[8]), word(message, at, s[9]));
            mix(v, 1, 6, 11, 12, word(message, at, s[10]), word(message, at, s[11]));
            mix(v, 2, 7, 8, 13, word(message, at, s[12]), word(message, at, s[13]));
            mix(v, 3, 4, 9, 14, word(message, at, s[14]), word(message, at, s[15]));
        }
        for (int i = 0; i < 8; i++) {
            state[i] ^= v[i] ^ v[i + 8];
        }
    }

    private static long word(byte[] message, int at, int number) {
        return Bytes.getLong(message, at + 8 * number);
    }

    private static void mix(long[] v, int a, int b, int c, int d, long x, long y) {
        v[a] += v[b] + x;
        v[d] = Long.rotateRight(v[d] ^ v[a], 32);
        v[c] += v[d];
        v[b] = Long.rotateRight(v[b] ^ v[c], 24);
        v[a] += v[b] + y;
        v[d] = Long.rotateRight(v[d] ^ v[a], 16);
        v[c] += v[d];
        v[b] = Long.rotateRight(v[b] ^ v[c], 63);
    }
}
