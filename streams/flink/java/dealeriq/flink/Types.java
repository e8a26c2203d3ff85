package dealeriq.flink;

import java.io.IOException;
import java.util.function.Supplier;
import org.apache.flink.api.common.ExecutionConfig;
import org.apache.flink.api.common.serialization.SerializerConfig;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.types.StringValue;

/** How the job's own records are written between tasks and in checkpoints. A change here needs a new `uid` in its job. */
final class Types {
    private Types() {}

    static final TypeInformation<Event> EVENT = new Plain<>(Event.class, new EventSerializer());
    static final TypeInformation<Partial> PARTIAL = new Plain<>(Partial.class, new PartialSerializer());
    static final TypeInformation<Tile> TILE = new Plain<>(Tile.class, new TileSerializer());
    static final TypeInformation<IdSet> IDS = new Plain<>(IdSet.class, new IdSetSerializer());
    static final TypeInformation<Reading> READING = new Plain<>(Reading.class, new ReadingSerializer());
    static final TypeInformation<RuleState> RULE = new Plain<>(RuleState.class, new RuleSerializer());
    static final TypeInformation<Outgoing> OUTGOING = new Plain<>(Outgoing.class, new OutgoingSerializer());

    private abstract static class Serializer<T> extends TypeSerializerSingleton<T> {
        private static final long serialVersionUID = 1L;

        @Override
        public boolean isImmutableType() {
            return false;
        }

        @Override
        public T createInstance() {
            return null;
        }

        @Override
        public T copy(T from) {
            return from; // passed on between chained operators and never changed there
        }

        @Override
        public T copy(T from, T reuse) {
            return copy(from);
        }

        @Override
        public int getLength() {
            return -1;
        }

        @Override
        public T deserialize(T reuse, DataInputView in) throws IOException {
            return deserialize(in);
        }

        @Override
        public void copy(DataInputView in, DataOutputView out) throws IOException {
            serialize(deserialize(in), out);
        }

        static void bytes(byte[] bytes, DataOutputView out) throws IOException {
            out.writeInt(bytes == null ? -1 : bytes.length);
            if (bytes != null) {
                out.write(bytes);
            }
        }

        static byte[] bytes(DataInputView in) throws IOException {
            int length = in.readInt();
            if (length < 0) {
                return null;
            }
            byte[] bytes = new byte[length];
            in.readFully(bytes);
            return bytes;
        }
    }

    static final class EventSerializer extends Serializer<Event> {
        private static final long serialVersionUID = 1L;

        @Override
        public void serialize(Event e, DataOutputView out) throws IOException {
            if (e.rejected != null) {
                throw new IOException("a rejected event left its source");
            }
            StringValue.writeString(e.key, out);
            out.writeLong(e.id);
            out.writeLong(e.time);
            out.writeLong(e.ingest);
            out.writeInt(e.partition);
            out.writeLong(e.offset);
            bytes(e.trace, out);
            out.writeByte(e.texts.length);
            for (String text : e.texts) {
                StringValue.writeString(text, out);
            }
            out.writeByte(e.numbers.length);
            for (double number : e.numbers) {
                out.writeDouble(number);
            }
            out.writeByte(e.coupons.length);
            for (int coupon : e.coupons) {
                out.writeInt(coupon);
            }
        }

        @Override
        public Event deserialize(DataInputView in) throws IOException {
            Event e = new Event();
            e.key = StringValue.readString(in);
            e.id = in.readLong();
            e.time = in.readLong();
            e.ingest = in.readLong();
            e.partition = in.readInt();
            e.offset = in.readLong();
            e.trace = bytes(in);
            e.texts = new String[in.readByte()];
            for (int i = 0; i < e.texts.length; i++) {
                e.texts[i] = StringValue.readString(in);
            }
            e.numbers = new double[in.readByte()];
            for (int i = 0; i < e.numbers.length; i++) {
                e.numbers[i] = in.readDouble();
            }
            e.coupons = new int[in.readByte()];
            for (int i = 0; i < e.coupons.length; i++) {
                e.coupons[i] = in.readInt();
            }
            return e;
        }

        @Override
        public TypeSerializerSnapshot<Event> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends SimpleTypeSerializerSnapshot<Event> {
            public Snapshot() {
                super(EventSerializer::new);
            }
        }
    }

    static final class TileSerializer extends Serializer<Tile> {
        private static final long serialVersionUID = 1L;

        @Override
        public Tile copy(Tile from) {
            return from.copy();
        }

