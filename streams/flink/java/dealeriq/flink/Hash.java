package dealeriq.flink;

import java.nio.charset.StandardCharsets;

/** XXH64 with seed 0 over UTF-8: the hash behind duplicate detection and distinct counts (the same as Python's xxhash.xxh64). */
final class Hash {
    private static final long P1 = 0x9E3779B185EBCA87L;
    private static final long P2 = 0xC2B2AE3D27D4EB4FL;
    private static final long P3 = 0x165667B19E3779F9L;
    private static final long P4 = 0x85EBCA77C2B2AE63L;
    private static final long P5 = 0x27D4EB2F165667C5L;

    private Hash() {}

    static long of(String text) {
        return of(text.getBytes(StandardCharsets.UTF_8));
    }

    static long of(byte[] b) {
        int at = 0;
        int length = b.length;
        long h;
        if (length >= 32) {
            long v1 = P1 + P2;
            long v2 = P2;
            long v3 = 0;
            long v4 = -P1;
            while (at <= length - 32) {
                v1 = round(v1, word(b, at));
                v2 = round(v2, word(b, at + 8));
                v3 = round(v3, word(b, at + 16));
                v4 = round(v4, word(b, at + 24));
                at += 32;
            }
            h = Long.rotateLeft(v1, 1) + Long.rotateLeft(v2, 7) + Long.rotateLeft(v3, 12) + Long.rotateLeft(v4, 18);
            h = merge(merge(merge(merge(h, v1), v2), v3), v4);
        } else {
            h = P5;
        }
        h += length;
        while (at <= length - 8) {
            h = Long.rotateLeft(h ^ round(0, word(b, at)), 27) * P1 + P4;
            at += 8;
        }
        if (at <= length - 4) {
            h = Long.rotateLeft(h ^ (half(b, at) * P1), 23) * P2 + P3;
            at += 4;
        }
        while (at < length) {
            h = Long.rotateLeft(h ^ ((b[at] & 0xFF) * P5), 11) * P1;
            at++;
        }
        h = (h ^ (h >>> 33)) * P2;
        h = (h ^ (h >>> 29)) * P3;
        return h ^ (h >>> 32);
    }

    private static long round(long acc, long input) {
        return Long.rotateLeft(acc + input * P2, 31) * P1;
    }

    private static long merge(long h, long v) {
        return (h ^ round(0, v)) * P1 + P4;
    }

    private static long half(byte[] b, int at) {
        return (b[at] & 0xFFL) | (b[at + 1] & 0xFFL) << 8 | (b[at + 2] & 0xFFL) << 16 | (b[at + 3] & 0xFFL) << 24;
    }

    private static long word(byte[] b, int at) {
        return half(b, at) | half(b, at + 4) << 32;
    }
}
