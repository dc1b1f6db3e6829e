package io.penstock.stream;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/** Numbers in byte arrays, little endian. */
final class Bytes {
    private static final VarHandle LONGS = view(long[].class);
    private static final VarHandle INTS = view(int[].class);
    private static final VarHandle DOUBLES = view(double[].class);
    private static final VarHandle FLOATS = view(float[].class);

    /** Words of a cache line, on all machines of today near enough. */
    static final int LINE_WORDS = 8;

    private Bytes() {}

    static long getLong(byte[] bytes, int at) {
        return (long) LONGS.get(bytes, at);
    }

    static void putLong(byte[] bytes, int at, long value) {
        LONGS.set(bytes, at, value);
    }

    static int getShort(byte[] bytes, int at) {
        return (bytes[at] & 0xff) | (bytes[at + 1] & 0xff) << 8;
    }

    static void putShort(byte[] bytes, int at, int value) {
        bytes[at] = (byte) value;
        bytes[at + 1] = (byte) (value >> 8);
    }

    static int getInt(byte[] bytes, int at) {
        return (int) INTS.get(bytes, at);
    }

    static void putInt(byte[] bytes, int at, int value) {
        INTS.set(bytes, at, value);
    }

    static double getDouble(byte[] bytes, int at) {
        return (double) DOUBLES.get(bytes, at);
    }

    static void putDouble(byte[] bytes, int at, double value) {
        DOUBLES.set(bytes, at, value);
    }

    static float getFloat(byte[] bytes, int at) {
        return (float) FLOATS.get(bytes, at);
    }

    static void putFloat(byte[] bytes, int at, float value) {
        FLOATS.set(bytes, at, value);
    }

    /** Writes {@code count} words from {@code from} on. */
    static void putWords(byte[] bytes, int at, long[] words, int from, int count) {
        for (int i = 0; i < count; i++) {
            putLong(bytes, at + 8 * i, words[from + i]);
        }
    }

    /** Reads {@code count} words into {@code words} from position {@code to} on. */
    static void getWords(byte[] bytes, int at, long[] words, int to, int count) {
        for (int i = 0; i < count; i++) {
            words[to + i] = getLong(bytes, at + 8 * i);
        }
    }

    private static VarHandle view(Class<?> arrays) {
        return MethodHandles.byteArrayViewVarHandle(arrays, ByteOrder.LITTLE_ENDIAN);
    }
}
