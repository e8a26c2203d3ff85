package dealeriq.flink;

import java.util.Arrays;

/**
 * The partial aggregate of some events of one entity in one hop. Merging is associative and commutative, so that events
 * may come in any order, in any batches, and give the same tile to the last bit: sums are exact until they are sent.
 */
final class Tile {
    static final long NONE = -1;

    long n;
    long maxTime = Long.MIN_VALUE;
    long maxIngest = Long.MIN_VALUE;
    /** Highest source offset folded, by partition; NONE where nothing was. */
    long[] positions = new long[0];
    /** One accumulator a slot of the view; NaN while no non-null value came. Of a sum its largest part: see `value`. */
    double[] values;
    /** What a sum has beside `values`: null, or its smaller parts. */
    double[][] rests;
    /** Event time, partition and offset of the last value, three longs a "last" slot. */
    long[] lasts;
    /** Sorted coupons (bucket << 6 | rank), the highest rank a bucket, one array a "distinct" slot. */
    int[][] coupons;
    /** Whether something was folded since the tile was sent, and whether it ever was. */
    boolean changed;

    boolean sent;

    Tile() {}

    Tile(ViewSpec view) {
        values = new double[view.valueSlots];
        Arrays.fill(values, Double.NaN);
        rests = new double[view.valueSlots][];
        lasts = new long[3 * view.lastSlots];
        Arrays.fill(lasts, Long.MIN_VALUE);
        coupons = new int[view.distinctSlots][];
        Arrays.fill(coupons, new int[0]);
    }

    Tile copy() {
        Tile t = new Tile();
        t.n = n;
        t.maxTime = maxTime;
        t.maxIngest = maxIngest;
        t.positions = positions.clone();
        t.values = values.clone();
        t.rests = rests.clone();
        t.lasts = lasts.clone();
        t.coupons = coupons.clone(); // the arrays in it, as those in `rests`, are never changed in place
        t.changed = changed;
        t.sent = sent;
        return t;
    }

    void add(ViewSpec view, Event e) {
        n++;
        maxTime = Math.max(maxTime, e.time);
        maxIngest = Math.max(maxIngest, e.ingest);
        seen(e.partition, e.offset);
        for (ViewSpec.Slot slot : view.slots) {
            if (slot.kind == ViewSpec.DISTINCT) {
                int coupon = e.coupons[slot.source];
                if (coupon >= 0) {
                    coupons[slot.distinct] = withCoupon(coupons[slot.distinct], coupon);
                }
                continue;
            }
            double v = e.numbers[slot.source];
            if (Double.isNaN(v)) {
                continue;
            }
            if (slot.kind == ViewSpec.LAST) {
                last(slot, v, e.time, e.partition, e.offset);
            } else if (slot.isSum()) {
                ExactSum.add(values, rests, slot.value, slot.kind == ViewSpec.SUMSQ ? v * v : v);
            } else {
                values[slot.value] = extreme(slot.kind, values[slot.value], v);
            }
        }
    }

    void merge(ViewSpec view, Tile other) {
        n += other.n;
        maxTime = Math.max(maxTime, other.maxTime);
        maxIngest = Math.max(maxIngest, other.maxIngest);
        for (int p = 0; p < other.positions.length; p++) {
            if (other.positions[p] != NONE) {
                seen(p, other.positions[p]);
            }
        }
        for (ViewSpec.Slot slot : view.slots) {
            if (slot.kind == ViewSpec.DISTINCT) {
                coupons[slot.distinct] = union(coupons[slot.distinct], other.coupons[slot.distinct]);
                continue;
            }
            double v = other.values[slot.value];
            if (Double.isNaN(v)) {
                continue;
            }
            if (slot.kind == ViewSpec.LAST) {
                int at = 3 * slot.last;
                last(slot, v, other.lasts[at], other.lasts[at + 1], other.lasts[at + 2]);
            } else if (slot.isSum()) {
                ExactSum.add(values, rests, slot.value, v);
                if (other.rests[slot.value] != null) {
                    for (double part : other.rests[slot.value]) {
                        ExactSum.add(values, rests, slot.value, part);
                    }
                }
            } else {
                values[slot.value] = extreme(slot.kind, values[slot.value], v);
            }
        }
    }

    private void seen(int partition, long offset) {
        if (partition >= positions.length) {
            int before = positions.length;
            positions = Arrays.copyOf(positions, partition + 1);
            Arrays.fill(positions, before, positions.length, NONE);
        }
        positions[partition] = Math.max(positions[partition], offset);
    }

    private void last(ViewSpec.Slot slot, double v, long time, long partition, long offset) {
        int at = 3 * slot.last;
        int order = Long.compare(time, lasts[at]);
        order = order != 0 ? order : Long.compare(partition, lasts[at + 1]);
        order = order != 0 ? order : Long.compare(offset, lasts[at + 2]);
        if (order > 0) {
            values[slot.value] = v;
            lasts[at] = time;
            lasts[at + 1] = partition;
            lasts[at + 2] = offset;
        }
    }

    /** A slot's accumulator as a double: of a sum the double nearest to it; NaN while no value came. */
    double value(ViewSpec.Slot slot) {
        double v = values[slot.value];
        return rests[slot.value] == null ? v : ExactSum.rounded(v, rests[slot.value]);
    }

    private static double extreme(int kind, double a, double b) {
        if (Double.isNaN(a)) {
            return b;
        }
        return kind == ViewSpec.MIN ? Math.min(a, b) : Math.max(a, b);
    }

    static int[] withCoupon(int[] sorted, int coupon) {
        int bucket = coupon >>> 6;
        int low = 0;
        int high = sorted.length;
        while (low < high) {
            int middle = (low + high) >>> 1;
            if (sorted[middle] >>> 6 < bucket) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if (low < sorted.length && sorted[low] >>> 6 == bucket) {
            if (sorted[low] >= coupon) {
                return sorted;
            }
            int[] raised = sorted.clone();
            raised[low] = coupon;
            return raised;
        }
        int[] longer = new int[sorted.length + 1];
        System.arraycopy(sorted, 0, longer, 0, low);
        longer[low] = coupon;
        System.arraycopy(sorted, low, longer, low + 1, sorted.length - low);
        return longer;
    }

    static int[] union(int[] a, int[] b) {
        if (b.length == 0) {
            return a;
        }
        if (a.length == 0) {
            return b;
        }
        if (b.length == 1) {
            return withCoupon(a, b[0]);
        }
        int[] out = new int[a.length + b.length];
        int i = 0;
        int j = 0;
        int k = 0;
        while (i < a.length || j < b.length) {
            int x = i < a.length ? a[i] : Integer.MAX_VALUE;
            int y = j < b.length ? b[j] : Integer.MAX_VALUE;
            if (x >>> 6 == y >>> 6) {
                out[k++] = Math.max(x, y);
                i++;
                j++;
            } else if (x < y) {
                out[k++] = x;
                i++;
            } else {
                out[k++] = y;
                j++;
            }
        }
        return Arrays.copyOf(out, k);
    }
}
