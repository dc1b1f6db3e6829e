package io.penstock.stream;

/** A member of a JSON object as it was written; reused from row to row. */
final class Value {
    static final int MISSING = 0;
    static final int TEXT = 1;
    static final int INTEGER = 2;
    static final int REAL = 3;
    static final int BOOLEAN = 4;
    /** An object or array, or an integer of more than 64 bits. */
    static final int UNUSABLE = 5;

    int type;
    String text;
    long integer;
    double real;

    void clear() {
        type = MISSING;
    }

    void set(String value) {
        type = TEXT;
        text = value;
    }

    void set(long value) {
        type = INTEGER;
        integer = value;
    }

    void set(double value) {
        type = REAL;
        real = value;
    }

    void set(boolean value) {
        type = BOOLEAN;
        integer = value ? 1 : 0;
    }

    void setUnusable(String value) {
        type = UNUSABLE;
        text = value;
    }

    /** Returns the value as people read it, null where it is missing. */
    String observed() {
        switch (type) {
            case MISSING:
                return null;
            case INTEGER:
                return Long.toString(integer);
            case REAL:
                return Identifiers.decimal(real);
            case BOOLEAN:
                return integer == 1 ? "True" : "False";
            default:
                return text;
        }
    }

    /** Returns text without the blanks around it, null when nothing is left. */
    static String stripped(String text) {
        int from = 0;
        int to = text.length();
        while (from < to && isBlank(text.charAt(from))) {
            from++;
        }
        while (to > from && isBlank(text.charAt(to - 1))) {
            to--;
        }
        return from == to ? null : from == 0 && to == text.length() ? text : text.substring(from, to);
    }

    private static boolean isBlank(char c) {
        return c == ' ' || c == '\t' || c == '\r' || c == '\n';
    }
}
