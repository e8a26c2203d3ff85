package dealeriq.flink;

import org.apache.flink.metrics.Counter;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/** Parts rejected records from the rest, in the source's own task: the partition moves on. */
final class DeadLetters<T extends DeadLetters.Rejectable> extends ProcessFunction<T, T> {
    private static final long serialVersionUID = 1L;
    static final OutputTag<Outgoing> TAG = new OutputTag<>("dead letters", Types.OUTGOING);
    private transient Counter rejected;

    /** What a decoder gives: a record, or the dead letter that came of it. */
    interface Rejectable {
        /** The dead letter, null for a record that is fine. */
        Outgoing rejected();
    }

    @Override
    public void open(OpenContext context) {
        rejected = getRuntimeContext().getMetricGroup().counter("dealeriq_dead_letters");
    }

    @Override
    public void processElement(T record, Context context, Collector<T> out) {
        Outgoing deadLetter = record.rejected();
        if (deadLetter == null) {
            out.collect(record);
        } else {
            rejected.inc();
            context.output(TAG, deadLetter);
        }
    }
}
