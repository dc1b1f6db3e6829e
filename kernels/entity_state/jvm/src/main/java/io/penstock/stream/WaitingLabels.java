package io.penstock.stream;

import java.util.Arrays;

/**
 * Labels of one entity and role that are not due yet, sorted by (label time, time, event id), and a
 * ring of the ids that came last. Most labels come in order, so adding is appending.
 */
final class WaitingLabels {
    /** Words of one label: label time, time, event id, label. */
    static final int WIDTH = 4;

    static final int RING = 64;
    private static final long[] NOTHING = new long[0];

    /** Labels from {@code first} to {@code end} (both counted in labels). */
    private long[] rows = NOTHING;
    private int first;
    private int end;
    /** Ids that came last; as long as there are few, the array is short. */
    private long[] recent = NOTHING;
    private int recentCount;
    private int recentNext;

    int size() {
        return end - first;
    }

    boolean isDue(long time, long id) {
        if (first == end) {
            return false;
        }
        final int at = WIDTH * first;
        return rows[at] <= time
                && (rows[at + 1] < time || (rows[at + 1] == time && rows[at + 2] < id));
    }

    long firstTime() {
        return rows[WIDTH * first + 1];
    }

    long firstLabel() {
        return rows[WIDTH * first + 3];
    }

    void removeFirst() {
        first++;
        if (first == end) {
            first = 0;
            end = 0;
            if (rows.length > 16 * WIDTH) {
                rows = NOTHING;
            }
        }
    }

    /** Adds a label in its place; returns false, doing nothing, if its id is remembered. */
    boolean add(long labelTime, long time, long id, long label) {
        for (int k = 0; k < recentCount; k++) {
            if (recent[k] == id) {
                return false;
            }
        }
        remember(id);
        makeRoom();
        int place = end;
        while (place > first && isBefore(labelTime, time, id, WIDTH * (place - 1))) {
            place--;
        }
        final int at = WIDTH * place;
        System.arraycopy(rows, at, rows, at + WIDTH, WIDTH * (end - place));
        rows[at] = labelTime;
        rows[at + 1] = time;
        rows[at + 2] = id;
        rows[at + 3] = label;
        end++;
        return true;
    }

    private boolean isBefore(long labelTime, long time, long id, int at) {
        if (labelTime != rows[at]) {
            return labelTime < rows[at];
        }
        return time != rows[at + 1] ? time < rows[at + 1] : id < rows[at + 2];
    }

    private void remember(long id) {
        if (recentCount < RING) {
            if (recentCount == recent.length) {
                recent = Arrays.copyOf(recent, Math.min(RING, Math.max(4, 2 * recentCount)));
            }
            recent[recentCount++] = id;
            recentNext = recentCount % RING;
        } else {
            recent[recentNext] = id;
            recentNext = (recentNext + 1) % RING;
        }
    }

    private void makeRoom() {
        if (WIDTH * end < rows.length) {
            return;
        }
        if (first > (end >> 1)) { // at least half is free at the front
            System.arraycopy(rows, WIDTH * first, rows, 0, WIDTH * (end - first));
        } else {
            long[] larger = new long[Math.max(4 * WIDTH, 2 * rows.length)];
            System.arraycopy(rows, WIDTH * first, larger, 0, WIDTH * (end - first));
            rows = larger;
        }
        end -= first;
        first = 0;
    }

    WaitingLabels copy() {
        return fromWords(toWords());
    }

    /** Returns everything as words: counts, then the labels, then the remembered ids. */
    long[] toWords() {
        final int labels = WIDTH * size();
        long[] words = new long[3 + labels + recentCount];
        words[0] = size();
        words[1] = recentCount;
        words[2] = recentNext;
        System.arraycopy(rows, WIDTH * first, words, 3, labels);
        System.arraycopy(recent, 0, words, 3 + labels, recentCount);
        return words;
    }

    static WaitingLabels fromWords(long[] words) {
        WaitingLabels made = new WaitingLabels();
        final int labels = WIDTH * (int) words[0];
        made.end = (int) words[0];
        made.recentCount = (int) words[1];
        made.recentNext = (int) words[2];
        made.rows = labels == 0 ? NOTHING : Arrays.copyOfRange(words, 3, 3 + labels);
        made.recent = Arrays.copyOfRange(words, 3 + labels, 3 + labels + made.recentCount);
        return made;
    }

    /** Writes the first {@code count} labels, {@code 8 * WIDTH} bytes each. */
    void write(byte[] bytes, int at, int count) {
        Bytes.putWords(bytes, at, rows, WIDTH * first, WIDTH * count);
    }
}
