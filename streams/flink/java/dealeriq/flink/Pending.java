package dealeriq.flink;

import java.util.Arrays;

/** What of one entity is to be sent: places of tiles, each once and ascending, and the trace to carry on. */
final class Pending {
    byte[] trace;
    private long[] places = new long[4];
    private int count;

    int count() {
        return count;
    }

    long place(int i) {
        return places[i];
    }

    /** Returns whether the place was not there before. */
    boolean add(long place) {
        int at = Arrays.binarySearch(places, 0, count, place);
        if (at >= 0) {
            return false;
        }
        at = -at - 1;
        if (count == places.length) {
            places = Arrays.copyOf(places, 2 * count);
        }
        System.arraycopy(places, at, places, at + 1, count - at);
        places[at] = place;
        count++;
        return true;
    }
}
