package dealeriq.flink;

import org.apache.flink.metrics.Counter;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/** Parts rejected records from events, in the source's own task: the partition moves on. */
final class DeadLetters extends ProcessFunction<Event, Event> {
    private static final long serialVersionUID = 1L;
    static final OutputTag<Outgoing> TAG = new OutputTag<>("dead letters", Types.OUTGOING);
    private transient Counter rejected;

    @Override
    public void open(OpenContext context) {
        rejected = getRuntimeContext().getMetricGroup().counter("dealeriq_dead_letters");
    }

    @Override
    public void processElement(Event event, Context context, Collector<Event> out) {
        if (event.rejected == null) {
            out.collect(event);
        } else {
            rejected.inc();
            context.output(TAG, event.rejected);
        }
    }
}
