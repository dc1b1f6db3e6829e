package io.penstock.stream;

import java.io.IOException;
import java.math.BigInteger;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonToken;

/** Reads the wanted members of one JSON object into values; others are skipped. */
final class JsonRow {
    private final JsonFactory factory =
            new JsonFactory().configure(JsonParser.Feature.AUTO_CLOSE_SOURCE, false);
    private final Map<String, Integer> places = new HashMap<>();
    private final Value[] values;

    JsonRow(String... names) {
        values = new Value[names.length];
        for (int i = 0; i < names.length; i++) {
            values[i] = new Value();
            places.put(names[i], i);
        }
    }

    Value value(int place) {
        return values[place];
    }

    /** Returns whether the bytes are one JSON object in UTF-8 and nothing more. */
    boolean read(byte[] bytes, int from, int length) {
        for (Value value : values) {
            value.clear();
        }
        try (JsonParser parser = factory.createParser(bytes, from, length)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) {
                return false;
            }
            for (String name = parser.nextFieldName();
                    name != null;
                    name = parser.nextFieldName()) {
                final Integer place = places.get(name);
                parser.nextToken();
                if (place == null) {
                    parser.skipChildren();
                } else if (!fill(values[place], parser)) {
                    return false;
                }
            }
            return parser.currentToken() == JsonToken.END_OBJECT && parser.nextToken() == null;
        } catch (IOException | RuntimeException e) {
            return false; // whatever is wrong with the bytes, the row is set aside
        }
    }

    /** Takes the parser's value; returns false for text that is no Unicode. */
    private static boolean fill(Value value, JsonParser parser) throws IOException {
        switch (parser.currentToken()) {
            case VALUE_NULL:
                value.clear();
                return true;
            case VALUE_STRING:
                value.set(parser.getText());
                return isUnicode(value.text);
            case VALUE_NUMBER_INT:
                final JsonParser.NumberType type = parser.getNumberType();
                if (type == JsonParser.NumberType.BIG_INTEGER) {
                    final BigInteger large = parser.getBigIntegerValue();
                    value.setUnusable(large.toString());
                } else {
                    value.set(parser.getLongValue());
                }
                return true;
            case VALUE_NUMBER_FLOAT:
                value.set(parser.getDoubleValue());
                return true;
            case VALUE_TRUE:
                value.set(true);
                return true;
            case VALUE_FALSE:
                value.set(false);
                return true;
            default:
                value.setUnusable(parser.currentToken() == JsonToken.START_OBJECT ? "{}" : "[]");
                parser.skipChildren();
                return true;
        }
    }

    /** Half a surrogate pair can be written in JSON, and in no other place. */
    private static boolean isUnicode(String text) {
        for (int i = 0; i < text.length(); i++) {
            if (Character.isSurrogate(text.charAt(i))) {
                if (!Character.isHighSurrogate(text.charAt(i))
                        || i + 1 == text.length()
                        || !Character.isLowSurrogate(text.charAt(i + 1))) {
                    return false;
                }
                i++;
            }
        }
        return true;
    }
}
