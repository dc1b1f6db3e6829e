package io.penstock.stream;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Turns the bytes of a row into a checked transaction or label, or into a row set aside under the
 * first rule it breaks; the rules and their order are those of {@code tasks/fraud/ingest/checks.py}.
 * Nothing thrown leaves it.
 */
final class EventParser {
    private static final char SEPARATOR = '\u001f';
    private static final char MISSING = '\0';
    private static final String REPLACEMENT = "\ufffd";

    private final Schema schema;
    private final boolean labels;
    private final JsonRow row;
    private final TimeRule times;
    private final AmountRule amounts;
    private final NumberRule numbers = new NumberRule();
    private final Identifiers identifiers = new Identifiers();
    private final EventWriter writer = new EventWriter();
    private final String[] entities;
    // Places of the values within the row.
    private final int entityAt = 5;
    private final int numericAt;
    private final int categoricalAt;

    // What broke the rule.
    private String rule;
    private String column;
    private Value culprit;
    // What the checks found.
    private long time;
    private long labelTime;
    private int label;
    private long id;
    private String name;

    EventParser(Schema schema, boolean labels) {
        this.schema = schema;
        this.labels = labels;
        this.times = new TimeRule(schema.timeUnit, schema.originMs);
        this.amounts = new AmountRule(schema.major, schema.decimals);
        this.entities = new String[schema.columns.length];
        this.numericAt = entityAt + schema.columns.length;
        this.categoricalAt = numericAt + schema.numeric.length;
        List<String> names = new ArrayList<>(List.of(schema.time, schema.amount, schema.label));
        names.add(schema.labelTime);
        // A name no member can have, where no column holds the id.
        names.add(schema.eventId.isEmpty() ? "\0" : schema.eventId);
        names.addAll(List.of(schema.columns));
        names.addAll(List.of(schema.numeric));
        names.addAll(List.of(schema.categorical));
        this.row = new JsonRow(names.toArray(new String[0]));
    }

    /**
     * Reads one row.
     *
     * @param bytes holds the row at {@code from}, {@code length} bytes; null for none at all
     * @param place offset or byte position in the source
     * @param source name of the source, UTF-8
     * @param origin a number that no other row has
     */
    Event parse(byte[] bytes, int from, int length, long place, byte[] source, long origin) {
        final byte[] payload = bytes == null ? Event.NOTHING : bytes;
        rule = null;
        column = "";
        culprit = null;
        if (length > schema.maxBytes) {
            rule = "too-large";
        } else if (bytes == null || !row.read(bytes, from, length)) {
            rule = "not-json";
        } else {
            check(origin);
        }
        if (rule != null) {
            String observed = culprit == null ? null : culprit.observed();
            if (length > schema.maxBytes) {
                observed = length + " bytes";
            }
            return writer.start(Event.DEAD, 3, 0)
                    .head(0, 0, 0, 0, origin)
                    .text(rule)
                    .text(column)
                    .text(observed == null ? "\0" : observed)
                    .tail(place, source, payload, from, Math.min(length, schema.maxBytes));
        }
        write(origin);
        return writer.tail(place, source, payload, from, length);
    }

    private void check(long origin) {
        final long latest = System.currentTimeMillis() + schema.maxFutureMs;
        if (!checkTime(row.value(0), schema.time, "time", latest)) {
            return;
        }
        time = times.millis;
        if (!labels && !checkAmount() || !checkEntities()) {
            return;
        }
        if (labels && !checkLabel(latest)) {
            return;
        }
        checkId(origin);
    }

    private boolean fail(String brokenRule, String where, Value value) {
        rule = brokenRule;
        column = where;
        culprit = value;
        return false;
    }

    private boolean checkTime(Value value, String where, String what, long latest) {
        final int found = times.read(value);
        if (found == TimeRule.MISSING) {
            return fail("missing-" + what, where, value);
        }
        if (found == TimeRule.UNPARSABLE) {
            return fail("unparsable-" + what, where, value);
        }
        return times.millis >= schema.earliestMs && times.millis <= latest
                || fail("impossible-" + what, where, value);
    }

    private boolean checkAmount() {
        final Value value = row.value(1);
        final String problem = amounts.read(value);
        return problem == null || fail(problem + "-amount", schema.amount, value);
    }

    private boolean checkEntities() {
        for (int c = 0; c < entities.length; c++) {
            final Value value = row.value(entityAt + c);
            if (!Identifiers.isExact(value)) {
                return fail("invalid-entity", schema.columns[c], value);
            }
            final String text = Identifiers.entityId(value);
            if (text == null) {
                return fail("missing-entity", schema.columns[c], value);
            }
            if (!isUsable(text)) {
                return fail("invalid-entity", schema.columns[c], value);
            }
            entities[c] = text;
        }
        return true;
    }

