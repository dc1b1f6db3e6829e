package io.penstock.stream;

import java.util.Arrays;
import java.util.List;
import java.util.Set;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.logical.BigIntType;
import org.apache.flink.table.types.logical.BooleanType;
import org.apache.flink.table.types.logical.DoubleType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.VarBinaryType;
import org.apache.flink.table.types.logical.VarCharType;

/** Makes an event a row of the table that the scoring function reads. */
final class Rows {
    static final RowType TYPE =
            new RowType(
                    List.of(
                            new RowType.RowField("event_id", new BigIntType(false)),
                            new RowType.RowField("event_name", text(false)),
                            new RowType.RowField("time", new BigIntType(false)),
                            new RowType.RowField("amount", new BigIntType(false)),
                            new RowType.RowField("late", new BooleanType(false)),
                            new RowType.RowField("model", text(false)),
                            new RowType.RowField("rules", text(false)),
                            new RowType.RowField("review_at", new DoubleType(false)),
                            new RowType.RowField("block_at", new DoubleType(false)),
                            new RowType.RowField("listed", new BooleanType(false)),
                            new RowType.RowField("numeric", bytes(false)),
                            new RowType.RowField("categorical", text(true)),
                            new RowType.RowField("keys", bytes(false)),
                            new RowType.RowField("state", bytes(false)),
                            new RowType.RowField("mail", bytes(true))));

    private Rows() {}

    static RowData of(Event event, Stamp stamp, Schema schema) {
        final GenericRowData row = new GenericRowData(15);
        final int columns = schema.columns.length;
        final boolean named = event.textEnd(0) > event.textStart(0);
        row.setField(0, event.id());
        row.setField(1, named ? string(event, 0, 0) : StringData.fromString(Long.toString(event.id())));
        row.setField(2, event.time());
        row.setField(3, event.amount());
        row.setField(4, event.isLate());
        row.setField(5, stamp.modelText());
        row.setField(6, stamp.rulesText());
        row.setField(7, stamp.reviewAt);
        row.setField(8, stamp.blockAt);
        row.setField(9, isListed(event, stamp, schema));
        final int numbers = event.numbersAt();
        row.setField(10, Arrays.copyOfRange(event.row, numbers, numbers + 8 * event.numbers()));
        row.setField(11, schema.categorical.length == 0 ? null : string(event, columns + 1, columns + 1));
        row.setField(12, keys(event, schema));
        row.setField(13, event.state);
        row.setField(14, event.mail);
        return row;
    }

    private static StringData string(Event event, int from, int to) {
        final int start = event.textStart(from);
        return StringData.fromBytes(event.row, start, event.textEnd(to) - start);
    }

    /** Keys of all entities, little endian. */
    private static byte[] keys(Event event, Schema schema) {
        byte[] keys = new byte[8 * schema.columns.length];
        for (int c = 0; c < schema.columns.length; c++) {
            Bytes.putLong(keys, 8 * c, event.entityKey(schema, c));
        }
        return keys;
    }

    private static boolean isListed(Event event, Stamp stamp, Schema schema) {
        if (stamp.blocked.isEmpty()) {
            return false;
        }
        for (int c = 0; c < schema.columns.length; c++) {
            final Set<String> ids = stamp.blocked.get(schema.kinds[c]);
            if (ids != null && ids.contains(event.entity(c))) {
                return true;
            }
        }
        return false;
    }

    private static VarCharType text(boolean nullable) {
        return new VarCharType(nullable, VarCharType.MAX_LENGTH);
    }

    private static VarBinaryType bytes(boolean nullable) {
        return new VarBinaryType(nullable, VarBinaryType.MAX_LENGTH);
    }
}
