package dealeriq.flink;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

/** One source topic: its contract, and which of its columns the views read. */
final class TopicSpec implements Serializable {
    private static final long serialVersionUID = 1L;

    final String name;
    final String deadLetters;
    final String schema;
    final String id;
    final String time;
    final List<String> key = new ArrayList<>();
    final List<String> texts = new ArrayList<>();
    final List<String> numbers = new ArrayList<>();
    final List<String> coupons = new ArrayList<>();
    final List<ViewSpec> views = new ArrayList<>();
    final int precision;

    /** Letters go on from `first`, so that no two views of a job share one. */
    TopicSpec(JsonNode json, char first) {
        name = json.get("name").asText();
        deadLetters = json.get("dead_letters").asText();
        schema = json.get("schema").toString();
        id = json.get("id").asText();
        time = json.get("time").asText();
        precision = json.get("distinct_precision").asInt();
        json.get("key").forEach(c -> key.add(c.asText()));
        char letter = first;
        for (JsonNode view : json.get("views")) {
            views.add(new ViewSpec(view, letter++, this));
        }
    }

    int text(String column) {
        return place(texts, column);
    }

    int number(String column) {
        return place(numbers, column);
    }

    int coupon(String column) {
        return place(coupons, column);
    }

    private static int place(List<String> columns, String column) {
        if (!columns.contains(column)) {
            columns.add(column);
        }
        return columns.indexOf(column);
    }
}
