package io.penstock.stream;

import java.math.BigDecimal;
import java.math.MathContext;
import java.math.RoundingMode;
import java.nio.charset.StandardCharsets;

/** Names of entities and events, as {@code tasks/fraud/ingest/identifiers.py} has them. */
final class Identifiers {
    /** Beyond this a float no longer tells neighbouring integers apart. */
    static final double EXACT = 9007199254740992.0;

    static final int MAX_BYTES = 256;

    private final Blake2b blake2b = new Blake2b();

    /** Returns the canonical text of an id, null when it is missing. */
    static String entityId(Value value) {
        switch (value.type) {
            case Value.TEXT:
                return whole(Value.stripped(value.text));
            case Value.INTEGER:
                return Long.toString(value.integer);
            case Value.BOOLEAN:
                return value.integer == 1 ? "True" : "False";
            case Value.REAL:
                if (!Double.isFinite(value.real)) {
                    return null;
                }
                return isWhole(value.real)
                        ? new BigDecimal(value.real).toBigInteger().toString()
                        : decimal(value.real);
            default:
                return null;
        }
    }

    /** Tells whether a value names an entity without doubt; what does not is no missing id. */
    static boolean isExact(Value value) {
        return value.type != Value.UNUSABLE
                && !(value.type == Value.REAL
                        && Double.isFinite(value.real)
                        && Math.abs(value.real) > EXACT);
    }

    /** Returns the key of an event id in text. */
    long eventKey(String text) {
        final int length = text.length();
        if (length <= 20 && spellsLong(text)) {
            try {
                return Long.parseLong(text);
            } catch (NumberFormatException e) {
                // beyond 64 bits: a text like any other
            }
        }
        final byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        return blake2b.hash(bytes, 0, bytes.length);
    }

    /** Tells whether text is an integer as a program writes it: no plus, no leading zeros. */
    private static boolean spellsLong(String text) {
        final int first = text.charAt(0) == '-' ? 1 : 0;
        if (first == text.length() || (text.charAt(first) == '0' && text.length() > 1)) {
            return false;
        }
        for (int i = first; i < text.length(); i++) {
            if (text.charAt(i) < '0' || text.charAt(i) > '9') {
                return false;
            }
        }
        return true;
    }

    /** Takes {@code .0} from whole numbers: a column with gaps is often written as floats. */
    private static String whole(String text) {
        if (text == null || text.charAt(text.length() - 1) != '0') {
            return text;
        }
        int dot = text.length() - 1;
        while (dot > 0 && text.charAt(dot) == '0') {
            dot--;
        }
        if (text.charAt(dot) != '.' || dot == 0) {
            return text;
        }
        int at = text.charAt(0) == '+' || text.charAt(0) == '-' ? 1 : 0;
        if (at == dot) {
            return text;
        }
        while (at < dot) {
            final int point = text.codePointAt(at);
            if (Character.getType(point) != Character.DECIMAL_DIGIT_NUMBER) {
                return text;
            }
            at += Character.charCount(point);
        }
        return text.substring(0, dot);
    }

    static boolean isWhole(double value) {
        return value == Math.rint(value);
    }

    /** Returns the shortest decimal number that reads back as {@code value}. */
    static BigDecimal shortest(double value) {
        final BigDecimal exact = new BigDecimal(value);
        for (int digits = 1; digits < 17; digits++) {
            BigDecimal rounded = exact.round(new MathContext(digits, RoundingMode.HALF_EVEN));
            if (rounded.doubleValue() == value) {
                return rounded;
            }
        }
        return exact.round(new MathContext(17, RoundingMode.HALF_EVEN));
    }

    /** Returns a float as Python writes it: {@code 12.5}, {@code 1e-05}, {@code 1e+16}. */
    static String decimal(double value) {
        if (Double.isNaN(value)) {
            return "nan";
        }
        if (Double.isInfinite(value)) {
            return value > 0 ? "inf" : "-inf";
        }
        if (value == 0) {
            return Double.doubleToRawLongBits(value) == 0 ? "0.0" : "-0.0";
        }
        final BigDecimal shortest = shortest(value).stripTrailingZeros();
        final String digits = shortest.unscaledValue().abs().toString();
        final int exponent = digits.length() - 1 - shortest.scale();
        final String sign = value < 0 ? "-" : "";
        if (exponent < -4 || exponent >= 16) {
            final String rest = digits.length() > 1 ? "." + digits.substring(1) : "";
            final String size = (Math.abs(exponent) < 10 ? "0" : "") + Math.abs(exponent);
            return sign + digits.charAt(0) + rest + "e" + (exponent < 0 ? "-" : "+") + size;
        }
        final String plain = shortest.abs().toPlainString();
        return sign + (plain.indexOf('.') < 0 ? plain + ".0" : plain);
    }
}
