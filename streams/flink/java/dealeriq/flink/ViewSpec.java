package dealeriq.flink;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

/** What the job must know of one feature view, read from the job's specification. */
final class ViewSpec implements Serializable {
    private static final long serialVersionUID = 1L;
    static final int SUM = 0;
    static final int SUMSQ = 1;
    static final int MIN = 2;
    static final int MAX = 3;
    static final int LAST = 4;
    static final int DISTINCT = 5;
    private static final List<String> KINDS = List.of("sum", "sumsq", "min", "max", "last", "distinct");

    /** One accumulator: which number or coupon of the event feeds it, and where it lies in the tile. */
    static final class Slot implements Serializable {
        private static final long serialVersionUID = 1L;
        final String name;
        final int kind;
        final int source;
        final int value;
        final int last;
        final int distinct;

        Slot(String name, int kind, int source, int value, int last, int distinct) {
            this.name = name;
            this.kind = kind;
            this.source = source;
            this.value = value;
            this.last = last;
            this.distinct = distinct;
        }

        boolean isSum() {
            return kind == SUM || kind == SUMSQ;
        }
    }

    final String name;
    final char letter;
    final String topic;
    final List<String> entity = new ArrayList<>();
    final int[] entityTexts;
    final long[] grains;
    final long[] retentions;
    /** Whether a tile of a grain may wait until the entity's newest event lies beyond it. */
    final boolean[] lazy;
    final Slot[] slots;
    final int valueSlots;
    final int lastSlots;
    final int distinctSlots;
    final int keySchema;
    final int valueSchema;
    final List<String> keyFields = new ArrayList<>();
    final List<String> valueFields = new ArrayList<>();
    /** For each value field the union branch of its value, or -1 where the field is not a union. */
    final int[] valueBranches;

    ViewSpec(JsonNode json, char letter, TopicSpec source) {
        this.letter = letter;
        name = json.get("name").asText();
        topic = json.get("topic").asText();
        json.get("entity").forEach(c -> entity.add(c.asText()));
        entityTexts = entity.stream().mapToInt(source::text).toArray();
        grains = longs(json.get("grains_ms"));
        retentions = longs(json.get("retention_ms"));
        lazy = new boolean[grains.length];
        for (int g = 0; g < lazy.length; g++) {
            lazy[g] = json.get("lazy").get(g).asBoolean();
        }
        List<Slot> all = new ArrayList<>();
        int values = 0;
        int lasts = 0;
        int distincts = 0;
        for (JsonNode column : json.get("columns")) {
            String c = column.get("column").asText();
            for (JsonNode partial : column.get("partials")) {
                int kind = KINDS.indexOf(partial.asText());
                if (kind < 0) {
                    throw new IllegalArgumentException("view " + name + ": no partial is called " + partial + "; there are " + KINDS);
                }
                String field = c + "_" + partial.asText();
                if (kind == DISTINCT) {
                    all.add(new Slot(field, kind, source.coupon(c), -1, -1, distincts++));
                } else {
                    all.add(new Slot(field, kind, source.number(c), values++, kind == LAST ? lasts++ : -1, -1));
                }
            }
        }
        slots = all.toArray(new Slot[0]);
        valueSlots = values;
        lastSlots = lasts;
        distinctSlots = distincts;
        keySchema = json.get("key_schema_id").asInt();
        valueSchema = json.get("value_schema_id").asInt();
        json.get("key_fields").forEach(f -> keyFields.add(f.asText()));
        List<Integer> branches = new ArrayList<>();
        for (JsonNode f : json.get("value_fields")) {
            valueFields.add(f.get("name").asText());
            branches.add(f.get("branch").asInt());
        }
        valueBranches = branches.stream().mapToInt(i -> i).toArray();
    }

    /** The key under which an event's tiles are kept: the view's letter, then the entity's columns. */
    String key(Event e) {
        int last = entityTexts.length - 1;
        if (last == 0) {
            return letter + e.texts[entityTexts[0]];
        }
        StringBuilder b = new StringBuilder().append(letter);
        for (int i = 0; i < last; i++) {
            String text = e.texts[entityTexts[i]];
            b.append(text.length()).append(':').append(text);
        }
        return b.append(e.texts[entityTexts[last]]).toString();
    }

    /** The entity's columns, from the key that `key` made: all but the last have their length before them. */
    String[] entity(String key) {
        String[] columns = new String[entityTexts.length];
        int at = 1;
        for (int i = 0; i < columns.length - 1; i++) {
            int colon = key.indexOf(':', at);
            int end = colon + 1 + Integer.parseInt(key, at, colon, 10);
            columns[i] = key.substring(colon + 1, end);
            at = end;
        }
        columns[columns.length - 1] = key.substring(at);
        return columns;
    }

    boolean known(Event e) {
        return Arrays.stream(entityTexts).allMatch(i -> e.texts[i] != null);
    }

    private static long[] longs(JsonNode array) {
        long[] out = new long[array.size()];
        for (int i = 0; i < out.length; i++) {
            out[i] = array.get(i).asLong();
        }
        return out;
    }
}
