package dealeriq.flink;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.LocalDate;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * CloudEvents and trace headers, as `schemas/envelope.py` writes them. Every tile has them, so they are built
 * from bytes and never from format strings.
 */
final class Envelope {
    static final String TRACE = "traceparent";
    private static final List<String> PLAIN =
            List.of("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject");
    private static final List<String> TRACED =
            List.of("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject", TRACE);
    private static final byte[] VERSION = ascii("1.0");
    private static final byte[] SOURCE = ascii("dealeriq/flink");
    private static final byte[] HEX = ascii("0123456789abcdef");
    private static final int TRACE_LENGTH = 55;
    private static final int SPAN_AT = 36;
    private static final long DAY_MS = 86_400_000;
    private static final int MOST_DAYS = 4_096;

    private final byte[] type;
    private final SplittableRandom random = new SplittableRandom();
    private final Map<Long, byte[]> days = new HashMap<>();

    Envelope(String topic) {
        type = topic.getBytes(StandardCharsets.UTF_8);
    }

    /** The id is a hash of the value, so that a tile that is sent again has the same one; the span is a new one. */
    void put(Outgoing record, byte[] subject, long timeMs, byte[] trace) {
        byte[] id = new byte[16];
        hex(Hash.of(record.value), id, 0);
        put(record, id, subject, timeMs, trace);
    }

    /** The headers of an event that has an id of its own. */
    void put(Outgoing record, byte[] id, byte[] subject, long timeMs, byte[] trace) {
        byte[] time = time(timeMs);
        if (trace == null) {
            record.headerNames = PLAIN;
            record.headerValues = Arrays.asList(VERSION, id, type, SOURCE, time, subject);
        } else {
            byte[] span = trace.clone();
            hex(random.nextLong() | 1, span, SPAN_AT); // a span of zeros is invalid
            record.headerNames = TRACED;
            record.headerValues = Arrays.asList(VERSION, id, type, SOURCE, time, subject, span);
        }
    }

    /** Whether this is a W3C traceparent; what is not would only be passed on broken. */
    static boolean isTrace(byte[] value) {
        if (value == null || value.length != TRACE_LENGTH) {
            return false;
        }
        for (int i = 0; i < TRACE_LENGTH; i++) {
            int c = value[i];
            boolean dash = i == 2 || i == SPAN_AT - 1 || i == TRACE_LENGTH - 3;
            if (dash ? c != '-' : !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f')) {
                return false;
            }
        }
        return true;
    }

    private byte[] time(long ms) {
        long day = Math.floorDiv(ms, DAY_MS);
        byte[] date = days.get(day);
        if (date == null) {
            if (days.size() >= MOST_DAYS) {
                days.clear();
            }
            date = ascii(LocalDate.ofEpochDay(day) + "T");
            days.put(day, date);
        }
        int rest = (int) Math.floorMod(ms, DAY_MS);
        ByteBuffer out = ByteBuffer.allocate(date.length + 13).put(date);
        digits(out, rest / 3_600_000, 10).put((byte) ':');
        digits(out, rest / 60_000 % 60, 10).put((byte) ':');
        digits(out, rest / 1_000 % 60, 10).put((byte) '.');
        return digits(out, rest % 1_000, 100).put((byte) 'Z').array();
    }

    private static ByteBuffer digits(ByteBuffer out, int value, int unit) {
        for (int u = unit; u > 0; u /= 10) {
            out.put((byte) ('0' + value / u % 10));
        }
        return out;
    }

    private static void hex(long bits, byte[] out, int at) {
        for (int i = 0; i < 16; i++) {
            out[at + i] = HEX[(int) (bits >>> (60 - 4 * i)) & 15];
        }
    }

    private static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }
}
