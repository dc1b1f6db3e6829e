package io.penstock.stream;

import java.io.IOException;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** Writes the row, the features so far and the mail, each as a length and bytes. */
public final class EventSerializer extends OwnSerializer<Event> {
    private static final long serialVersionUID = 1L;
    public static final EventSerializer INSTANCE = new EventSerializer();

    @Override
    public boolean isImmutableType() {
        return false;
    }

    @Override
    public Event createInstance() {
        return new Event(Event.NOTHING, 0);
    }

    @Override
    public Event copy(Event from) {
        return from.copy();
    }

    @Override
    public void serialize(Event event, DataOutputView out) throws IOException {
        final int mail = event.mail == null ? -1 : event.mail.length;
        out.writeInt(event.length);
        out.writeInt(event.stateLength);
        out.writeInt(mail);
        // What room the features will need is worth telling: it saves growing there.
        out.writeInt(event.state.length);
        out.write(event.row, 0, event.length);
        out.write(event.state, 0, event.stateLength);
        if (mail > 0) {
            out.write(event.mail, 0, mail);
        }
    }

    @Override
    public Event deserialize(DataInputView in) throws IOException {
        final int length = in.readInt();
        final int stateLength = in.readInt();
        final int mail = in.readInt();
        final int room = in.readInt();
        Event event = new Event(new byte[length], length);
        in.readFully(event.row, 0, length);
        if (room > 0) {
            event.state = new byte[room];
            event.stateLength = stateLength;
            in.readFully(event.state, 0, stateLength);
        }
        if (mail >= 0) {
            event.mail = new byte[mail];
            in.readFully(event.mail, 0, mail);
        }
        return event;
    }

    @Override
    public TypeSerializerSnapshot<Event> snapshotConfiguration() {
        return new Snapshot();
    }

    /** Names the serializer in savepoints. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<Event> {
        public Snapshot() {
            super(() -> INSTANCE);
        }
    }

    /** Returns the type that Flink's streams of events carry. */
    static TypeInformation<Event> type() {
        return new OwnType<>(Event.class, INSTANCE);
    }
}