        @Override
        public void serialize(Tile t, DataOutputView out) throws IOException {
            out.writeLong(t.n);
            out.writeLong(t.maxTime);
            out.writeLong(t.maxIngest);
            out.writeShort(t.positions.length);
            for (long position : t.positions) {
                out.writeLong(position);
            }
            out.writeByte(t.values.length);
            for (int i = 0; i < t.values.length; i++) {
                out.writeDouble(t.values[i]);
                double[] rest = t.rests[i];
                out.writeByte(rest == null ? 0 : rest.length);
                for (int j = 0; rest != null && j < rest.length; j++) {
                    out.writeDouble(rest[j]);
                }
            }
            out.writeByte(t.lasts.length);
            for (long last : t.lasts) {
                out.writeLong(last);
            }
            out.writeByte(t.coupons.length);
            for (int[] coupons : t.coupons) {
                out.writeInt(coupons.length);
                for (int coupon : coupons) {
                    out.writeInt(coupon);
                }
            }
            out.writeByte((t.changed ? 1 : 0) | (t.sent ? 2 : 0));
        }

        @Override
        public Tile deserialize(DataInputView in) throws IOException {
            Tile t = new Tile();
            t.n = in.readLong();
            t.maxTime = in.readLong();
            t.maxIngest = in.readLong();
            t.positions = new long[in.readShort()];
            for (int i = 0; i < t.positions.length; i++) {
                t.positions[i] = in.readLong();
            }
            t.values = new double[in.readByte()];
            t.rests = new double[t.values.length][];
            for (int i = 0; i < t.values.length; i++) {
                t.values[i] = in.readDouble();
                int parts = in.readByte();
                double[] rest = t.rests[i] = parts == 0 ? null : new double[parts];
                for (int j = 0; j < parts; j++) {
                    rest[j] = in.readDouble();
                }
            }
            t.lasts = new long[in.readByte()];
            for (int i = 0; i < t.lasts.length; i++) {
                t.lasts[i] = in.readLong();
            }
            t.coupons = new int[in.readByte()][];
            for (int i = 0; i < t.coupons.length; i++) {
                t.coupons[i] = new int[in.readInt()];
                for (int j = 0; j < t.coupons[i].length; j++) {
                    t.coupons[i][j] = in.readInt();
                }
            }
            int flags = in.readByte();
            t.changed = (flags & 1) != 0;
            t.sent = (flags & 2) != 0;
            return t;
        }

        @Override
        public TypeSerializerSnapshot<Tile> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends SimpleTypeSerializerSnapshot<Tile> {
            public Snapshot() {
                super(TileSerializer::new);
            }
        }
    }

    static final class PartialSerializer extends Serializer<Partial> {
        private static final long serialVersionUID = 1L;
        private final TileSerializer tiles = new TileSerializer();

        @Override
        public void serialize(Partial p, DataOutputView out) throws IOException {
            StringValue.writeString(p.key, out);
            out.writeLong(p.hop);
            bytes(p.trace, out);
            tiles.serialize(p.tile, out);
        }

        @Override
        public Partial deserialize(DataInputView in) throws IOException {
            Partial p = new Partial();
            p.key = StringValue.readString(in);
            p.hop = in.readLong();
            p.trace = bytes(in);
            p.tile = tiles.deserialize(in);
            return p;
        }

        @Override
        public TypeSerializerSnapshot<Partial> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends SimpleTypeSerializerSnapshot<Partial> {
            public Snapshot() {
                super(PartialSerializer::new);
            }
        }
    }

    static final class IdSetSerializer extends Serializer<IdSet> {
        private static final long serialVersionUID = 1L;

        @Override
        public IdSet copy(IdSet from) {
            return from.copy();
        }

        @Override
        public void serialize(IdSet s, DataOutputView out) throws IOException {
            s.write(out);
        }

        @Override
        public IdSet deserialize(DataInputView in) throws IOException {
            return IdSet.read(in);
        }

        @Override
        public TypeSerializerSnapshot<IdSet> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends SimpleTypeSerializerSnapshot<IdSet> {
            public Snapshot() {
                super(IdSetSerializer::new);
            }
        }
    }

    static final class ReadingSerializer extends Serializer<Reading> {
        private static final long serialVersionUID = 1L;

        @Override
        public void serialize(Reading r, DataOutputView out) throws IOException {
            if (r.rejected != null) {
                throw new IOException("a rejected score left its source");
            }
            for (String text : r.texts) {
                StringValue.writeString(text, out);
            }
            out.writeBoolean(r.above);
            out.writeDouble(r.value);
            out.writeDouble(r.threshold);
            out.writeDouble(r.hysteresis);
            out.writeLong(r.coolDown);
            out.writeLong(r.time);
            out.writeInt(r.partition);
            out.writeLong(r.offset);
            bytes(r.trace, out);
            out.writeByte(r.reasons.length);
            for (Reading.Reason reason : r.reasons) {
                StringValue.writeString(reason.input(), out);
                out.writeDouble(reason.value());
                out.writeDouble(reason.usual());
                out.writeDouble(reason.by());
            }
        }

