package io.penstock.stream;

import java.io.IOException;
import java.io.Serializable;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.data.StringData;

/** Model and rules in force, with which every row is stamped. */
final class Stamp implements Serializable {
    private static final long serialVersionUID = 1L;

    final String model;
    final String rules;
    final double reviewAt;
    final double blockAt;
    /** Ids by kind that are to be blocked. */
    final Map<String, Set<String>> blocked = new HashMap<>();

    // Model and rules as the table has them: encoded once, not for every row.
    private transient StringData modelText;
    private transient StringData rulesText;

    /** Returns what a control message says, null unless it is one. */
    static Stamp parse(byte[] message) {
        try {
            final JsonNode control = new ObjectMapper().readTree(message);
            final boolean usable =
                    control != null
                            && control.path("model").isTextual()
                            && control.path("rules").path("version").isTextual()
                            && control.path("rules").path("review_at").isNumber()
                            && control.path("rules").path("block_at").isNumber();
            return usable ? new Stamp(control) : null;
        } catch (IOException e) {
            return null;
        }
    }

    Stamp(JsonNode control) {
        JsonNode rule = control.path("rules");
        model = control.path("model").asText("");
        rules = rule.path("version").asText("");
        reviewAt = rule.path("review_at").asDouble(Double.NaN);
        blockAt = rule.path("block_at").asDouble(Double.NaN);
        JsonNode lists = rule.path("block");
        lists.fieldNames()
                .forEachRemaining(
                        kind -> {
                            Set<String> ids = new HashSet<>();
                            lists.get(kind).forEach(id -> ids.add(id.asText()));
                            blocked.put(kind, ids);
                        });
    }

    StringData modelText() {
        if (modelText == null) {
            modelText = StringData.fromString(model);
        }
        return modelText;
    }

    StringData rulesText() {
        if (rulesText == null) {
            rulesText = StringData.fromString(rules);
        }
        return rulesText;
    }
}
