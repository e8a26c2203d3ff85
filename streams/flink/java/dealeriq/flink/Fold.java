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
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.runtime.state.VoidNamespaceSerializer;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Keeps every tile of an entity, in all grains of its view, and sends the ones that changed.
 *
 * <p>A tile is kept until it is older (event time of its entity, but never ahead of the clock) than its grain's
 * retention; what comes later than that cannot be in any window and is counted as `dealeriq_too_late`. Entities that
 * fall silent are forgotten after the longest retention (processing time), the stated TTL of this state.
 *
 * <p>Not every change is sent at once. A tile of a lazy grain waits while the entity's newest event lies in it, for until
 * then its parts are sent and say the same. And tiles are paced to `tiles_per_s`: whoever sends much then waits, and what
 * changes meanwhile is sent once, or never, if it falls out of retention before. A backlog is folded first, and sent every
 * 30 s or when it has been caught up with. Whether a tile waits is part of the state, so a crash forgets none; coarse
 * tiles are sent before fine ones, so that a reader never takes an older whole for its parts.
 */
final class Fold extends Bundler<Partial, Outgoing> {
    private static final long serialVersionUID = 1L;
    private static final long PRUNE_EVERY_MS = 3_600_000;
    private static final long CLOCK_SLACK_MS = 86_400_000;
    private static final long LONGEST_PAUSE_MS = 10_000;
    /** A shorter lag may come from sending itself: to hold more because of it would be to lag for ever. */
    private static final long BACKLOG_MS = 15_000;
    private static final long LONGEST_HOLD_MS = 30_000;

    private final ViewSpec[] views;
    private final char first;
    private final long idleMs;
    private final int tilesPerSecond;
    private transient MapState<Long, Tile> tiles;
    private transient ValueState<Long> clock;
    /** What came since the last flush, by key, then by place (hop << 3 | grain's index). */
    private transient Map<String, Map<Long, Tile>> batch;
    private transient int held;
    /** What is folded and not yet sent, by key. */
    private transient Map<String, Pending> pending;
    private transient long pausedUntil;
    private transient long heldUntil;
    private transient long lastInput;
    private transient boolean restored;
    private transient TileEncoder[] encoders;
    private transient Counter tooLate;
    private transient Counter emitted;

    Fold(ViewSpec[] views, long flushMs, long catchUpMs, int most, int tilesPerSecond) {
        super(flushMs, catchUpMs, most, longest(views));
        this.views = views;
        this.first = views[0].letter;
        this.idleMs = 2 * catchUpMs; // the operator before this one may hold its batches as long
        this.tilesPerSecond = tilesPerSecond;
    }

    private static long longest(ViewSpec[] views) {
        return Arrays.stream(views).flatMapToLong(v -> Arrays.stream(v.retentions)).max().orElseThrow();
    }

    private ViewSpec view(String key) {
        return views[key.charAt(0) - first];
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        restored = context.isRestored();
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
        pending = new HashMap<>();
        tooLate = getMetricGroup().counter("dealeriq_too_late");
        emitted = getMetricGroup().counter("dealeriq_tiles");
        if (restored) {
            this.<String>getKeyedStateBackend().applyToAllKeys(
                    VoidNamespace.INSTANCE, VoidNamespaceSerializer.INSTANCE, all, (key, state) -> remember(key, state));
        }
    }

