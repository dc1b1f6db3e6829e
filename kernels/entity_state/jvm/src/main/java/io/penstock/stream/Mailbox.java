package io.penstock.stream;

import java.util.Arrays;

/**
 * The mailbox of one entity: a ring of messages per role, as in {@code deposit_to_section} and
 * {@code read_mail} of {@code kernels/entity_state}.
 */
final class Mailbox extends Memory {
    /** Words of each role's part: messages ever deposited, then times, amounts, ... */
    final long[][] words;
    final long[] changes;
    final long[] publishedChanges;

    Mailbox(StateLayout layout) {
        this(new long[layout.roles][]);
        for (int role = 0; role < layout.roles; role++) {
            words[role] = layout.mailbox(role).empty.clone();
        }
    }

    Mailbox(long[][] words) {
        this.words = words;
        this.changes = new long[words.length];
        this.publishedChanges = new long[words.length];
    }

    Mailbox copy() {
        long[][] own = new long[words.length][];
        for (int role = 0; role < words.length; role++) {
            own[role] = words[role].clone();
        }
        Mailbox copy = new Mailbox(own);
        System.arraycopy(changes, 0, copy.changes, 0, changes.length);
        System.arraycopy(publishedChanges, 0, copy.publishedChanges, 0, changes.length);
        copy.takeFrom(this);
        return copy;
    }

    @Override
    long touch() {
        return words[0].length;
    }

    /** Reads all cache lines, and returns a sum of words. */
    long fetch() {
        long sum = 0;
        for (long[] part : words) {
            for (int k = 0; k < part.length; k += Bytes.LINE_WORDS) {
                sum += part[k];
            }
        }
        return sum;
    }

    /** Bytes of a message in a row's mail. */
    static int slotBytes(int width) {
        return 24 + 4 * width;
    }

    /** Puts a message into the ring of a role; the oldest one makes room. */
    void deposit(
            StateLayout layout,
            int role,
            long time,
            long amount,
            long counterpart,
            long counterpartRole,
            long[] vector) {
        final long[] w = words[role];
        final int size = layout.mailSize;
        final int slot = (int) (w[0] % size);
        w[1 + slot] = time;
        w[1 + size + slot] = amount;
        w[1 + 2 * size + slot] = counterpart;
        w[1 + 3 * size + slot] = counterpartRole;
        System.arraycopy(
                vector, 0, w, 1 + 4 * size + slot * layout.mailWords, layout.mailWords);
        w[0] += 1;
        changes[role] += 1;
    }

    /**
     * Writes the messages of a role, newest first: time, amount, counterpart, {@code width} float32
     * per slot; an empty slot has the time {@link StatePart#NONE}, counterpart -1 and zeros.
     */
    void read(StateLayout layout, int role, int width, byte[] out, int at) {
        final long[] w = words[role];
        final int size = layout.mailSize;
        final int step = slotBytes(width);
        final long count = Math.min(w[0], size);
        for (int age = 0; age < size; age++, at += step) {
            if (age >= count) {
                Arrays.fill(out, at, at + step, (byte) 0);
                Bytes.putLong(out, at, NONE);
                Bytes.putLong(out, at + 16, -1L);
                continue;
            }
            final int slot = (int) ((w[0] - 1 - age) % size);
            Bytes.putLong(out, at, w[1 + slot]);
            Bytes.putLong(out, at + 8, w[1 + size + slot]);
            Bytes.putLong(out, at + 16, w[1 + 2 * size + slot]);
            final int vector = 1 + 4 * size + slot * layout.mailWords;
            for (int k = 0; k < width; k++) {
                final long word = w[vector + (k >> 1)];
                final int half = (int) ((k & 1) == 0 ? word : word >>> 32);
                Bytes.putInt(out, at + 24 + 4 * k, half);
            }
        }
    }
}
