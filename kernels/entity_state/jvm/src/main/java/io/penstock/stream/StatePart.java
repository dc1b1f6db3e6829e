package io.penstock.stream;

/**
 * What one entity remembers in one role: the words of its tiles part, labels that wait, and how
 * far it has been published. Reads and writes are those of {@code kernels/entity_state/cpu.py}.
 */
final class StatePart extends WaitingLabels {
    // Single fields at the head of a section, see LAST in layout.py.
    private static final int LAST_TIME = 0;
    private static final int EVENTS = 1;
    private static final int LAST_LABEL = 2;
    private static final int LAST_FRAUD = 3;
    private static final int RUN_START = 4;
    private static final int RUN_LENGTH = 5;

    /** Changes so far: events, labels that came, labels released. */
    long changes;
    /** Changes that the last upsert held. */
    long publishedChanges;

    /** Makes a state of a part's words, which are copied, with room for sums. */
    StatePart(long[] part, int sums) {
        super(part, sums);
    }

    private StatePart(StatePart other) {
        super(other);
        changes = other.changes;
        publishedChanges = other.publishedChanges;
        takeFrom(other);
    }

    /** Reads all cache lines of the part and its sums, and returns a sum of words. */
    long fetchPart() {
        final long[] w = words;
        long sum = 0;
        for (int k = 0; k < size + kept; k += Bytes.LINE_WORDS) {
            sum += w[k];
        }
        return sum;
    }

    StatePart copy() {
        return new StatePart(this);
    }

    /** Writes the features that an event sees, itself counted in, as float64 from {@code at} on. */
    void read(StateLayout layout, long time, long amount, byte[] out, int at) {
        for (StateLayout.Ring ring : layout.rings) {
            readTiles(ring, time, amount, out, at);
        }
        readLabels(layout, time, out, at);
        int last = at + 56 * layout.byLength.length;
        Bytes.putDouble(out, last, age(time, words[LAST_TIME]));
        Bytes.putDouble(out, last + 8, words[LAST_LABEL]);
        Bytes.putDouble(out, last + 16, age(time, words[LAST_FRAUD]));
        Bytes.putDouble(out, last + 24, age(time, words[RUN_START]));
        Bytes.putDouble(out, last + 32, words[RUN_LENGTH]);
    }

    /** The sums over earlier tiles, the newest tile, and the event itself. */
    private void readTiles(StateLayout.Ring ring, long time, long amount, byte[] out, int at) {
        final long[] w = words;
        final int size = ring.size;
        final long high = Math.floorDiv(time, ring.tile);
        final int newest = ring.offset + (int) Math.floorMod(high, (long) size);
        int sums = this.size + ring.sums;
        if (w[sums] != (high ^ NONE)) {
            sumEarlierTiles(ring, high, sums);
        }
        long count = 1;
        long sum = amount;
        long least = amount;
        long most = amount;
        double squares = (double) amount * (double) amount;
        if (w[newest] == high) {
            count += w[newest + size];
            sum += w[newest + 2 * size];
            squares += Double.longBitsToDouble(w[newest + 3 * size]);
            least = Math.min(least, w[newest + 4 * size]);
            most = Math.max(most, w[newest + 5 * size]);
        }
        sums++;
        for (int window = 0; window < ring.windows.length; window++, sums += 5) {
            final int place = at + 56 * ring.windows[window];
            Bytes.putDouble(out, place, count + w[sums]);
            Bytes.putDouble(out, place + 8, sum + w[sums + 1]);
            Bytes.putDouble(out, place + 16, squares + Double.longBitsToDouble(w[sums + 2]));
            Bytes.putDouble(out, place + 24, Math.min(least, w[sums + 3]));
            Bytes.putDouble(out, place + 32, Math.max(most, w[sums + 4]));
        }
    }

    /**
     * Sums, per window, the tiles before {@code high}. As long as time stays within that tile, and
     * none of the earlier ones changes, the sums hold: a busy entity reads two tiles, not thirty.
     * Windows on one ring lie inside each other, so each continues the sums of the next shorter one.
     */
    private void sumEarlierTiles(StateLayout.Ring ring, long high, int sums) {
        final long[] w = words;
        final int size = ring.size;
        long count = 0;
        long sum = 0;
        long least = Long.MAX_VALUE;
        long most = Long.MIN_VALUE;
        double squares = 0.0;
        long tile = high - 1;
        int slot = (int) Math.floorMod(tile, (long) size);
        w[sums++] = high ^ NONE;
        for (int window = 0; window < ring.windows.length; window++, sums += 5) {
            for (long low = high - ring.lengths[window]; tile >= low; tile--) {
                final int k = ring.offset + slot;
                if (w[k] == tile) {
                    count += w[k + size];
                    sum += w[k + 2 * size];
                    squares += Double.longBitsToDouble(w[k + 3 * size]);
                    least = Math.min(least, w[k + 4 * size]);
                    most = Math.max(most, w[k + 5 * size]);
                }
                slot = slot == 0 ? size - 1 : slot - 1;
            }
            w[sums] = count;
            w[sums + 1] = sum;
            w[sums + 2] = Double.doubleToRawLongBits(squares);
            w[sums + 3] = least;
            w[sums + 4] = most;
        }
    }

