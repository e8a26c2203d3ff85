package dealeriq.flink;

import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.BasicTypeInfo;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.runtime.state.VoidNamespaceSerializer;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.InternalTimer;
import org.apache.flink.streaming.api.operators.InternalTimerService;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.operators.Triggerable;

/**
 * An operator that holds a mini-batch in memory and lets it go on a timer, before every checkpoint and at the end.
 *
 * <p>While the newest record is fresh a batch is held for `flushMs`, so that features are. When the job is behind by
 * more than `BEHIND_MS` nobody can see freshness, and a batch is held for `catchUpMs`, so that more events share a tile.
 *
 * <p>A key that falls silent is forgotten after `keepMs` (processing time). Flink's own TTL looks at every entry of a
 * map state to forget one, which made the fold several times slower.
 */
abstract class Bundler<I, O> extends AbstractStreamOperator<O>
        implements OneInputStreamOperator<I, O>, BoundedOneInput, Triggerable<String, VoidNamespace> {
    private static final long serialVersionUID = 1L;
    static final long BEHIND_MS = 2_000;
    private static final long DAY_MS = 86_400_000;

    private final long flushMs;
    private final long catchUpMs;
    private final int most;
    private final long keepMs;
    private transient long newest;
    /** Age of the newest record that the batch held when it was last looked at, ms. */
    private transient long lag;
    private transient long flushed;
    private transient ValueState<Long> deadline;
    private transient InternalTimerService<VoidNamespace> silence;

    Bundler(long flushMs, long catchUpMs, int most, long keepMs) {
        this.flushMs = flushMs;
        this.catchUpMs = catchUpMs;
        this.most = most;
        this.keepMs = keepMs;
    }

    @Override
    public void open() throws Exception {
        super.open();
        newest = Long.MIN_VALUE;
        deadline = getRuntimeContext().getState(new ValueStateDescriptor<>("deadline", BasicTypeInfo.LONG_TYPE_INFO));
        silence = getInternalTimerService("silence", VoidNamespaceSerializer.INSTANCE, this);
        schedule();
    }

    private void schedule() {
        long now = getProcessingTimeService().getCurrentProcessingTime();
        getProcessingTimeService().registerTimer(now + flushMs, this::tick);
    }

    private void tick(long timestamp) throws Exception {
        long now = getProcessingTimeService().getCurrentProcessingTime();
        if (held() > 0) {
            lag = now - newest;
        }
        boolean behind = held() > 0 && lag > BEHIND_MS;
        if (!behind || now - flushed >= catchUpMs) {
            letGo();
        }
        ticked(now);
        schedule();
    }

    /** How far behind the job was when it last had something to fold, ms. */
    final long lag() {
        return lag;
    }

    /** Called every `flushMs`, after a batch was let go if it was time. */
    void ticked(long now) throws Exception {}

    private void letGo() throws Exception {
        if (held() > 0) {
            flush();
        }
        newest = Long.MIN_VALUE;
        flushed = getProcessingTimeService().getCurrentProcessingTime();
    }

    /** Called after a record was taken in; `ingest` is when it was produced. */
    final void took(long ingest) throws Exception {
        newest = Math.max(newest, ingest);
        if (held() >= most) {
            letGo();
        }
    }

    /** Puts off forgetting the current key; deadlines are whole days, so that a busy key has few timers. */
    final void spoke() throws Exception {
        long until = ((getProcessingTimeService().getCurrentProcessingTime() + keepMs) / DAY_MS + 1) * DAY_MS;
        Long known = deadline.value();
        if (known == null || known != until) {
            deadline.update(until);
            silence.registerProcessingTimeTimer(VoidNamespace.INSTANCE, until);
        }
    }

    @Override
    public void onProcessingTime(InternalTimer<String, VoidNamespace> timer) throws Exception {
        Long known = deadline.value();
        if (known != null && known <= timer.getTimestamp()) {
            deadline.clear();
            forget();
        }
    }

    @Override
    public void onEventTime(InternalTimer<String, VoidNamespace> timer) {}

    /** Clears the state of the current key. */
    abstract void forget();

    /** How many tiles the batch holds. */
    abstract int held();

    /** Emits the batch and empties it. */
    abstract void flush() throws Exception;

    @Override
    public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
        letGo();
    }

    @Override
    public void endInput() throws Exception {
        letGo();
    }
}
