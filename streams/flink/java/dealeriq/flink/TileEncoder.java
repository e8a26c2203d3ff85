package dealeriq.flink;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.utils.Utils;

/**
 * Writes a tile's key and value as Confluent-framed Avro, field by field in the order of the registered schemas.
 *
 * <p>All tiles of an entity have one partition, so that they are read in the order in which they were sent: the one that
 * Kafka's default partitioner gives to the entity's columns in UTF-8, joined by U+001F.
 */
final class TileEncoder {
    private static final String JOIN = "\u001f";

    private final ViewSpec view;
    private final Map<String, ViewSpec.Slot> slots = new HashMap<>();
    private final ByteArrayOutputStream out = new ByteArrayOutputStream(256);
    private final Envelope envelope;

    TileEncoder(ViewSpec view) {
        this.view = view;
        envelope = new Envelope(view.topic);
        for (ViewSpec.Slot slot : view.slots) {
            slots.put(slot.name, slot);
            if (slot.kind == ViewSpec.LAST) {
                slots.put(slot.name + "_time", slot);
            }
        }
    }

    Outgoing encode(String key, int grain, long hop, Tile tile, byte[] trace) {
        String[] entity = view.entity(key);
        byte[] subject = String.join(JOIN, entity).getBytes(StandardCharsets.UTF_8);
        Outgoing record = new Outgoing();
        record.topic = view.topic;
        record.place = Utils.toPositive(Utils.murmur2(subject));
        frame(view.keySchema);
        for (String field : view.keyFields) {
            identity(field, entity, grain, hop);
        }
        record.key = out.toByteArray();
        frame(view.valueSchema);
        for (int i = 0; i < view.valueBranches.length; i++) {
            value(view.valueFields.get(i), view.valueBranches[i], entity, grain, hop, tile);
        }
        record.value = out.toByteArray();
        envelope.put(record, subject, tile.maxTime, trace);
        return record;
    }

    private boolean identity(String field, String[] entity, int grain, long hop) {
        switch (field) {
            case "grain" -> varint(view.grains[grain] / 1000);
            case "hop" -> varint(hop);
            default -> {
                int at = view.entity.indexOf(field);
                if (at < 0) {
                    return false;
                }
                text(entity[at]);
            }
        }
        return true;
    }

    private void value(String field, int branch, String[] entity, int grain, long hop, Tile tile) {
        ViewSpec.Slot slot = slots.get(field);
        boolean present = slot == null || slot.kind == ViewSpec.DISTINCT || !Double.isNaN(tile.values[slot.value]);
        if (branch >= 0) {
            boolean known = slot != null || known(field);
            varint(present && known ? branch : 1 - branch);
            if (!present || !known) {
                return; // null
            }
        }
        if (slot != null) {
            if (slot.kind == ViewSpec.DISTINCT) {
                coupons(tile.coupons[slot.distinct]);
            } else if (slot.kind == ViewSpec.LAST && field.endsWith("_time")) {
                varint(tile.lasts[3 * slot.last]);
            } else {
                real(tile.value(slot));
            }
            return;
        }
        switch (field) {
            case "n" -> varint(tile.n);
            case "max_event_time" -> varint(tile.maxTime);
            case "max_ingest_time" -> varint(tile.maxIngest);
            case "positions" -> longs(tile.positions);
            default -> {
                if (!identity(field, entity, grain, hop)) {
                    throw new IllegalStateException("view " + view.name + " has no value for the tile field " + field);
                }
            }
        }
    }

    private boolean known(String field) {
        return switch (field) {
            case "n", "max_event_time", "max_ingest_time", "positions", "grain", "hop" -> true;
            default -> view.entity.contains(field);
        };
    }

    private void frame(int schema) {
        out.reset();
        out.write(0);
        out.writeBytes(ByteBuffer.allocate(4).putInt(schema).array());
    }

    private void varint(long v) {
        long z = (v << 1) ^ (v >> 63);
        while ((z & ~0x7FL) != 0) {
            out.write((int) (z & 0x7F | 0x80));
            z >>>= 7;
        }
        out.write((int) z);
    }

    private void real(double v) {
        out.writeBytes(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putDouble(v).array());
    }

    private void text(String s) {
        byte[] bytes = s.getBytes(StandardCharsets.UTF_8);
        varint(bytes.length);
        out.writeBytes(bytes);
    }

    private void longs(long[] values) {
        if (values.length > 0) {
            varint(values.length);
            for (long v : values) {
                varint(v);
            }
        }
        varint(0);
    }

    private void coupons(int[] sorted) {
        ByteBuffer bytes = ByteBuffer.allocate(4 * sorted.length).order(ByteOrder.LITTLE_ENDIAN);
        for (int coupon : sorted) {
            bytes.putInt(coupon);
        }
        varint(bytes.capacity());
        out.writeBytes(bytes.array());
    }
}
