package dealeriq.flink;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.BasicTypeInfo;
import org.apache.flink.metrics.Counter;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Keeps every tile of an entity, in all grains of its view, and emits the ones that a mini-batch changed.
 *
 * <p>A tile is kept until it is older (event time of its entity, but never ahead of the clock) than its grain's
 * retention; what comes later than that cannot be in any window and is counted as `dealeriq_too_late`. Entities that
 * fall silent are forgotten after the longest retention (processing time), the stated TTL of this state.
 */
final class Fold extends Bundler<Partial, Outgoing> {
    private static final long serialVersionUID = 1L;
    private static final long PRUNE_EVERY_MS = 3_600_000;
    private static final long CLOCK_SLACK_MS = 86_400_000;

    private final ViewSpec[] views;
    private final char first;
    private transient MapState<Long, Tile> tiles;
    private transient ValueState<Long> clock;
    /** Changed tiles by key, then by (hop << 3 | grain's index). */
    private transient Map<String, Map<Long, Tile>> batch;
    /** The last `traceparent` by key: what the key's tiles of this batch carry on. */
    private transient Map<String, byte[]> traces;
    private transient int held;
    private transient TileEncoder[] encoders;
    private transient Counter tooLate;
    private transient Counter emitted;

    Fold(ViewSpec[] views, long flushMs, long catchUpMs, int most) {
        super(flushMs, catchUpMs, most, longest(views));
        this.views = views;
        this.first = views[0].letter;
    }

    private static long longest(ViewSpec[] views) {
        return Arrays.stream(views).flatMapToLong(v -> Arrays.stream(v.retentions)).max().orElseThrow();
    }

    private ViewSpec view(String key) {
        return views[key.charAt(0) - first];
    }

    @Override
    public void open() throws Exception {
        super.open();
        encoders = new TileEncoder[views.length];
        for (int v = 0; v < views.length; v++) {
            encoders[v] = new TileEncoder(views[v]);
        }
        MapStateDescriptor<Long, Tile> all = new MapStateDescriptor<>("tiles", BasicTypeInfo.LONG_TYPE_INFO, Types.TILE);
        tiles = getRuntimeContext().getMapState(all);
        ValueStateDescriptor<Long> latest = new ValueStateDescriptor<>("clock", BasicTypeInfo.LONG_TYPE_INFO);
        clock = getRuntimeContext().getState(latest);
        batch = new HashMap<>();
        traces = new HashMap<>();
        tooLate = getMetricGroup().counter("dealeriq_too_late");
        emitted = getMetricGroup().counter("dealeriq_tiles");
    }

    @Override
    public void processElement(StreamRecord<Partial> record) throws Exception {
        Partial p = record.getValue();
        ViewSpec view = view(p.key);
        Map<Long, Tile> ofKey = batch.get(p.key);
        if (ofKey == null) {
            ofKey = new HashMap<>();
            batch.put(p.key, ofKey);
        }
        for (int g = 0; g < view.grains.length; g++) {
            long hop = Math.floorDiv(p.hop, view.grains[g]) * view.grains[g];
            long place = hop << 3 | g;
            Tile tile = ofKey.get(place);
            if (tile == null) {
                ofKey.put(place, p.tile.copy());
                held++;
            } else {
                tile.merge(view, p.tile);
            }
        }
        if (p.trace != null) {
            traces.put(p.key, p.trace);
        }
        took(p.tile.maxIngest);
    }

    @Override
    int held() {
        return held;
    }

    @Override
    void flush() throws Exception {
        StreamRecord<Outgoing> out = new StreamRecord<>(null);
        long ahead = getProcessingTimeService().getCurrentProcessingTime() + CLOCK_SLACK_MS;
        for (Map.Entry<String, Map<Long, Tile>> ofKey : batch.entrySet()) {
            String key = ofKey.getKey();
            ViewSpec view = view(key);
            byte[] trace = traces.get(key);
            setCurrentKey(key);
            spoke();
            Long before = clock.value();
            long now = advance(before, ofKey.getValue(), ahead);
            for (Map.Entry<Long, Tile> each : ofKey.getValue().entrySet()) {
                long place = each.getKey();
                int grain = (int) (place & 7);
                long hop = place >> 3;
                if (hop + view.grains[grain] + view.retentions[grain] <= now) {
                    if (grain == view.grains.length - 1) {
                        tooLate.inc(each.getValue().n);
                    }
                    continue;
                }
                Tile tile = tiles.get(place);
                if (tile == null) {
                    tile = each.getValue();
                } else {
                    tile.merge(view, each.getValue());
                }
                tiles.put(place, tile);
                emitted.inc();
                output.collect(out.replace(encoders[key.charAt(0) - first].encode(key, grain, hop, tile, trace)));
            }
            if (before == null || now > before) {
                clock.update(now);
                if (before != null && now / PRUNE_EVERY_MS > before / PRUNE_EVERY_MS) {
                    prune(view, now);
                }
            }
        }
        batch.clear();
        traces.clear();
        held = 0;
    }

    @Override
    void forget() {
        tiles.clear();
        clock.clear();
    }

    private static long advance(Long before, Map<Long, Tile> changed, long ahead) {
        long now = before == null ? Long.MIN_VALUE : before;
        for (Tile tile : changed.values()) {
            if (tile.maxTime <= ahead) {
                now = Math.max(now, tile.maxTime);
            }
        }
        return now == Long.MIN_VALUE ? ahead : now;
    }

    private void prune(ViewSpec view, long now) throws Exception {
        var each = tiles.iterator();
        while (each.hasNext()) {
            long place = each.next().getKey();
            int grain = (int) (place & 7);
            if ((place >> 3) + view.grains[grain] + view.retentions[grain] <= now) {
                each.remove();
            }
        }
    }
}
