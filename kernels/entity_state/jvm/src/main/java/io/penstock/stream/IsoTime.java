package io.penstock.stream;

import java.time.DateTimeException;
import java.time.LocalDate;
import java.time.temporal.IsoFields;

/**
 * ISO 8601 as Python 3.11's {@code datetime.fromisoformat} reads it: extended or basic dates, weeks,
 * any one character between date and time, fractions cut after microseconds, an offset or Z.
 */
final class IsoTime {
    static final long INVALID = Long.MIN_VALUE;
    private static final long DAY = 86_400_000_000L;

    private final String text;
    private int at;

    private IsoTime(String text) {
        this.text = text;
    }

    /** Returns epoch milliseconds, {@link #INVALID} for anything else. */
    static long parse(String text) {
        try {
            return new IsoTime(text).micros();
        } catch (DateTimeException | StringIndexOutOfBoundsException e) {
            return INVALID;
        }
    }

    private long micros() {
        if (text.codePointCount(0, text.length()) < 7) {
            throw bad();
        }
        final LocalDate date = date();
        long micros = date.toEpochDay() * DAY;
        if (at < text.length()) {
            at += Character.charCount(text.codePointAt(at)); // the separator may be anything
            micros += time();
        }
        return Math.floorDiv(micros, 1000L);
    }

    private LocalDate date() {
        final int year = digits(4);
        if (year < 1) {
            throw bad();
        }
        final boolean dashed = text.charAt(at) == '-';
        if (dashed) {
            at++;
        }
        if (text.charAt(at) == 'W') {
            at++;
            return week(year, dashed);
        }
        final int month = digits(2);
        if (dashed) {
            expect('-');
        }
        return LocalDate.of(year, month, digits(2));
    }

    private LocalDate week(int year, boolean dashed) {
        final int week = digits(2);
        int day = 1;
        // A day may follow; what else follows separates the time.
        if (dashed) {
            if (at < text.length() && text.charAt(at) == '-' && isDigit(at + 1)) {
                at++;
                day = digits(1);
            }
        } else if (isDigit(at)) {
            day = digits(1);
        }
        final LocalDate some = LocalDate.of(year, 6, 30);
        if (week < 1 || week > IsoFields.WEEK_OF_WEEK_BASED_YEAR.rangeRefinedBy(some).getMaximum()) {
            throw bad();
        }
        if (day < 1 || day > 7) {
            throw bad();
        }
        return some.with(IsoFields.WEEK_OF_WEEK_BASED_YEAR, week).plusDays(0).with(
                java.time.temporal.ChronoField.DAY_OF_WEEK, day);
    }

    private long time() {
        int zone = at;
        while (zone < text.length() && "+-Z".indexOf(text.charAt(zone)) < 0) {
            zone++;
        }
        final long micros = clock(zone);
        if (micros >= DAY) {
            throw bad();
        }
        if (zone == text.length()) {
            return micros;
        }
        at = zone + 1;
        if (text.charAt(zone) == 'Z') {
            if (at != text.length()) {
                throw bad();
            }
            return micros;
        }
        final long offset = clock(text.length());
        if (offset >= DAY) {
            throw bad();
        }
        return text.charAt(zone) == '+' ? micros - offset : micros + offset;
    }

    /** Reads hours, then minutes, seconds and a fraction as far as they go, up to {@code end}. */
    private long clock(int end) {
        final int[] parts = new int[3];
        boolean colons = false;
        for (int part = 0; part < 3; part++) {
            if (at + 2 > end) {
                throw bad();
            }
            parts[part] = digits(2);
            if (at == end) {
                return sum(parts, 0);
            }
            if (part == 0) {
                colons = text.charAt(at) == ':';
            }
            if (part < 2) {
                if (colons) {
                    expect(':');
                }
            }
        }
        if (text.charAt(at) != '.' && text.charAt(at) != ',') {
            throw bad();
        }
        at++;
        final int count = end - at;
        if (count < 1) {
            throw bad();
        }
        int fraction = digits(Math.min(count, 6));
        for (int i = count; i < 6; i++) {
            fraction *= 10;
        }
        while (at < end) {
            digits(1);
        }
        return sum(parts, fraction);
    }

    private long sum(int[] parts, int fraction) {
        if (parts[0] > 23 || parts[1] > 59 || parts[2] > 59) {
            throw bad();
        }
        return ((parts[0] * 60L + parts[1]) * 60 + parts[2]) * 1_000_000 + fraction;
    }

    private boolean isDigit(int place) {
        return place < text.length() && text.charAt(place) >= '0' && text.charAt(place) <= '9';
    }

    private int digits(int count) {
        int value = 0;
        for (int i = 0; i < count; i++, at++) {
            if (!isDigit(at)) {
                throw bad();
            }
            value = 10 * value + text.charAt(at) - '0';
        }
        return value;
    }

    private void expect(char wanted) {
        if (text.charAt(at) != wanted) {
            throw bad();
        }
        at++;
    }

    private static DateTimeException bad() {
        return new DateTimeException("no ISO 8601 time");
    }
}
