package io.penstock.stream;

import java.util.Arrays;

/**
 * Labels of one entity and role that are not due yet, sorted by (label time, time, event id), and a
 * ring of the ids that came last. Most labels come in order, so adding is appending.
 *
 * <p>They lie behind the words of the part in one and the same array: at random access to hundreds
 * of thousands of entities, every further object costs a miss of the cache.
 */
abstract class WaitingLabels extends Memory {
    /** Words of one label: label time, time, event id, label. */
    static final int WIDTH = 4;

    static final int RING = 64;
    /** Labels there is room for at first. */
    private static final int ROOM = 8;

    /** The part, the ring of ids, the labels. */
    long[] words;
    /** Words of the part. */
    final int size;

    /** Labels from {@code first} to {@code end}, counted in labels. */
    private int first;

    private int end;
    private int recentCount;
    private int recentNext;

    /** Copies the words of a part, and makes room. */
    WaitingLabels(long[] part) {
        size = part.length;
        words = Arrays.copyOf(part, size + RING + WIDTH * ROOM);
    }

    int waiting() {
        return end - first;
    }

    private int place(int label) {
        return size + RING + WIDTH * label;
    }

    final boolean isLabelDue(long time, long id) {
        if (first == end) {
            return false;
        }
        final int at = place(first);
        return words[at] <= time
                && (words[at + 1] < time || (words[at + 1] == time && words[at + 2] < id));
    }

    final long firstTime() {
        return words[place(first) + 1];
    }

    final long firstLabel() {
        return words[place(first) + 3];
    }

    final void removeFirst() {
        first++;
        if (first == end) {
            first = 0;
            end = 0;
            if (words.length > place(8 * ROOM)) {
                words = Arrays.copyOf(words, place(ROOM));
            }
        }
    }

    /** Adds a label in its place; returns false, doing nothing, if its id is remembered. */
    final boolean wait(long labelTime, long time, long id, long label) {
        for (int k = size; k < size + recentCount; k++) {
            if (words[k] == id) {
                return false;
            }
        }
        words[size + recentNext] = id;
        recentNext = (recentNext + 1) % RING;
        recentCount = Math.min(recentCount + 1, RING);
        makeRoom();
        int number = end;
        while (number > first && isBefore(labelTime, time, id, place(number - 1))) {
            number--;
        }
        final int at = place(number);
        System.arraycopy(words, at, words, at + WIDTH, WIDTH * (end - number));
        words[at] = labelTime;
        words[at + 1] = time;
        words[at + 2] = id;
        words[at + 3] = label;
        end++;
        return true;
    }

    private boolean isBefore(long labelTime, long time, long id, int at) {
        if (labelTime != words[at]) {
            return labelTime < words[at];
        }
        return time != words[at + 1] ? time < words[at + 1] : id < words[at + 2];
    }

    private void makeRoom() {
        if (place(end) < words.length) {
            return;
        }
        final int from = place(first);
        final int count = WIDTH * waiting();
        if (first <= end >> 1) { // less than half is free at the front
            words = Arrays.copyOf(words, place(2 * end));
        }
        System.arraycopy(words, from, words, place(0), count);
        end -= first;
        first = 0;
    }

    /** Writes the labels that wait for the shortest time, {@code 8 * WIDTH} bytes each. */
    final void writeWaiting(byte[] bytes, int at, int count) {
        Bytes.putWords(bytes, at, words, place(first), WIDTH * count);
    }

    /** Returns counts, then the labels, then the remembered ids. */
    final long[] waitingWords() {
        final int labels = WIDTH * waiting();
        long[] packed = new long[3 + labels + recentCount];
        packed[0] = waiting();
        packed[1] = recentCount;
        packed[2] = recentNext;
        System.arraycopy(words, place(first), packed, 3, labels);
        System.arraycopy(words, size, packed, 3 + labels, recentCount);
        return packed;
    }

    final void readWaitingWords(long[] packed) {
        first = 0;
        end = (int) packed[0];
        recentCount = (int) packed[1];
        recentNext = (int) packed[2];
        if (place(end) > words.length) {
            words = Arrays.copyOf(words, place(2 * end));
        }
        System.arraycopy(packed, 3, words, place(0), WIDTH * end);
        System.arraycopy(packed, 3 + WIDTH * end, words, size, recentCount);
    }

    final void copyWaitingFrom(WaitingLabels other) {
        words = other.words.clone();
        first = other.first;
        end = other.end;
        recentCount = other.recentCount;
        recentNext = other.recentNext;
    }
}
