package io.penstock.stream;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.Arrays;
import org.apache.flink.api.common.state.State;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.util.MathUtils;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The hash table in which Flink's heap keeps a state, read ahead for many keys.
 *
 * <p>A lookup waits three times for memory: for the slot of the table, the entry, and its key. The
 * lookups of a batch come one after the other, each with hundreds of instructions in between, so
 * their waits do not overlap. Here each step is taken for all keys before the next one, and the
 * lookups that follow find everything in the cache.
 *
 * <p>It only reads, and what it finds means nothing: a table that is just being rehashed makes it
 * useless for a moment, never wrong. Flink keeps these fields to itself; where one is missing or
 * changed, {@link #of} returns null and lookups are as slow as ever. So they are with a time to
 * live, for which Flink wraps the state.
 */
final class HeapIndex {
    private static final Logger LOG = LoggerFactory.getLogger(HeapIndex.class);
    private static final String PACKAGE = "org.apache.flink.runtime.state.heap.";
    private static final int NAMESPACE = VoidNamespace.INSTANCE.hashCode();
    /** Constant, else the compiler could not look through the handles in it; null: not found. */
    private static final Fields FLINK = Fields.find();

    private final Object[] maps;
    private final int firstKeyGroup;
    private final int keyGroups;
    private final Object[] entries;

    private HeapIndex(Object table, Object[] maps, int keyGroups, int batch) {
        this.maps = maps;
        this.firstKeyGroup = ((KeyGroupRange) FLINK.range.get(table)).getStartKeyGroup();
        this.keyGroups = keyGroups;
        this.entries = new Object[batch];
    }

    /**
     * Returns the index of a state, null where there is none to read.
     *
     * @param state with the namespace of plain functions
     * @param keyGroups of the job, its largest parallelism
     * @param batch most keys at once
     */
    static HeapIndex of(State state, int keyGroups, int batch) {
        if (FLINK == null || !FLINK.state.isInstance(state)) {
            return null;
        }
        final Object table = FLINK.table.get(state);
        final Object[] maps = (Object[]) FLINK.maps.get(table);
        return FLINK.map.isInstance(maps[0]) ? new HeapIndex(table, maps, keyGroups, batch) : null;
    }

    /** Tells whether this version of Flink is known. */
    static boolean isKnown() {
        return FLINK != null;
    }

    /** Reads what looking up some keys will read, and returns a sum of it. */
    long fetch(Object[] keys, int count) {
        for (int i = 0; i < count; i++) {
            final int hash = keys[i].hashCode();
            final int group = KeyGroupRangeAssignment.computeKeyGroupForKeyHash(hash, keyGroups);
            final Object[] slots = (Object[]) FLINK.slots.get(maps[group - firstKeyGroup]);
            entries[i] = slots[MathUtils.bitMix(hash ^ NAMESPACE) & slots.length - 1];
        }
        long sum = 0;
        for (int i = 0; i < count; i++) {
            entries[i] = entries[i] == null ? null : FLINK.key.get(entries[i]);
        }
        for (int i = 0; i < count; i++) {
            sum += entries[i] == null ? 0 : entries[i].hashCode();
        }
        Arrays.fill(entries, 0, count, null);
        return sum;
    }

    /** Where Flink's classes keep the table. */
    private record Fields(
            Class<?> state,
            Class<?> map,
            VarHandle table,
            VarHandle maps,
            VarHandle range,
            VarHandle slots,
            VarHandle key) {

        static Fields find() {
            try {
                final Class<?> state = Class.forName(PACKAGE + "AbstractHeapState");
                return new Fields(
                        state,
                        Class.forName(PACKAGE + "CopyOnWriteStateMap"),
                        handle(state, "stateTable", Object.class),
                        handle("StateTable", "keyGroupedStateMaps", Object[].class),
                        handle("StateTable", "keyGroupRange", KeyGroupRange.class),
                        handle("CopyOnWriteStateMap", "primaryTable", Object[].class),
                        handle("CopyOnWriteStateMap$StateMapEntry", "key", Object.class));
            } catch (ReflectiveOperationException e) {
                LOG.warn("this Flink keeps state on the heap otherwise; lookups take longer", e);
                return null;
            }
        }

        private static VarHandle handle(String name, String field, Class<?> type)
                throws ReflectiveOperationException {
            return handle(Class.forName(PACKAGE + name), field, type);
        }

        private static VarHandle handle(Class<?> owner, String field, Class<?> type)
                throws ReflectiveOperationException {
            if (!type.isAssignableFrom(owner.getDeclaredField(field).getType())) {
                throw new NoSuchFieldException(field + " of type " + type.getName());
            }
            return MethodHandles.privateLookupIn(owner, MethodHandles.lookup())
                    .unreflectVarHandle(owner.getDeclaredField(field));
        }
    }
}