    /** After a crash: what the checkpoint says was not sent. */
    private void remember(String key, MapState<Long, Tile> state) throws Exception {
        for (Map.Entry<Long, Tile> each : state.entries()) {
            if (each.getValue().changed) {
                pending.computeIfAbsent(key, k -> new Pending()).add(each.getKey());
            }
        }
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
            long place = place(view, g, p.hop);
            Tile tile = ofKey.get(place);
            if (tile == null) {
                ofKey.put(place, p.tile.copy());
                held++;
            } else {
                tile.merge(view, p.tile);
            }
        }
        if (p.trace != null) {
            pending.computeIfAbsent(p.key, k -> new Pending()).trace = p.trace;
        }
        took(p.tile.maxIngest);
    }

    private static long place(ViewSpec view, int grain, long time) {
        return Math.floorDiv(time, view.grains[grain]) * view.grains[grain] << 3 | grain;
    }

    private static boolean retired(ViewSpec view, long place, long now) {
        int grain = (int) (place & 7);
        return (place >> 3) + view.grains[grain] + view.retentions[grain] <= now;
    }

    @Override
    int held() {
        return held;
    }

    @Override
    void flush() throws Exception {
        long wall = getProcessingTimeService().getCurrentProcessingTime();
        lastInput = wall;
        for (Map.Entry<String, Map<Long, Tile>> ofKey : batch.entrySet()) {
            String key = ofKey.getKey();
            ViewSpec view = view(key);
            Pending waiting = pending.computeIfAbsent(key, k -> new Pending());
            setCurrentKey(key);
            spoke();
            Long before = clock.value();
            long now = advance(before, ofKey.getValue(), wall + CLOCK_SLACK_MS);
            for (Map.Entry<Long, Tile> each : ofKey.getValue().entrySet()) {
                long place = each.getKey();
                if (retired(view, place, now)) {
                    if ((place & 7) == view.grains.length - 1) {
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
                tile.changed = true;
                tiles.put(place, tile);
                waiting.add(place);
            }
            if (before == null || now > before) {
                clock.update(now);
                if (before != null) {
                    leave(view, before, now, waiting);
                    if (now / PRUNE_EVERY_MS > before / PRUNE_EVERY_MS) {
                        prune(view, now);
                    }
                }
            }
        }
        batch.clear();
        held = 0;
    }

    /** The newest event lies beyond these lazy tiles now, so they wait no longer. */
    private static void leave(ViewSpec view, long before, long now, Pending waiting) {
        for (int g = 1; g < view.grains.length; g++) {
            long left = place(view, g, before);
            if (view.lazy[g] && left != place(view, g, now)) {
                waiting.add(left);
            }
        }
    }

    @Override
    void ticked(long wall) throws Exception {
        boolean ready = wall >= pausedUntil && (lag() <= BACKLOG_MS || wall >= heldUntil);
        if (!pending.isEmpty() && (ready || wall - lastInput >= idleMs)) {
            send(wall);
            heldUntil = wall + LONGEST_HOLD_MS;
        }
    }

    private void send(long wall) throws Exception {
        StreamRecord<Outgoing> out = new StreamRecord<>(null);
        long sent = 0;
        for (Map.Entry<String, Pending> each : pending.entrySet()) {
            String key = each.getKey();
            Pending waiting = each.getValue();
            ViewSpec view = view(key);
            TileEncoder encoder = encoders[key.charAt(0) - first];
            setCurrentKey(key);
            Long now = clock.value();
            for (int g = view.grains.length - 1; now != null && g >= 0; g--) {
                long current = place(view, g, now);
                for (int i = 0; i < waiting.count(); i++) {
                    long place = waiting.place(i);
                    if ((place & 7) != g || retired(view, place, now)) {
                        continue;
                    }
                    Tile tile = tiles.get(place);
                    if (tile == null || !tile.changed || view.lazy[g] && place == current && !tile.sent) {
                        continue;
                    }
                    tile.changed = false;
                    tile.sent = true;
                    tiles.put(place, tile);
                    sent++;
                    output.collect(out.replace(encoder.encode(key, g, place >> 3, tile, waiting.trace)));
                }
            }
        }
        pending.clear();
        emitted.inc(sent);
        int subtasks = getRuntimeContext().getTaskInfo().getNumberOfParallelSubtasks();
        pausedUntil = wall + Math.min(sent * 1_000 * subtasks / tilesPerSecond, LONGEST_PAUSE_MS);
    }

    @Override
    public void endInput() throws Exception {
        super.endInput();
        send(getProcessingTimeService().getCurrentProcessingTime());
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
            if (retired(view, each.next().getKey(), now)) {
                each.remove();
            }
        }
    }
}
