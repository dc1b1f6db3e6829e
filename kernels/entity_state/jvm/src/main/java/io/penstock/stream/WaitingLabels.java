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

    /** Words of the ring: a byte of each id, so that a look at them finds most of what is new. */
    private static final int MARKS = RING / 8;

    private static final long LOW_BITS = 0x0101010101010101L;
    private static final long HIGH_BITS = 0x8080808080808080L;

    /** The part, what its owner keeps behind it, marks and ids of the ring, the labels. */
    long[] words;
    /** Words of the part. */
    final int size;
    /** Words that the owner keeps; all 0 after a restore. */
    final int kept;

    private final int marks;
    private final int ring;

    /** Labels from {@code first} to {@code end}, counted in labels. */
    private int first;

    private int end;
    private int recentCount;
    private int recentNext;

    /** Copies the words of a part, and makes room. */
    WaitingLabels(long[] part, int kept) {
        this.size = part.length;
        this.kept = kept;
        this.marks = size + kept;
        this.ring = marks + MARKS;
        words = Arrays.copyOf(part, place(ROOM));
    }

    /** Copies all words at once: every checkpoint makes a copy of each entity met since. */
    WaitingLabels(WaitingLabels other) {
        size = other.size;
        kept = other.kept;
        marks = other.marks;
        ring = other.ring;
        words = other.words.clone();
        first = other.first;
        end = other.end;
        recentCount = other.recentCount;
        recentNext = other.recentNext;
    }

    int waiting() {
        return end - first;
    }

    @Override
    final long touch() {
        return words.length;
    }

    /** Reads the cache lines that a label will change, and returns a sum of words. */
    final long fetchWaiting() {
        final int last = words.length - 1;
        return words[marks]
                + words[marks + MARKS - 1]
                + words[ring + recentNext]
                + words[Math.min(place(first), last)]
                + words[Math.min(place(end), last)];
    }

    private int place(int label) {
        return ring + RING + WIDTH * label;
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
        final long mark = EntityKeys.mix(id) & 0xff;
        if (isRemembered(id, mark)) {
            return false;
        }
        remember(id, mark);
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

    private boolean isRemembered(long id, long mark) {
        for (int group = 0; 8 * group < recentCount; group++) {
            // Bytes equal to the mark become 0, and of those the highest bit is found.
            final long different = words[marks + group] ^ (mark * LOW_BITS);
            long equal = (different - LOW_BITS) & ~different & HIGH_BITS;
            for (; equal != 0; equal &= equal - 1) {
                final int k = 8 * group + (Long.numberOfTrailingZeros(equal) >> 3);
                if (k < recentCount && words[ring + k] == id) {
                    return true;
                }
            }
        }
        return false;
    }

    private void remember(long id, long mark) {
        final int at = marks + (recentNext >> 3);
        final int shift = 8 * (recentNext & 7);
        words[at] = (words[at] & ~(0xffL << shift)) | mark << shift;
        words[ring + recentNext] = id;
        recentNext = (recentNext + 1) % RING;
        recentCount = Math.min(recentCount + 1, RING);
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
        System.arraycopy(words, ring, packed, 3 + labels, recentCount);
        return packed;
    }

    final void readWaitingWords(long[] packed) {
        final int labels = (int) packed[0];
        final int ids = (int) packed[1];
        first = 0;
        end = labels;
        if (place(end) > words.length) {
            words = Arrays.copyOf(words, place(2 * end));
        }
        System.arraycopy(packed, 3, words, place(0), WIDTH * labels);
        // A full ring goes on where it stood, so its ids keep their places.
        recentCount = 0;
        recentNext = 0;
        for (int k = 0; k < ids; k++) {
            final long id = packed[3 + WIDTH * labels + k];
            remember(id, EntityKeys.mix(id) & 0xff);
        }
        recentNext = (int) packed[2];
    }
}
