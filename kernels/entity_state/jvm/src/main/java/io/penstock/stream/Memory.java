package io.penstock.stream;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** What an operator keeps for one key beside the words of a block: see {@link KeyedStage}. */
abstract class Memory {
    static final long NONE = Long.MIN_VALUE;

    /** Processing time of the last upsert. */
    long publishedAt = NONE;
    /** Whether a timer will publish what is not yet published. */
    boolean timer;
    /** Whether a timer at the end of all time will publish the last change of a bounded job. */
    boolean endTimer;
    /** Order time of the earliest row held back; {@code Long.MAX_VALUE} without. */
    long heldFrom = Long.MAX_VALUE;

    /** Reads where the words lie, without reading them; what it returns means nothing. */
    abstract long touch();

    final void takeFrom(Memory other) {
        publishedAt = other.publishedAt;
        timer = other.timer;
        endTimer = other.endTimer;
        heldFrom = other.heldFrom;
    }

    final void writeMemory(DataOutputView out) throws IOException {
        out.writeLong(publishedAt);
        out.writeByte((timer ? 1 : 0) | (endTimer ? 2 : 0));
        out.writeLong(heldFrom);
    }

    final void readMemory(DataInputView in) throws IOException {
        publishedAt = in.readLong();
        final int flags = in.readByte();
        timer = (flags & 1) != 0;
        endTimer = (flags & 2) != 0;
        heldFrom = in.readLong();
    }
}
