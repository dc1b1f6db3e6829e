package io.penstock.stream;

import java.io.IOException;
import java.io.Serializable;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Base64;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonGenerator;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.util.ByteArrayBuilder;

/** Writes the quarantine record of a row that was set aside, as one line of JSON. */
final class QuarantineRecord implements Serializable {
    private static final long serialVersionUID = 1L;

    private static final DateTimeFormatter TIME =
            DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSSSSS'+00:00'")
                    .withZone(ZoneOffset.UTC);

    /** Rules that only a stream has. */
    private static final Map<String, String> OWN =
            Map.of(
                    "not-json", "one JSON object in UTF-8",
                    "too-large", "a row within the limit of bytes",
                    "invalid-entity", "text of 1 to 256 bytes, or an exact number",
                    "missing-label", "a label: 0, 1, true or false",
                    "late", "a row not older than the watermark");

    private final Map<String, String> expected;
    private final String detectorVersion;
    private transient JsonFactory factory;

    QuarantineRecord(Settings settings) {
        this.expected = settings.expected;
        this.detectorVersion = settings.detectorVersion;
    }

    /** Returns the record of a row with a rule of its own. */
    byte[] ofDead(Event dead) {
        final String observed = dead.text(2);
        return write(dead, dead.text(0), dead.text(1), observed.equals("\0") ? null : observed);
    }

    /** Returns the record of a row older than the watermark; it was used all the same. */
    byte[] ofLate(Event event, String timeColumn) {
        return write(event, "late", timeColumn, Long.toString(event.orderTime()));
    }

    private byte[] write(Event event, String rule, String column, String observed) {
        final int from = event.payloadStart();
        final int length = event.length - from;
        final boolean warning = rule.equals("duplicate-of") || rule.equals("late");
        if (factory == null) {
            factory = new JsonFactory();
        }
        ByteArrayBuilder bytes = new ByteArrayBuilder(512 + 2 * length);
        try (JsonGenerator json = factory.createGenerator(bytes)) {
            json.writeStartObject();
            json.writeStringField("payload", base64(event.row, from, length));
            json.writeStringField("source", event.source());
            json.writeNumberField("row", event.place());
            json.writeStringField("rule", rule);
            json.writeStringField("column", column);
            json.writeStringField("observed", observed);
            json.writeStringField("expected", expected.getOrDefault(rule, OWN.getOrDefault(rule, "")));
            json.writeStringField("severity", warning ? "warning" : "error");
            json.writeStringField("detector_version", detectorVersion);
            json.writeNumberField("confidence", 1.0);
            json.writeStringField("time", TIME.format(Instant.now()));
            json.writeStringField("sha256", sha256(event.row, from, length));
            json.writeEndObject();
        } catch (IOException e) {
            throw new IllegalStateException("writing to memory failed", e);
        }
        return bytes.toByteArray();
    }

    private static String base64(byte[] bytes, int from, int length) {
        final ByteBuffer part = ByteBuffer.wrap(bytes, from, length);
        return StandardCharsets.ISO_8859_1
                .decode(Base64.getEncoder().encode(part))
                .toString();
    }

    private static String sha256(byte[] bytes, int from, int length) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            digest.update(bytes, from, length);
            StringBuilder text = new StringBuilder(64);
            for (byte b : digest.digest()) {
                text.append(Character.forDigit((b >> 4) & 0xf, 16));
                text.append(Character.forDigit(b & 0xf, 16));
            }
            return text.toString();
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }
}
