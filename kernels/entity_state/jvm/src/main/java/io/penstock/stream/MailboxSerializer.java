package io.penstock.stream;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** Writes a {@link Mailbox} into savepoints, and for every access with RocksDB. */
public final class MailboxSerializer extends OwnSerializer<Mailbox> {
    private static final long serialVersionUID = 1L;
    public static final MailboxSerializer INSTANCE = new MailboxSerializer();

    @Override
    public boolean isImmutableType() {
        return false;
    }

    @Override
    public Mailbox createInstance() {
        return new Mailbox(new long[0][]);
    }

    @Override
    public Mailbox copy(Mailbox from) {
        return from.copy();
    }

    @Override
    public void serialize(Mailbox mailbox, DataOutputView out) throws IOException {
        out.writeInt(mailbox.words.length);
        for (long[] words : mailbox.words) {
            PartSerializer.writeWords(words, out);
        }
        PartSerializer.writeWords(mailbox.changes, out);
        PartSerializer.writeWords(mailbox.publishedChanges, out);
        mailbox.writeMemory(out);
    }

    @Override
    public Mailbox deserialize(DataInputView in) throws IOException {
        long[][] words = new long[in.readInt()][];
        for (int role = 0; role < words.length; role++) {
            words[role] = PartSerializer.readWords(in);
        }
        Mailbox mailbox = new Mailbox(words);
        System.arraycopy(PartSerializer.readWords(in), 0, mailbox.changes, 0, words.length);
        System.arraycopy(PartSerializer.readWords(in), 0, mailbox.publishedChanges, 0, words.length);
        mailbox.readMemory(in);
        return mailbox;
    }

    @Override
    public TypeSerializerSnapshot<Mailbox> snapshotConfiguration() {
        return new Snapshot();
    }

    /** Names the serializer in savepoints. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<Mailbox> {
        public Snapshot() {
            super(() -> INSTANCE);
        }
    }
}
