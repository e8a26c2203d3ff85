package dealeriq.flink;

import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;

/**
 * The bounds that a topic's schema declares as field properties: minimum, maximum, pattern, maxLength, minLength; a
 * timestamp must lie between the years 2000 and 2100 unless its field says otherwise.
 */
final class Bounds {
    private static final long YEAR_2000 = 946_684_800_000L;
    private static final long YEAR_2100 = 4_102_444_800_000L;

    private record Rule(int position, String field, boolean time, double minimum, double maximum, int minLength,
            int maxLength, Pattern pattern) {}

    private final List<Rule> rules = new ArrayList<>();

    Bounds(Schema schema, List<String> identity) {
        for (Schema.Field field : schema.getFields()) {
            Schema type = field.schema();
            if (type.getType() == Schema.Type.UNION) {
                type = type.getTypes().stream().filter(t -> t.getType() != Schema.Type.NULL).findFirst().orElse(type);
            }
            boolean time = type.getLogicalType() != null && type.getLogicalType().getName().equals("timestamp-millis");
            Object minimum = field.getObjectProp("minimum");
            Object maximum = field.getObjectProp("maximum");
            Object longest = field.getObjectProp("maxLength");
            Object shortest = field.getObjectProp("minLength");
            String pattern = field.getProp("pattern");
            boolean number = switch (type.getType()) {
                case INT, LONG, FLOAT, DOUBLE -> true;
                default -> false;
            };
            boolean text = type.getType() == Schema.Type.STRING;
            if (number && (time || minimum != null || maximum != null || type.getType() == Schema.Type.DOUBLE)) {
                double low = minimum != null ? ((Number) minimum).doubleValue() : time ? YEAR_2000 + 1 : -Double.MAX_VALUE;
                double high = maximum != null ? ((Number) maximum).doubleValue() : time ? YEAR_2100 - 1 : Double.MAX_VALUE;
                rules.add(new Rule(field.pos(), field.name(), time, low, high, 0, 0, null));
            } else if (text) {
                int least = shortest != null ? ((Number) shortest).intValue() : identity.contains(field.name()) ? 1 : 0;
                int most = longest != null ? ((Number) longest).intValue() : Integer.MAX_VALUE;
                if (least > 0 || most < Integer.MAX_VALUE || pattern != null) {
                    rules.add(new Rule(field.pos(), field.name(), false, 0, 0, least, most,
                            pattern == null ? null : Pattern.compile(pattern)));
                }
            }
        }
    }

    /** What is wrong with the record, in one sentence; null where nothing is. */
    String problem(GenericRecord record) {
        for (Rule rule : rules) {
            Object value = record.get(rule.position);
            if (value instanceof Number number) {
                double v = number.doubleValue();
                if (!(v >= rule.minimum && v <= rule.maximum)) {
                    return rule.field + " is " + number + ", allowed is " + show(rule.minimum) + " to " + show(rule.maximum);
                }
            } else if (value instanceof CharSequence chars) {
                int length = Character.codePointCount(chars, 0, chars.length());
                if (length < rule.minLength || length > rule.maxLength) {
                    return rule.field + " has " + length + " characters, allowed is " + rule.minLength + " to "
                            + (rule.maxLength == Integer.MAX_VALUE ? "any number" : rule.maxLength);
                }
                if (rule.pattern != null && !rule.pattern.matcher(chars).matches()) {
                    return rule.field + " does not match " + rule.pattern;
                }
            }
        }
        return null;
    }

    private static String show(double v) {
        return v == Math.rint(v) && Math.abs(v) < 1e15 ? Long.toString((long) v) : Double.toString(v);
    }
}
