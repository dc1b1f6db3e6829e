package io.penstock.stream;

import java.math.BigDecimal;
import java.math.RoundingMode;

/** Reads an amount as minor units, as {@code parse_amounts} of the batch checks does. */
final class AmountRule {
    /** Largest amount in minor units: sums over thousands of them still fit. */
    private static final double MAX_AMOUNT = 1e15;

    private final boolean major;
    private final int decimals;
    private final long scale;
    private final NumberRule number = new NumberRule();

    /** The amount, when {@link #read} found no fault. */
    long minor;

    AmountRule(boolean major, int decimals) {
        this.major = major;
        this.decimals = decimals;
        long power = 1;
        for (int i = 0; major && i < decimals; i++) {
            power *= 10;
        }
        this.scale = power;
    }

    /** Returns the name of the fault ("missing", ...), null for a good amount. */
    String read(Value value) {
        final int found = number.read(value);
        if (found != NumberRule.GOOD) {
            return found == NumberRule.MISSING ? "missing" : "unparsable";
        }
        final double size = Math.abs(number.asDouble());
        if (Double.isInfinite(size)) {
            return "infinite";
        }
        if (size > MAX_AMOUNT / scale) {
            return "overflow";
        }
        if (number.isInteger) {
            minor = number.integer * scale;
            return minor < 0 ? "negative" : null;
        }
        final double real = number.real;
        final double scaled = real * scale;
        minor = (long) Math.rint(scaled);
        if (major && isNearTie(scaled)) {
            minor = exact(value, real);
        }
        if (minor < 0 || real < 0) {
            return "negative";
        }
        return !major && real != minor ? "fractional" : null;
    }

    /** Tells whether the product lies too near a tie to be trusted. */
    private static boolean isNearTie(double scaled) {
        final double slack = Math.abs(scaled) * 0x1p-50;
        return Math.abs(Math.abs(scaled - Math.floor(scaled)) - 0.5) <= slack;
    }

    /** Rounds the decimal number a person sees, half to even. */
    private long exact(Value value, double real) {
        final BigDecimal seen =
                value.type == Value.TEXT
                        ? new BigDecimal(Value.stripped(value.text))
                        : Identifiers.shortest(real);
        return seen.movePointRight(decimals).setScale(0, RoundingMode.HALF_EVEN).longValueExact();
    }
}
