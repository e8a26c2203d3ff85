package dealeriq.flink;

import java.time.Duration;
import java.util.EnumMap;
import java.util.Map;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.metrics.Counter;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** Keeps where each rule stands with each subject, and lets an insight go when the rule speaks. */
final class Rules extends KeyedProcessFunction<String, Reading, Outgoing> {
    private static final long serialVersionUID = 1L;

    private final InsightEncoder encoder;
    private final long keepMs;
    private transient ValueState<RuleState> states;
    private transient Map<RuleState.Outcome, Counter> counters;

    /** A subject that is not scored for `keepMs` of processing time is forgotten. */
    Rules(InsightEncoder encoder, long keepMs) {
        this.encoder = encoder;
        this.keepMs = keepMs;
    }

    @Override
    public void open(OpenContext context) {
        ValueStateDescriptor<RuleState> descriptor = new ValueStateDescriptor<>("rule", Types.RULE);
        descriptor.enableTimeToLive(StateTtlConfig.newBuilder(Duration.ofMillis(keepMs)).build());
        states = getRuntimeContext().getState(descriptor);
        counters = new EnumMap<>(RuleState.Outcome.class);
        for (RuleState.Outcome outcome : RuleState.Outcome.values()) {
            String name = outcome == RuleState.Outcome.SPOKE ? "insights" : "readings_" + outcome.name().toLowerCase();
            counters.put(outcome, getRuntimeContext().getMetricGroup().counter("dealeriq_" + name));
        }
    }

    @Override
    public void processElement(Reading r, Context context, Collector<Outgoing> out) throws Exception {
        RuleState state = states.value();
        if (state == null) {
            state = new RuleState();
        }
        RuleState.Outcome outcome = state.take(r, Hash.of(r.texts[Reading.SCORE]));
        counters.get(outcome).inc();
        if (outcome != RuleState.Outcome.LATE && outcome != RuleState.Outcome.REPEATED) {
            states.update(state);
        }
        if (outcome == RuleState.Outcome.SPOKE) {
            out.collect(encoder.encode(r));
        }
    }
}
