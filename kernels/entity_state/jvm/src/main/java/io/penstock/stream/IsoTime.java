package io.penstock.stream;

import java.nio.charset.StandardCharsets;
import java.time.DateTimeException;
import java.time.LocalDate;

/**
 * ISO 8601 exactly as Python 3.11's {@code datetime.fromisoformat} reads it, which the batch checks
 * use: extended or basic dates, weeks, any one character between date and time, fractions cut after
 * microseconds, an offset or Z, and a few forms that no standard knows.
 */
final class IsoTime {
    static final long INVALID = Long.MIN_VALUE;
    private static final long SECOND = 1_000_000L;
    private static final long DAY = 86_400 * SECOND;
    private static final int[] SCALE = {0, 100_000, 10_000, 1_000, 100, 10, 1};

    private final byte[] text;
    private int at;

    // Of the clock read last.
    private int hour;
    private int minute;
    private int second;
    private int micros;

    private IsoTime(byte[] text) {
        this.text = text;
    }

    /** Returns epoch milliseconds, {@link #INVALID} for anything else. */
    static long parse(String text) {
        try {
            final byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
            return Math.floorDiv(new IsoTime(bytes).micros(), 1000L);
        } catch (DateTimeException e) {
            return INVALID;
        }
    }

    private long micros() {
        final int length = text.length;
        if (length < 7) {
            throw bad();
        }
        final int separator = separator();
        final long date = date(separator) * DAY;
        if (length - separator <= 1) {
            return date; // a separator alone is no error
        }
        final int lead = text[separator] & 0xff;
        at = separator + (lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2);
        return date + time();
    }

    /** Place behind the date: its first characters tell its form. */
    private int separator() {
        final int length = text.length;
        if (length == 7) {
            return 7;
        }
        if (text[4] == '-') {
            if (text[5] != 'W' || (length > 8 && text[8] == '-' && !isDigit(10))) {
                return 10;
            }
            return 8;
        }
        if (text[4] != 'W') {
            return 8;
        }
        int digits = 7;
        while (isDigit(digits)) {
            digits++;
        }
        return digits < 9 ? digits : digits % 2 == 0 ? 7 : 8;
    }

    private long date(int end) {
        if (end > text.length) {
            throw bad();
        }
        at = 0;
        final int year = digits(4);
        final boolean dashed = byteAt(at) == '-';
        if (dashed) {
            at++;
        }
        if (byteAt(at) == 'W') {
            at++;
            return week(year, dashed, end);
        }
        final int month = digits(2);
        if (dashed) {
            expectDash();
        }
        final int day = digits(2);
        if (at != end || year < 1) {
            throw bad();
        }
        return LocalDate.of(year, month, day).toEpochDay();
    }

    private long week(int year, boolean dashed, int end) {
        final int week = digits(2);
        int day = 1;
        if (at < end) {
            if (dashed) {
                expectDash();
            }
            day = digits(1);
        }
        final LocalDate first = LocalDate.of(Math.max(year, 1), 1, 1);
        final int weekday = first.getDayOfWeek().getValue();
        final boolean isLong = weekday == 4 || (weekday == 3 && first.isLeapYear());
        if (year < 1 || week < 1 || week > (isLong ? 53 : 52) || day < 1 || day > 7) {
            throw bad();
        }
        // The first week holds the first Thursday.
        final long monday = first.toEpochDay() - (weekday - 1) + (weekday > 4 ? 7 : 0);
        return monday + 7L * (week - 1) + day - 1;
    }

    private long time() {
        final int end = text.length;
        int zone = at;
        do {
            final int c = byteAt(zone);
            if (c == '+' || c == '-' || c == 'Z') {
                break;
            }
        } while (++zone < end);
        final boolean rest = clock(Math.max(zone, at));
        if (zone >= end && rest) {
            throw bad();
        }
        if (hour > 23 || minute > 59 || second > 59) {
            throw bad();
        }
        final long clock = seconds() * SECOND + micros;
        if (zone >= end) {
            return clock;
        }
        if (byteAt(zone) == 'Z') {
            if (byteAt(zone + 1) != 0) {
                throw bad();
            }
            return clock;
        }
        at = zone + 1;
        if (clock(end)) {
            throw bad();
        }
        final long offset = seconds() == 0 ? 0 : seconds() * SECOND + micros;
        if (offset >= DAY) {
            throw bad();
        }
        return byteAt(zone) == '-' ? clock + offset : clock - offset;
    }

    private long seconds() {
        return hour * 3600L + minute * 60L + second;
    }

    /** Reads hours, minutes, seconds and fraction up to {@code end}; returns whether more follows. */
    private boolean clock(int end) {
        final int[] parts = new int[3];
        boolean colons = false;
        micros = 0;
        boolean more = true;
        for (int i = 0; i < 3 && more; i++) {
            parts[i] = digits(2);
            final int c = byteAt(at++);
            if (i == 0) {
                colons = c == ':';
            }
            set(parts);
            if (at >= end) {
                return c != 0;
            }
            if (c == '.' || c == ',') {
                more = false;
            } else if (!colons) {
                at--;
            } else if (c != ':') {
                throw bad();
            }
        }
        final int count = Math.min(end - at, 6);
        micros = digits(count) * SCALE[count];
        while (isDigit(at)) {
            at++;
        }
        return byteAt(at) != 0;
    }

    private void set(int[] parts) {
        hour = parts[0];
        minute = parts[1];
        second = parts[2];
    }

    private int byteAt(int place) {
        return place < text.length ? text[place] : 0;
    }

    private boolean isDigit(int place) {
        final int c = byteAt(place);
        return c >= '0' && c <= '9';
    }

    private int digits(int count) {
        int value = 0;
        for (int i = 0; i < count; i++, at++) {
            if (!isDigit(at)) {
                throw bad();
            }
            value = 10 * value + text[at] - '0';
        }
        return value;
    }

    private void expectDash() {
        if (byteAt(at++) != '-') {
            throw bad();
        }
    }

    private static DateTimeException bad() {
        return new DateTimeException("no ISO 8601 time");
    }
}
