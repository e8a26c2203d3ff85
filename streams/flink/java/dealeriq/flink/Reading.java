package dealeriq.flink;

/**
 * What one rule says of one score, and what an insight would tell.
 *
 * <p>Numbers are NaN where the score has null. A score that cannot be read carries its original record instead and leaves
 * the stream beside the source.
 */
final class Reading implements DeadLetters.Rejectable {
    static final int SCORE = 0;
    static final int DEALER = 1;
    static final int SUBJECT_TYPE = 2;
    static final int SUBJECT = 3;
    static final int MODEL = 4;
    static final int MODEL_VERSION = 5;
    static final int RULE = 6;
    static final int RULE_VERSION = 7;
    static final int INSIGHT = 8;
    static final int SEVERITY = 9;
    static final int TEXT = 10;
    private static final int TEXTS = 11;

    /** How far one input moved the value. */
    record Reason(String input, double value, double usual, double by) {}

    final String[] texts = new String[TEXTS];
    boolean above;
    double value;
    double threshold;
    double hysteresis;
    long coolDown;
    long time;
    int partition;
    long offset;
    byte[] trace;
    Reason[] reasons = {};
    Outgoing rejected;

    /** The state's key: a rule is about one model's view of one subject. */
    String key() {
        return texts[MODEL] + '\u001f' + texts[RULE] + '\u001f' + texts[SUBJECT_TYPE] + '\u001f' + texts[SUBJECT];
    }

    @Override
    public Outgoing rejected() {
        return rejected;
    }
}
