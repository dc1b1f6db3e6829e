package io.penstock.stream;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

/** What the members of a JSON row mean: the dataset config, as plain fields. */
final class Schema implements Serializable {
    private static final long serialVersionUID = 1L;

    final String time;
    final String amount;
    final String label;
    final String labelTime;
    /** Empty: the place in the source stands in. */
    final String eventId;
    /** Entity columns, in the order in which the stream visits them. */
    final String[] columns;
    /** Kind of each column. */
    final String[] kinds;
    /** What the keys of each column's entities begin with, see {@link EntityKeys#start}. */
    final long[] keyStarts;
    /** Place of each column among the columns of its kind. */
    final int[] roles;
    final String[] numeric;
    final String[] categorical;
    final String timeUnit;
    final long originMs;
    final long earliestMs;
    final long maxFutureMs;
    final boolean major;
    final int decimals;
    final long delayMs;
    /** Most bytes of a row. */
    final int maxBytes;

    Schema(JsonNode config) {
        time = config.get("time").asText();
        amount = config.get("amount").asText();
        label = text(config, "label", "label");
        labelTime = text(config, "label_time", "label_time");
        eventId = config.path("event_id").asText("");
        JsonNode entities = config.get("entities");
        columns = new String[entities.size()];
        kinds = new String[columns.length];
        keyStarts = new long[columns.length];
        roles = new int[columns.length];
        Map<String, Integer> seen = new HashMap<>();
        for (int c = 0; c < columns.length; c++) {
            columns[c] = entities.get(c).get("column").asText();
            kinds[c] = entities.get(c).get("kind").asText();
            keyStarts[c] = EntityKeys.start(kinds[c]);
            roles[c] = seen.merge(kinds[c], 1, Integer::sum) - 1;
        }
        numeric = texts(config.path("numeric"));
        categorical = texts(config.path("categorical"));
        timeUnit = config.get("time_unit").asText();
        originMs = config.get("origin_ms").asLong();
        earliestMs = config.get("earliest_ms").asLong();
        maxFutureMs = config.get("max_future_ms").asLong();
        major = config.get("amount_unit").asText().equals("major");
        decimals = config.get("decimals").asInt();
        delayMs = config.get("delay_ms").asLong();
        maxBytes = config.path("max_bytes").asInt(64 * 1024);
    }

    private static String text(JsonNode config, String name, String otherwise) {
        final String found = config.path(name).asText("");
        return found.isEmpty() ? otherwise : found;
    }

    private static String[] texts(JsonNode list) {
        List<String> found = new ArrayList<>();
        list.forEach(item -> found.add(item.asText()));
        return found.toArray(new String[0]);
    }
}