    /** Tells whether an id can be part of keys: at most 256 bytes, none of them a separator. */
    private static boolean isUsable(String text) {
        int bytes = 0;
        for (int i = 0; i < text.length(); i++) {
            final char c = text.charAt(i);
            if (c == SEPARATOR || c == MISSING) {
                return false;
            }
            // Each half of a surrogate pair stands for two of its four bytes.
            bytes += c < 0x80 ? 1 : c < 0x800 || Character.isSurrogate(c) ? 2 : 3;
        }
        return bytes <= Identifiers.MAX_BYTES;
    }

    private boolean checkLabel(long latest) {
        final Value value = row.value(2);
        label = readLabel(value);
        if (label < 0) {
            return fail(label == -1 ? "missing-label" : "invalid-label", schema.label, value);
        }
        labelTime = time + schema.delayMs;
        final Value known = row.value(3);
        if (times.read(known) != TimeRule.MISSING) {
            if (!checkTime(known, schema.labelTime, "label-time", latest)) {
                return false;
            }
            labelTime = Math.max(labelTime, times.millis);
        }
        return true;
    }

    /** Returns 0 or 1, -1 for a missing label, -2 for anything else. */
    private int readLabel(Value value) {
        if (value.type == Value.TEXT) {
            String text = Value.stripped(value.text);
            if (text == null) {
                return -1;
            }
            switch (withoutZeros(text.toLowerCase(Locale.ROOT))) {
                case "1":
                case "true":
                    return 1;
                case "0":
                case "false":
                    return 0;
                default:
                    return -2;
            }
        }
        final int found = numbers.read(value);
        if (found != NumberRule.GOOD) {
            return found == NumberRule.MISSING ? -1 : -2;
        }
        final double number = numbers.asDouble();
        return number == 0 ? 0 : number == 1 ? 1 : -2;
    }

    /** Takes {@code .0} from the end. */
    private static String withoutZeros(String text) {
        int end = text.length();
        while (end > 0 && text.charAt(end - 1) == '0') {
            end--;
        }
        return end > 0 && end < text.length() && text.charAt(end - 1) == '.'
                ? text.substring(0, end - 1)
                : text;
    }

    private boolean checkId(long origin) {
        if (schema.eventId.isEmpty()) {
            id = origin;
            name = "";
            return true;
        }
        final Value value = row.value(4);
        if (value.type == Value.TEXT) {
            final String text = Value.stripped(value.text);
            if (text == null) {
                return fail("missing-id", schema.eventId, value);
            }
            id = identifiers.eventKey(text);
            name = value.text;
            return true;
        }
        final int found = numbers.read(value);
        if (found != NumberRule.GOOD) {
            final String what = found == NumberRule.MISSING ? "missing-id" : "invalid-id";
            return fail(what, schema.eventId, value);
        }
        if (numbers.isInteger) {
            id = numbers.integer;
        } else if (Math.abs(numbers.real) <= Identifiers.EXACT && Identifiers.isWhole(numbers.real)) {
            id = (long) numbers.real;
        } else {
            return fail("invalid-id", schema.eventId, value);
        }
        name = "";
        return true;
    }

    private void write(long origin) {
        final int numeric = labels ? 0 : schema.numeric.length;
        writer.start(labels ? Event.LABEL : Event.TRANSACTION, entities.length + 2, numeric)
                .head(id, time, labels ? 0 : amounts.minor, labels ? labelTime : 0, origin)
                .label(labels ? label : 0);
        for (int i = 0; i < numeric; i++) {
            writer.number(i, readNumeric(row.value(numericAt + i)));
        }
        writer.text(name);
        for (String entity : entities) {
            writer.text(entity);
        }
        writer.text(labels ? "" : categories());
    }

    private double readNumeric(Value value) {
        if (numbers.read(value) != NumberRule.GOOD || !Double.isFinite(numbers.asDouble())) {
            return Double.NaN;
        }
        return numbers.asDouble();
    }

    private String categories() {
        final int count = schema.categorical.length;
        if (count == 0) {
            return "";
        }
        StringBuilder joined = new StringBuilder();
        for (int i = 0; i < count; i++) {
            if (i > 0) {
                joined.append(SEPARATOR);
            }
            final String text = Identifiers.entityId(row.value(categoricalAt + i));
            joined.append(text == null ? String.valueOf(MISSING) : plain(text));
        }
        return joined.toString();
    }

    /** Replaces the two characters that separate values. */
    private static String plain(String text) {
        return text.indexOf(SEPARATOR) < 0 && text.indexOf(MISSING) < 0
                ? text
                : text.replace(String.valueOf(SEPARATOR), REPLACEMENT)
                        .replace(String.valueOf(MISSING), REPLACEMENT);
    }
}
