package dealeriq.flink;

import java.util.Arrays;

/**
 * Sums of doubles without rounding, so that the order of the terms does not matter: a sum is kept as doubles that do not
 * overlap and whose exact sum it is (J. R. Shewchuk, Adaptive Precision Floating-Point Arithmetic, 1997; the algorithm of
 * Python's math.fsum). It is rounded once, when it is read. Money has one or two parts; whole numbers have one.
 */
final class ExactSum {
    private ExactSum() {}

    /** Adds x to the sum whose largest part is heads[at] (NaN: no sum yet) and whose others, in growing order, rests[at]. */
    static void add(double[] heads, double[][] rests, int at, double x) {
        double head = heads[at];
        if (Double.isNaN(head)) {
            heads[at] = x;
            return;
        }
        double[] rest = rests[at];
        if (rest == null) {
            double sum = head + x;
            double low = lost(head, x, sum);
            heads[at] = sum;
            if (low != 0) {
                rests[at] = new double[] {low};
            }
            return;
        }
        double[] grown = new double[rest.length + 1];
        int count = 0;
        for (double part : rest) {
            double sum = x + part;
            double low = lost(x, part, sum);
            if (low != 0) {
                grown[count++] = low;
            }
            x = sum;
        }
        double sum = x + head;
        double low = lost(x, head, sum);
        if (low != 0) {
            grown[count++] = low;
        }
        heads[at] = sum;
        rests[at] = count == 0 ? null : count == grown.length ? grown : Arrays.copyOf(grown, count);
    }

    /** What rounding took from a + b (D. E. Knuth's two-sum: exact for any two doubles whose sum is finite). */
    private static double lost(double a, double b, double sum) {
        double other = sum - a;
        return (a - (sum - other)) + (b - other);
    }

    /** The double nearest to a sum, ties to even. */
    static double rounded(double head, double[] rest) {
        int left = rest.length;
        double sum = head;
        double low = 0;
        while (left > 0 && low == 0) {
            double part = rest[--left];
            double before = sum;
            sum = before + part;
            low = lost(before, part, sum);
        }
        // Half-way between two doubles, what is smaller still says which one is nearer.
        if (left > 0 && (low < 0 && rest[left - 1] < 0 || low > 0 && rest[left - 1] > 0)) {
            double twice = 2 * low;
            double other = sum + twice;
            if (twice == other - sum) {
                return other;
            }
        }
        return sum;
    }
}
