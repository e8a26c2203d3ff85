package dealeriq.flink;

/**
 * One decoded event, cut down to what the views of its topic need.
 *
 * <p>Numbers are NaN and coupons -1 where the event has null. A rejected event carries its original record instead and
 * leaves the stream beside the source, before anything is serialized.
 */
final class Event implements DeadLetters.Rejectable {
    String key;
    long id;
    long time;
    long ingest;
    int partition;
    long offset;
    String[] texts;
    double[] numbers;
    int[] coupons;
    /** The source's `traceparent`, null where it had none. */
    byte[] trace;
    Outgoing rejected;

    @Override
    public Outgoing rejected() {
        return rejected;
    }
}