        @Override
        public Reading deserialize(DataInputView in) throws IOException {
            Reading r = new Reading();
            for (int i = 0; i < r.texts.length; i++) {
                r.texts[i] = StringValue.readString(in);
            }
            r.above = in.readBoolean();
            r.value = in.readDouble();
            r.threshold = in.readDouble();
            r.hysteresis = in.readDouble();
            r.coolDown = in.readLong();
            r.time = in.readLong();
            r.partition = in.readInt();
            r.offset = in.readLong();
            r.trace = bytes(in);
            r.reasons = new Reading.Reason[in.readByte()];
            for (int i = 0; i < r.reasons.length; i++) {
                String input = StringValue.readString(in);
                r.reasons[i] = new Reading.Reason(input, in.readDouble(), in.readDouble(), in.readDouble());
            }
            return r;
        }

        @Override
        public TypeSerializerSnapshot<Reading> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends SimpleTypeSerializerSnapshot<Reading> {
            public Snapshot() {
                super(ReadingSerializer::new);
            }
        }
    }

    static final class RuleSerializer extends Serializer<RuleState> {
        private static final long serialVersionUID = 1L;

        @Override
        public RuleState copy(RuleState from) {
            return from.copy();
        }

        @Override
        public void serialize(RuleState s, DataOutputView out) throws IOException {
            out.writeByte((s.on ? 1 : 0) | (s.told ? 2 : 0) | (s.everSpoke ? 4 : 0));
            out.writeLong(s.time);
            out.writeLong(s.score);
            out.writeLong(s.spoke);
        }

        @Override
        public RuleState deserialize(DataInputView in) throws IOException {
            RuleState s = new RuleState();
            int flags = in.readByte();
            s.on = (flags & 1) != 0;
            s.told = (flags & 2) != 0;
            s.everSpoke = (flags & 4) != 0;
            s.time = in.readLong();
            s.score = in.readLong();
            s.spoke = in.readLong();
            return s;
        }

        @Override
        public TypeSerializerSnapshot<RuleState> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends SimpleTypeSerializerSnapshot<RuleState> {
            public Snapshot() {
                super(RuleSerializer::new);
            }
        }
    }

    static final class OutgoingSerializer extends Serializer<Outgoing> {
        private static final long serialVersionUID = 1L;

        @Override
        public void serialize(Outgoing o, DataOutputView out) throws IOException {
            StringValue.writeString(o.topic, out);
            out.writeInt(o.place);
            bytes(o.key, out);
            bytes(o.value, out);
            out.writeInt(o.headerNames.size());
            for (int i = 0; i < o.headerNames.size(); i++) {
                StringValue.writeString(o.headerNames.get(i), out);
                bytes(o.headerValues.get(i), out);
            }
        }

        @Override
        public Outgoing deserialize(DataInputView in) throws IOException {
            Outgoing o = new Outgoing();
            o.topic = StringValue.readString(in);
            o.place = in.readInt();
            o.key = bytes(in);
            o.value = bytes(in);
            int headers = in.readInt();
            for (int i = 0; i < headers; i++) {
                o.header(StringValue.readString(in), bytes(in));
            }
            return o;
        }

        @Override
        public TypeSerializerSnapshot<Outgoing> snapshotConfiguration() {
            return new Snapshot();
        }

        public static final class Snapshot extends SimpleTypeSerializerSnapshot<Outgoing> {
            public Snapshot() {
                super(OutgoingSerializer::new);
            }
        }
    }

    /** Type information over one of the serializers above. */
    static final class Plain<T> extends TypeInformation<T> {
        private static final long serialVersionUID = 1L;
        private final Class<T> type;
        private final TypeSerializer<T> serializer;

        Plain(Class<T> type, TypeSerializer<T> serializer) {
            this.type = type;
            this.serializer = serializer;
        }

        @Override
        public boolean isBasicType() {
            return false;
        }

        @Override
        public boolean isTupleType() {
            return false;
        }

        @Override
        public int getArity() {
            return 1;
        }

        @Override
        public int getTotalFields() {
            return 1;
        }

        @Override
        public Class<T> getTypeClass() {
            return type;
        }

        @Override
        public boolean isKeyType() {
            return false;
        }

        @Override
        public TypeSerializer<T> createSerializer(SerializerConfig config) {
            return serializer;
        }

        @Override
        public String toString() {
            return type.getSimpleName();
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Plain<?> plain && plain.type == type;
        }

        @Override
        public int hashCode() {
            return type.hashCode();
        }

        @Override
        public boolean canEqual(Object other) {
            return other instanceof Plain;
        }
    }
}
