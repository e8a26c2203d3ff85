package dealeriq.flink;

import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeinfo.BasicTypeInfo;
import org.apache.flink.metrics.Counter;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Lets an event id count once within the horizon, and folds what is new into partial tiles of each view's finest grain.
 *
 * <p>Keyed by the topic's own key, under which an event and its duplicates always come: one pass serves every view.
 */
final class Deduplicate extends Bundler<Event, Partial> {
    private static final long serialVersionUID = 1L;
    private static final int SHARD_SHIFT = 58;

    private record Place(int view, String key, long hop) {}

    private final List<ViewSpec> views;
    private final long horizonMs;
    private transient MapState<Integer, IdSet> seen;
    private transient Map<Place, Partial> batch;
    private transient Set<String> keys;
    private transient Counter duplicates;
    private transient Counter accepted;

    /** A horizon of 0 switches deduplication off. */
    Deduplicate(TopicSpec topic, long horizonMs, long flushMs, long catchUpMs, int most) {
        super(flushMs, catchUpMs, most, 2 * horizonMs);
        this.views = topic.views;
        this.horizonMs = horizonMs;
    }

    @Override
    public void open() throws Exception {
        super.open();
        MapStateDescriptor<Integer, IdSet> descriptor =
                new MapStateDescriptor<>("seen", BasicTypeInfo.INT_TYPE_INFO, Types.IDS);
        seen = getRuntimeContext().getMapState(descriptor);
        batch = new HashMap<>();
        keys = new HashSet<>();
        duplicates = getMetricGroup().counter("dealeriq_duplicates");
        accepted = getMetricGroup().counter("dealeriq_events");
    }

    @Override
    public void processElement(StreamRecord<Event> record) throws Exception {
        Event e = record.getValue();
        if (horizonMs > 0 && !isNew(e.id)) {
            duplicates.inc();
            return;
        }
        accepted.inc();
        keys.add(e.key);
        for (int v = 0; v < views.size(); v++) {
            ViewSpec view = views.get(v);
            if (view.known(e)) {
                Place place = new Place(v, view.key(e), Math.floorDiv(e.time, view.grains[0]) * view.grains[0]);
                Partial partial = batch.get(place);
                if (partial == null) {
                    partial = new Partial();
                    partial.key = place.key;
                    partial.hop = place.hop;
                    partial.tile = new Tile(view);
                    batch.put(place, partial);
                }
                partial.tile.add(view, e);
                partial.trace = e.trace != null ? e.trace : partial.trace;
            }
        }
        took(e.ingest);
    }

    /** Shards keep one state access small however many ids a key has. */
    private boolean isNew(long id) throws Exception {
        int shard = (int) (id >>> SHARD_SHIFT);
        IdSet ids = seen.get(shard);
        boolean fresh = ids == null;
        if (fresh) {
            ids = new IdSet();
        }
        boolean added = ids.add(id, getProcessingTimeService().getCurrentProcessingTime(), horizonMs);
        if (added) {
            seen.put(shard, ids);
        }
        return added;
    }

    @Override
    int held() {
        return batch.size();
    }

    @Override
    void forget() {
        seen.clear();
    }

    @Override
    void flush() throws Exception {
        StreamRecord<Partial> out = new StreamRecord<>(null);
        for (Partial each : batch.values()) {
            output.collect(out.replace(each));
        }
        batch.clear();
        if (horizonMs > 0) {
            for (String key : keys) {
                setCurrentKey(key);
                spoke();
            }
        }
        keys.clear();
    }
}
