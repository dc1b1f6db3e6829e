package io.penstock.stream;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;

/**
 * Where the messages that each column reads lie in a row's mail: groups of (reader, section) as in
 * {@code tasks.fraud.graph.mail.mail_layout}, so those of one reader follow each other.
 */
final class MailPlan implements Serializable {
    private static final long serialVersionUID = 1L;

    /** First byte of each column's groups; one past the last column: the size of all. */
    private final int[] offsets;

    private final String[] kinds;

    MailPlan(Settings settings) {
        kinds = settings.schema.kinds;
        offsets = new int[kinds.length + 1];
        for (int c = 0; c < kinds.length; c++) {
            final StateLayout layout = settings.layouts.get(kinds[c]);
            final int group = layout.mailSize * Mailbox.slotBytes(settings.message.width);
            offsets[c + 1] = offsets[c] + columnsOf(kinds[c]).length * group;
        }
    }

    int from(int column) {
        return offsets[column];
    }

    int to(int column) {
        return offsets[column + 1];
    }

    int size() {
        return offsets[offsets.length - 1];
    }

    int[] columnsOf(String kind) {
        List<Integer> found = new ArrayList<>();
        for (int c = 0; c < kinds.length; c++) {
            if (kinds[c].equals(kind)) {
                found.add(c);
            }
        }
        return found.stream().mapToInt(Integer::intValue).toArray();
    }
}
