package io.penstock.stream;

/** Reads a value as a number, as {@code parse_numbers} of the batch checks does. */
final class NumberRule {
    static final int GOOD = 0;
    static final int MISSING = 1;
    static final int INVALID = 2;

    /** Whether {@link #integer} holds the number, else {@link #real} does. */
    boolean isInteger;

    long integer;
    double real;

    int read(Value value) {
        switch (value.type) {
            case Value.MISSING:
                return MISSING;
            case Value.INTEGER:
            case Value.BOOLEAN:
                isInteger = true;
                integer = value.integer;
                return GOOD;
            case Value.REAL:
                isInteger = false;
                real = value.real;
                return Double.isNaN(real) ? MISSING : GOOD;
            case Value.TEXT:
                return readText(Value.stripped(value.text));
            default:
                return INVALID;
        }
    }

    double asDouble() {
        return isInteger ? integer : real;
    }

    private int readText(String text) {
        isInteger = false;
        if (text == null) {
            return MISSING;
        }
        if (spellsNumber(text)) {
            real = Double.parseDouble(text);
            return GOOD;
        }
        final boolean signed = text.charAt(0) == '-' || text.charAt(0) == '+';
        final String word = signed ? text.substring(1) : text;
        if (word.equalsIgnoreCase("nan") && isAscii(word)) {
            return MISSING;
        }
        if (isAscii(word)
                && (word.equalsIgnoreCase("inf") || word.equalsIgnoreCase("infinity"))) {
            final boolean negative = text.charAt(0) == '-';
            real = negative ? Double.NEGATIVE_INFINITY : Double.POSITIVE_INFINITY;
            return GOOD;
        }
        return INVALID;
    }

    private static boolean isAscii(String text) {
        return text.chars().allMatch(c -> c < 0x80);
    }

    /** Tells whether text is a decimal number; Java itself would also take {@code 0x1p3} or 1d. */
    static boolean spellsNumber(String text) {
        final int length = text.length();
        int at = text.charAt(0) == '-' || text.charAt(0) == '+' ? 1 : 0;
        final int whole = digits(text, at);
        int count = whole - at;
        at = whole;
        if (at < length && text.charAt(at) == '.') {
            final int end = digits(text, at + 1);
            count += end - at - 1;
            at = end;
        }
        if (count == 0) {
            return false;
        }
        if (at < length && (text.charAt(at) == 'e' || text.charAt(at) == 'E')) {
            at++;
            if (at < length && (text.charAt(at) == '-' || text.charAt(at) == '+')) {
                at++;
            }
            final int end = digits(text, at);
            if (end == at) {
                return false;
            }
            at = end;
        }
        return at == length;
    }

    private static int digits(String text, int at) {
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        return at;
    }
}