    private void readLabels(StateLayout layout, long time, byte[] out, int at) {
        final long[] w = words;
        final int size = layout.labelSize;
        final long known = time - layout.delay;
        final long high = Math.floorDiv(known, layout.labelTile);
        final int newest = layout.label + (int) Math.floorMod(high, (long) size);
        int sums = this.size + layout.labelSums;
        if (w[sums] != (high ^ NONE) || !layout.wholeLabelTiles) {
            sumEarlierLabels(layout, known, high, sums);
        }
        final boolean some = w[newest] == high;
        final long seen = some ? w[newest + size] : 0;
        final long bad = some ? w[newest + 2 * size] : 0;
        sums++;
        for (int window = 0; window < layout.byLength.length; window++, sums += 2) {
            final int place = at + 56 * layout.byLength[window];
            Bytes.putDouble(out, place + 40, seen + w[sums]);
            Bytes.putDouble(out, place + 48, bad + w[sums + 1]);
        }
    }

    private void sumEarlierLabels(StateLayout layout, long known, long high, int sums) {
        final long[] w = words;
        final int size = layout.labelSize;
        long seen = 0;
        long bad = 0;
        long tile = high - 1;
        int slot = (int) Math.floorMod(tile, (long) size);
        w[sums++] = high ^ NONE;
        for (int window = 0; window < layout.byLength.length; window++, sums += 2) {
            final long low = Math.floorDiv(known - layout.lengths[window], layout.labelTile);
            for (; tile >= low; tile--) {
                final int k = layout.label + slot;
                if (w[k] == tile) {
                    seen += w[k + size];
                    bad += w[k + 2 * size];
                }
                slot = slot == 0 ? size - 1 : slot - 1;
            }
            w[sums] = seen;
            w[sums + 1] = bad;
        }
    }

    /** Forgets sums that hold a tile about to change. */
    private void forgetSums(int sums, long tile) {
        if (tile < (words[size + sums] ^ NONE)) {
            words[size + sums] = 0;
        }
    }

    /** Seconds from {@code since} to {@code time}, at least 0; -1 when there is none. */
    private static double age(long time, long since) {
        return since == NONE ? -1.0 : Math.max(time - since, 0L) / 1000.0;
    }

    boolean isRecent(StateLayout layout, long id) {
        for (int k = layout.recent; k < layout.recent + layout.recentSize; k++) {
            if (words[k] == id) {
                return true;
            }
        }
        return false;
    }

    /** Enters an event; returns false, leaving all as it was, for a recent id. */
    boolean apply(StateLayout layout, long id, long time, long amount) {
        if (isRecent(layout, id)) {
            return false;
        }
        final long[] w = words;
        final double square = (double) amount * (double) amount;
        for (StateLayout.Ring ring : layout.rings) {
            final int size = ring.size;
            final long tile = Math.floorDiv(time, ring.tile);
            final int k = ring.offset + (int) Math.floorMod(tile, (long) size);
            forgetSums(ring.sums, tile);
            if (w[k] == tile) {
                w[k + size] += 1;
                w[k + 2 * size] += amount;
                double squares = Double.longBitsToDouble(w[k + 3 * size]) + square;
                w[k + 3 * size] = Double.doubleToRawLongBits(squares);
                w[k + 4 * size] = Math.min(w[k + 4 * size], amount);
                w[k + 5 * size] = Math.max(w[k + 5 * size], amount);
            } else if (w[k] < tile) {
                w[k] = tile;
                w[k + size] = 1;
                w[k + 2 * size] = amount;
                w[k + 3 * size] = Double.doubleToRawLongBits(square);
                w[k + 4 * size] = amount;
                w[k + 5 * size] = amount;
            }
        }
        w[layout.recent + (int) (w[EVENTS] % layout.recentSize)] = id;
        w[EVENTS] += 1;
        w[LAST_TIME] = Math.max(w[LAST_TIME], time);
        changes += 1;
        return true;
    }

    /** Makes the label (0 or 1) of the event at {@code time} known. */
    void release(StateLayout layout, long time, long label) {
        final long[] w = words;
        final int size = layout.labelSize;
        final long tile = Math.floorDiv(time, layout.labelTile);
        final int k = layout.label + (int) Math.floorMod(tile, (long) size);
        forgetSums(layout.labelSums, tile);
        if (w[k] == tile) {
            w[k + size] += 1;
            w[k + 2 * size] += label;
        } else if (w[k] < tile) {
            w[k] = tile;
            w[k + size] = 1;
            w[k + 2 * size] = label;
        }
        w[LAST_LABEL] = label;
        if (label == 1) {
            w[LAST_FRAUD] = Math.max(w[LAST_FRAUD], time);
            if (w[RUN_LENGTH] == 0) {
                w[RUN_START] = time;
            }
            w[RUN_LENGTH] += 1;
        } else {
            w[RUN_START] = NONE;
            w[RUN_LENGTH] = 0;
        }
        changes += 1;
    }

    /** Releases the labels at the front that an event at (time, id) may know. */
    void releaseDue(StateLayout layout, long time, long id) {
        while (isLabelDue(time, id)) {
            release(layout, firstTime(), firstLabel());
            removeFirst();
        }
    }

    /** Lets a label wait; returns false for one that came before (its id is remembered). */
    boolean addLabel(long labelTime, long time, long id, long label) {
        if (!wait(labelTime, time, id, label)) {
            return false;
        }
        changes += 1;
        return true;
    }
}
