package io.penstock.stream;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Comparator;
import java.util.List;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

/**
 * Layout of the state block of one kind of entity, as numbers that come from the Python side ({@code
 * kernels/entity_state/plan_json.py}); nothing is computed here. Offsets count 8-byte words within
 * a section.
 */
final class StateLayout implements Serializable {
    private static final long serialVersionUID = 1L;

    /** One ring of tiles and the windows that look at it, shortest first. */
    static final class Ring implements Serializable {
        private static final long serialVersionUID = 1L;

        final long tile;
        final int size;
        final int offset;
        /** Place of each window among all windows, so {@code 7 * place} is its first feature. */
        final int[] windows;
        /** Length of each window in tiles. */
        final long[] lengths;

        /** Where the sums of the windows lie behind the words of a part: a mark, 5 per window. */
        final int sums;

        Ring(long tile, int size, int offset, List<long[]> windows, int sums) {
            this.sums = sums;
            this.tile = tile;
            this.size = size;
            this.offset = offset;
            this.windows = windows.stream().mapToInt(w -> (int) w[0]).toArray();
            this.lengths = windows.stream().mapToLong(w -> w[1]).toArray();
        }
    }

    /** Bytes of a block that one operator owns. */
    static final class Part implements Serializable {
        private static final long serialVersionUID = 1L;

        final int number;
        final int role;
        final boolean mail;
        /** A part that has seen nothing. */
        final long[] empty;

        Part(int number, int role, boolean mail, long[] empty) {
            this.number = number;
            this.role = role;
            this.mail = mail;
            this.empty = empty;
        }
    }

    final int roles;
    final int features;
    final long digest;
    final int recent;
    final int recentSize;
    final Ring[] rings;
    final long labelTile;
    final int labelSize;
    final int label;
    final long delay;
    /** Windows by length, shortest first: place and milliseconds. */
    final int[] byLength;
    final long[] lengths;
    /** Whether all windows are whole numbers of label tiles. */
    final boolean wholeLabelTiles;
    /** Where the sums of the label windows lie: a mark, 2 per window; and the size of all sums. */
    final int labelSums;

    final int sums;
    final int mailSize;
    final int mailWords;
    final int mailWidth;
    final Part[] parts;

    StateLayout(JsonNode plan) {
        roles = plan.get("roles").asInt();
        features = plan.get("features").asInt();
        digest = Long.parseUnsignedLong(plan.get("digest").asText());
        recent = plan.get("recent").asInt();
        recentSize = plan.get("recent_size").asInt();
        labelTile = plan.get("label_tile").asLong();
        labelSize = plan.get("label_size").asInt();
        label = plan.get("label").asInt();
        delay = plan.get("delay").asLong();
        mailSize = plan.get("mail_size").asInt();
        mailWords = plan.get("mail_words").asInt();
        mailWidth = plan.get("mail_width").asInt();
        JsonNode windows = plan.get("windows");
        rings = new Ring[plan.get("rings").size()];
        int sumsAt = 0;
        for (int r = 0; r < rings.length; r++) {
            JsonNode ring = plan.get("rings").get(r);
            rings[r] =
                    new Ring(
                            ring.get(0).asLong(),
                            ring.get(1).asInt(),
                            ring.get(2).asInt(),
                            windowsOf(windows, r, 2),
                            sumsAt);
            sumsAt += 1 + 5 * rings[r].windows.length;
        }
        labelSums = sumsAt;
        sums = sumsAt + 1 + 2 * windows.size();
        List<long[]> all = windowsOf(windows, -1, 1);
        byLength = all.stream().mapToInt(w -> (int) w[0]).toArray();
        lengths = all.stream().mapToLong(w -> w[1]).toArray();
        wholeLabelTiles = Arrays.stream(lengths).allMatch(length -> length % labelTile == 0);
        byte[] empty = Base64.getDecoder().decode(plan.get("empty").asText());
        parts = new Part[plan.get("parts").size()];
        for (int p = 0; p < parts.length; p++) {
            JsonNode part = plan.get("parts").get(p);
            long[] words = new long[part.get("size").asInt() / 8];
            Bytes.getWords(empty, part.get("offset").asInt(), words, 0, words.length);
            parts[p] =
                    new Part(
                            part.get("number").asInt(),
                            part.get("role").asInt(),
                            part.get("mail").asBoolean(),
                            words);
        }
    }

    Part tiles(int role) {
        return parts[2 * role];
    }

    Part mailbox(int role) {
        return parts[2 * role + 1];
    }

    /** Returns (place, field) of the windows on one ring, or of all, by ascending field. */
    private static List<long[]> windowsOf(JsonNode windows, int ring, int field) {
        List<long[]> found = new ArrayList<>();
        for (int w = 0; w < windows.size(); w++) {
            if (ring < 0 || windows.get(w).get(0).asInt() == ring) {
                found.add(new long[] {w, windows.get(w).get(field).asLong()});
            }
        }
        found.sort(Comparator.comparingLong(w -> w[1]));
        return found;
    }
}
