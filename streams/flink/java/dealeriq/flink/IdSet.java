package dealeriq.flink;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/**
 * Ids seen, as 64-bit hashes in two generations: an id is remembered for at least one horizon (processing time) and at
 * most two. Eight bytes an id: two ids of the same key share a hash once in 2^64.
 */
final class IdSet {
    private long[] young = new long[8];
    private int count;
    private long[] old = new long[0];
    private int oldCount;
    private long born;
    /** The hash 0 marks a free place, so an id that hashes to 0 is kept as 1. */
    private static final long FREE = 0;

    /** Remembers the id; false if it was known. */
    boolean add(long hash, long now, long horizon) {
        if (born == 0) {
            born = now;
        }
        if (now - born >= horizon) {
            boolean both = now - born < 2 * horizon;
            old = both ? young : new long[0];
            oldCount = both ? count : 0;
            young = new long[8];
            count = 0;
            born = now;
        }
        long id = hash == FREE ? 1 : hash;
        if (oldCount > 0 && old[place(old, id)] == id) {
            return false;
        }
        int at = place(young, id);
        if (young[at] == id) {
            return false;
        }
        young[at] = id;
        count++;
        if (4 * count > 3 * young.length) {
            long[] before = young;
            young = new long[2 * before.length];
            for (long each : before) {
                if (each != FREE) {
                    young[place(young, each)] = each;
                }
            }
        }
        return true;
    }

    private static int place(long[] table, long id) {
        int mask = table.length - 1;
        int at = (int) (id ^ (id >>> 32)) & mask;
        while (table[at] != FREE && table[at] != id) {
            at = (at + 1) & mask;
        }
        return at;
    }

    IdSet copy() {
        IdSet s = new IdSet();
        s.young = young.clone();
        s.count = count;
        s.old = old; // an old generation is never changed
        s.oldCount = oldCount;
        s.born = born;
        return s;
    }

    void write(DataOutputView out) throws IOException {
        out.writeLong(born);
        table(young, count, out);
        table(old, oldCount, out);
    }

    static IdSet read(DataInputView in) throws IOException {
        IdSet s = new IdSet();
        s.born = in.readLong();
        s.count = in.readInt();
        s.young = table(s.count, 8, in);
        s.oldCount = in.readInt();
        s.old = s.oldCount == 0 ? new long[0] : table(s.oldCount, 8, in);
        return s;
    }

    private static void table(long[] table, int count, DataOutputView out) throws IOException {
        out.writeInt(count);
        for (long id : table) {
            if (id != FREE) {
                out.writeLong(id);
            }
        }
    }

    private static long[] table(int count, int least, DataInputView in) throws IOException {
        int size = least;
        while (4 * count > 3 * size) {
            size *= 2;
        }
        long[] table = new long[size];
        for (int i = 0; i < count; i++) {
            long id = in.readLong();
            table[place(table, id)] = id;
        }
        return table;
    }
}
