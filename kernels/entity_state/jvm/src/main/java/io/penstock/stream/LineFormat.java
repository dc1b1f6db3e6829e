package io.penstock.stream;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSourceSplit;
import org.apache.flink.connector.file.src.reader.BulkFormat;
import org.apache.flink.connector.file.src.util.CheckpointedPosition;
import org.apache.flink.connector.file.src.util.RecordAndPosition;
import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.core.fs.Path;

/**
 * Reads files of JSON lines as events. A row's place is the byte at which its line begins, so a
 * split that is read again after a failure starts at the very line. Blank lines are no rows.
 */
final class LineFormat implements BulkFormat<Event, FileSourceSplit> {
    private static final long serialVersionUID = 1L;
    private static final int BATCH = 512;

    private final Schema schema;
    private final boolean labels;

    LineFormat(Schema schema, boolean labels) {
        this.schema = schema;
        this.labels = labels;
    }

    @Override
    public Reader createReader(Configuration config, FileSourceSplit split) throws IOException {
        return new Reader(split, split.offset());
    }

    @Override
    public Reader restoreReader(Configuration config, FileSourceSplit split) throws IOException {
        final long at =
                split.getReaderPosition()
                        .map(CheckpointedPosition::getOffset)
                        .filter(offset -> offset != CheckpointedPosition.NO_OFFSET)
                        .orElse(split.offset());
        return new Reader(split, at);
    }

    @Override
    public boolean isSplittable() {
        return true;
    }

    @Override
    public TypeInformation<Event> getProducedType() {
        return EventSerializer.type();
    }

    /** Reads the lines that begin within a split. */
    final class Reader implements BulkFormat.Reader<Event> {
        private final EventParser parser = new EventParser(schema, labels);
        private final byte[] source;
        private final long sourceHash;
        private final FSDataInputStream stream;
        private final long end;
        /** Bytes read ahead: from {@code at} to {@code filled}. */
        private byte[] buffer = new byte[256 * 1024];

        private int at;
        private int filled;
        /** Place in the file of {@code buffer[at]}. */
        private long place;

        private Reader(FileSourceSplit split, long from) throws IOException {
            final Path path = split.path();
            source = path.getPath().getBytes(StandardCharsets.UTF_8);
            sourceHash = EntityKeys.entityKey("file", path.getPath());
            stream = path.getFileSystem().open(path, buffer.length);
            end = split.offset() + split.length();
            // A line belongs to the split in which it begins.
            place = from;
            if (from > split.offset()) {
                stream.seek(from);
            } else if (from > 0) {
                stream.seek(from - 1);
                place = from - 1;
                skipLine();
            }
        }

        @Override
        public RecordIterator<Event> readBatch() throws IOException {
            Event[] events = new Event[BATCH];
            long[] places = new long[BATCH];
            int count = 0;
            while (count < BATCH && place < end) {
                final long start = place;
                final Event event = next(start);
                if (event != null) {
                    events[count] = event;
                    places[count++] = place;
                } else if (filled == at) {
                    break;
                }
            }
            return count == 0 ? null : new Batch(events, places, count);
        }

        /** Returns the event of the next line, null for a blank one or at the end. */
        private Event next(long start) throws IOException {
            int newline = find();
            while (newline < 0) {
                if (filled - at > schema.maxBytes) {
                    return tooLarge(start);
                }
                if (!fill()) {
                    newline = filled;
                    break;
                }
                newline = find();
            }
            final int from = at;
            int length = newline - from;
            at = Math.min(newline + 1, filled);
            place += at - from;
            if (length > 0 && buffer[from + length - 1] == '\r') {
                length--;
            }
            if (isBlank(from, length)) {
                return null;
            }
            return parser.parse(
                    buffer, from, length, start, source, EntityKeys.mix(sourceHash ^ start));
        }

        /** Skips the rest of a line that is too long; what was read of it is kept. */
        private Event tooLarge(long start) throws IOException {
            final byte[] kept = Arrays.copyOfRange(buffer, at, filled);
            final int length = (int) Math.min(kept.length + skipLine(), Integer.MAX_VALUE);
            return parser.parse(
                    kept, 0, length, start, source, EntityKeys.mix(sourceHash ^ start));
        }

        private int find() {
            for (int i = at; i < filled; i++) {
                if (buffer[i] == '\n') {
                    return i;
                }
            }
            return -1;
        }

        /** Moves behind the next newline; returns the bytes beyond those in the buffer. */
        private long skipLine() throws IOException {
            long skipped = 0;
            int newline = find();
            while (newline < 0) {
                place += filled - at;
                at = filled;
                if (!fill()) {
                    return skipped;
                }
                newline = find();
                skipped += (newline < 0 ? filled : newline) - at;
            }
            place += newline + 1 - at;
            at = newline + 1;
            return skipped;
        }

        private boolean isBlank(int from, int length) {
            for (int i = from; i < from + length; i++) {
                if (buffer[i] != ' ' && buffer[i] != '\t') {
                    return false;
                }
            }
            return true;
        }

        private boolean fill() throws IOException {
            if (at > 0) {
                System.arraycopy(buffer, at, buffer, 0, filled - at);
                filled -= at;
                at = 0;
            }
            if (filled == buffer.length) {
                buffer = Arrays.copyOf(buffer, 2 * buffer.length);
            }
            final int read = stream.read(buffer, filled, buffer.length - filled);
            if (read <= 0) {
                return false;
            }
            filled += read;
            return true;
        }

        @Override
        public void close() throws IOException {
            stream.close();
        }
    }

    /** Hands out a batch, every event with the place after it. */
    private static final class Batch implements BulkFormat.RecordIterator<Event> {
        private final Event[] events;
        private final long[] places;
        private final int count;
        private int next;

        Batch(Event[] events, long[] places, int count) {
            this.events = events;
            this.places = places;
            this.count = count;
        }

        @Override
        public RecordAndPosition<Event> next() {
            if (next == count) {
                return null;
            }
            final int i = next++;
            return new RecordAndPosition<>(events[i], places[i], 0);
        }

        @Override
        public void releaseBatch() {}
    }
}
