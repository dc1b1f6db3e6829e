package io.penstock.stream;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.io.NumberOutput;
import org.apache.flink.table.data.RowData;

/** Decides about a scored row and writes it as JSON, see the contract of the stream. */
final class ResultWriter {
    // Places of the columns.
    private static final int NAME = 0;
    private static final int TIME = 1;
    private static final int LATE = 2;
    private static final int MODEL = 3;
    private static final int RULES = 4;
    private static final int REVIEW_AT = 5;
    private static final int BLOCK_AT = 6;
    private static final int LISTED = 7;
    private static final int SCORE = 8;

    private static final byte[] EVENT = ascii("{\"event_id\":\"");
    private static final byte[] AT = ascii("\",\"time\":");
    private static final byte[] SCORED = ascii(",\"score\":");
    private static final byte[] DECIDED = ascii(",\"decision\":\"");
    private static final byte[] IS_LISTED = ascii("\",\"listed\":");
    private static final byte[] IS_LATE = ascii(",\"late\":");
    private static final byte[] BY_MODEL = ascii(",\"model\":\"");
    private static final byte[] WITH_RULES = ascii(",\"rules\":\"");
    private static final byte[] END = ascii("\"}");
    private static final byte[] TRUE = ascii("true");
    private static final byte[] FALSE = ascii("false");
    private static final byte[] NULL = ascii("null");
    private static final byte[] HEX = ascii("0123456789abcdef");

    private enum Decision {
        APPROVE,
        REVIEW,
        BLOCK;

        private final byte[] text = ascii(name().toLowerCase(java.util.Locale.ROOT));
    }

    private final byte[] version;
    private byte[] buffer = new byte[512];
    private int length;
    private Decision decision = Decision.REVIEW;

    ResultWriter(int featuresVersion) {
        version = ascii("\",\"features_version\":" + featuresVersion);
    }

    /** Whether the row written last needs no alert. */
    boolean isApproved() {
        return decision == Decision.APPROVE;
    }

    byte[] write(RowData row) {
        final double score = row.isNullAt(SCORE) ? Double.NaN : row.getDouble(SCORE);
        final boolean listed = row.getBoolean(LISTED);
        decision = decide(score, listed, row.getDouble(REVIEW_AT), row.getDouble(BLOCK_AT));
        length = 0;
        put(EVENT);
        putText(row.getString(NAME).toBytes());
        put(AT);
        put(ascii(Long.toString(row.getLong(TIME))));
        put(SCORED);
        put(decimal(score));
        put(DECIDED);
        put(decision.text);
        put(IS_LISTED);
        put(listed ? TRUE : FALSE);
        put(IS_LATE);
        put(row.getBoolean(LATE) ? TRUE : FALSE);
        put(BY_MODEL);
        putText(row.getString(MODEL).toBytes());
        put(version);
        put(WITH_RULES);
        putText(row.getString(RULES).toBytes());
        put(END);
        return Arrays.copyOf(buffer, length);
    }

    /** Lists come before scores; without a score a person looks at it. */
    private static Decision decide(double score, boolean listed, double reviewAt, double blockAt) {
        if (listed || score >= blockAt) {
            return Decision.BLOCK;
        }
        return Double.isNaN(score) || score >= reviewAt ? Decision.REVIEW : Decision.APPROVE;
    }

    /** The shortest decimal that is this very number; Java's own way takes ten times as long. */
    private static byte[] decimal(double score) {
        return Double.isNaN(score) ? NULL : ascii(NumberOutput.toString(score, true));
    }

    /** Puts UTF-8, escaped as JSON wants it. */
    private void putText(byte[] text) {
        room(6 * text.length);
        for (byte b : text) {
            if (b == '"' || b == '\\') {
                buffer[length++] = '\\';
                buffer[length++] = b;
            } else if (b >= 0 && b < 0x20) {
                put(ascii("\\u00"));
                buffer[length++] = HEX[b >> 4];
                buffer[length++] = HEX[b & 0xf];
            } else {
                buffer[length++] = b;
            }
        }
    }

    private void put(byte[] bytes) {
        room(bytes.length);
        System.arraycopy(bytes, 0, buffer, length, bytes.length);
        length += bytes.length;
    }

    private void room(int more) {
        if (length + more > buffer.length) {
            buffer = Arrays.copyOf(buffer, 2 * (length + more));
        }
    }

    private static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }
}
