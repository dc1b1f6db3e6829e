package io.penstock.stream;

/** Reads a time as epoch milliseconds, as {@code parse_times} of the batch checks does. */
final class TimeRule {
    static final int GOOD = 0;
    static final int MISSING = 1;
    static final int UNPARSABLE = 2;

    /** Stands for a time too far off; earlier than any allowed time. */
    private static final long NO_TIME = -(1L << 62);

    private static final double FAR = 1e15;

    private final boolean automatic;
    /** Milliseconds per tick. */
    private final double factor;

    private final long originMs;
    private final NumberRule number = new NumberRule();

    /** The time, when {@link #read} found it good. */
    long millis;

    TimeRule(String unit, long originMs) {
        this.automatic = unit.equals("auto");
        this.factor = factor(automatic ? "ms" : unit);
        this.originMs = originMs;
    }

    private static double factor(String unit) {
        switch (unit) {
            case "ns":
                return 1e-6;
            case "us":
                return 1e-3;
            case "ms":
                return 1;
            case "s":
                return 1_000;
            case "min":
                return 60_000;
            case "h":
                return 3_600_000;
            case "d":
                return 86_400_000;
            default:
                throw new IllegalArgumentException("unknown unit of time " + unit);
        }
    }

    int read(Value value) {
        if (automatic && value.type == Value.TEXT) {
            final String text = Value.stripped(value.text);
            if (text == null) {
                return MISSING;
            }
            millis = IsoTime.parse(text);
            return millis == IsoTime.INVALID ? UNPARSABLE : GOOD;
        }
        if (automatic && (value.type == Value.INTEGER || value.type == Value.REAL)) {
            return UNPARSABLE; // bare numbers, and no unit is given
        }
        final int found = number.read(value);
        if (found != NumberRule.GOOD) {
            return found == NumberRule.MISSING ? MISSING : UNPARSABLE;
        }
        millis = number.isInteger ? ofTicks(number.integer) : ofTicks(number.real);
        if (millis != NO_TIME) {
            millis += originMs;
        }
        return GOOD;
    }

    private long ofTicks(long ticks) {
        if (!(Math.abs((double) ticks) * factor <= FAR)) {
            return NO_TIME;
        }
        return factor >= 1
                ? ticks * (long) factor
                : Math.floorDiv(ticks, (long) Math.rint(1 / factor));
    }

    private long ofTicks(double ticks) {
        if (!(Math.abs(ticks) * factor <= FAR)) {
            return NO_TIME;
        }
        // Rounding to the nanosecond first keeps 1.001 s from becoming 1000 ms.
        return (long) Math.floor(Math.rint(ticks * factor * 1e6) / 1e6);
    }
}
