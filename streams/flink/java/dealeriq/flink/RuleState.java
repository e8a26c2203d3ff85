package dealeriq.flink;

/** Where one rule stands with one subject. */
final class RuleState {
    /** Whether the rule is on: a value passed the threshold, and none has come back behind it since. */
    boolean on;
    /** Whether it spoke since it went on. */
    boolean told;
    /** Whether it ever spoke; `spoke` is the event time of the last time. */
    boolean everSpoke;
    long spoke;
    /** Event time and hash of the newest score. */
    long time = Long.MIN_VALUE;
    long score;

    RuleState copy() {
        RuleState s = new RuleState();
        s.on = on;
        s.told = told;
        s.everSpoke = everSpoke;
        s.spoke = spoke;
        s.time = time;
        s.score = score;
        return s;
    }

    /** What became of a reading. */
    enum Outcome { SPOKE, QUIET, COOLING, LATE, REPEATED, UNKNOWN }

    /**
     * Takes in a reading.
     *
     * <p>The rule goes on with the first value beyond its threshold and off with the first that is back behind it by the
     * hysteresis. Once it is on it speaks once, as soon as `coolDown` of event time has passed since it spoke last: what
     * comes while it cools is not lost, but told later, if it still holds. A score older than one that was seen changes
     * nothing, and neither does one that comes again.
     */
    Outcome take(Reading r, long id) {
        if (r.time < time) {
            return Outcome.LATE;
        }
        if (r.time == time && id == score) {
            return Outcome.REPEATED;
        }
        time = r.time;
        score = id;
        if (Double.isNaN(r.value)) {
            return Outcome.UNKNOWN;
        }
        boolean beyond = r.above ? r.value > r.threshold : r.value < r.threshold;
        boolean back = r.above ? r.value <= r.threshold - r.hysteresis : r.value >= r.threshold + r.hysteresis;
        if (beyond) {
            on = true;
        } else if (back) {
            on = false;
            told = false;
        }
        if (!beyond || told) {
            return Outcome.QUIET;
        }
        if (everSpoke && r.time - spoke < r.coolDown) {
            return Outcome.COOLING;
        }
        told = true;
        everSpoke = true;
        spoke = r.time;
        return Outcome.SPOKE;
    }
}
