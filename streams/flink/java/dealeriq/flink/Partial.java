package dealeriq.flink;

/** A tile of the finest grain of one view, as far as one mini-batch of one subtask saw it. */
final class Partial {
    /** The view's letter and the entity, which is what the fold is keyed by. */
    String key;
    long hop;
    Tile tile;
    /** `traceparent` of the last event that had one. */
    byte[] trace;
}
