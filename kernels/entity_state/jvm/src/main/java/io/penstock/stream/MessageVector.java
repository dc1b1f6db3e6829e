package io.penstock.stream;

import java.io.Serializable;
import java.util.Arrays;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

/**
 * The vector of a message: a few features per entity column, derived as in {@code
 * tasks/fraud/derive.py}, as asinh of their float32 value, rounded to float32.
 */
final class MessageVector implements Serializable {
    private static final long serialVersionUID = 1L;
    private static final int WINDOW = 7 * 8;

    /** Entries per column: ratio, frauds and count of the long window, level of the short one. */
    private final int each;

    final int width;
    private final int shortAt;
    private final int longAt;
    /** Minor units of a major one. */
    private final double unit;

    MessageVector(JsonNode config) {
        each = config.get("each").asInt();
        width = config.get("width").asInt();
        shortAt = WINDOW * config.get("short").asInt();
        longAt = WINDOW * config.get("long").asInt();
        unit = config.get("unit").asDouble();
    }

    /** Writes the vector as words of two float32 each, the first one low. */
    void write(Settings settings, Event event, long[] words) {
        Arrays.fill(words, 0L);
        final double now = event.amount() / unit;
        for (int k = 0; k < width; k++) {
            final int at = settings.stateOffset(k / each);
            final float value = (float) asinh((float) feature(event.state, at, k % each, now));
            final long bits = Float.floatToRawIntBits(value) & 0xffffffffL;
            words[k >> 1] |= (k & 1) == 0 ? bits : bits << 32;
        }
    }

    private double feature(byte[] state, int at, int which, double now) {
        final int window = at + longAt;
        switch (which) {
            case 0:
                return now / Math.max(before(state, window, now), 1.0);
            case 1:
                return Bytes.getDouble(state, window + 48);
            case 2:
                return Math.max(Bytes.getDouble(state, window), 1.0);
            default:
                return before(state, at + shortAt, now)
                        / Math.max(before(state, window, now), 1.0);
        }
    }

    /** Mean amount of a window without the event at hand; the event's own when there is none. */
    private double before(byte[] state, int window, double now) {
        final double n = Math.max(Bytes.getDouble(state, window), 1.0);
        final double total = Bytes.getDouble(state, window + 8) / unit;
        return n < 2 ? now : (total - now) / Math.max(n - 1.0, 1.0);
    }

    /** Inverse hyperbolic sine, after FDLIBM. */
    static double asinh(double x) {
        final double size = Math.abs(x);
        if (size < 0x1p-28) {
            return x;
        }
        final double result;
        if (size > 0x1p28) {
            result = StrictMath.log(size) + StrictMath.log(2.0);
        } else if (size > 2.0) {
            result = StrictMath.log(2.0 * size + 1.0 / (Math.sqrt(x * x + 1.0) + size));
        } else {
            final double square = x * x;
            result = StrictMath.log1p(size + square / (1.0 + Math.sqrt(1.0 + square)));
        }
        return Math.copySign(result, x);
    }
}
