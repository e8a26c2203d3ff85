package dealeriq.flink;

import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.util.Collector;

/** Records of a source topic, cut down to what its views need. */
final class EventDecoder extends AvroDecoder<Event> {
    private static final long serialVersionUID = 1L;

    private final TopicSpec topic;
    private transient int[] key;
    private transient int[] texts;
    private transient int[] numbers;
    private transient int[] coupons;
    private transient int id;
    private transient int time;

    EventDecoder(TopicSpec topic, Registry registry) {
        super(topic.schema, identity(topic), topic.deadLetters, registry);
        this.topic = topic;
    }

    private static List<String> identity(TopicSpec topic) {
        List<String> fields = new ArrayList<>(topic.key);
        fields.add(topic.id);
        return fields;
    }

    @Override
    void prepare(Schema schema) {
        key = positions(schema, topic.key);
        texts = positions(schema, topic.texts);
        numbers = positions(schema, topic.numbers);
        coupons = positions(schema, topic.coupons);
        id = schema.getField(topic.id).pos();
        time = schema.getField(topic.time).pos();
    }

    private static int[] positions(Schema schema, List<String> columns) {
        return columns.stream().mapToInt(c -> schema.getField(c).pos()).toArray();
    }

    @Override
    void decoded(ConsumerRecord<byte[], byte[]> record, GenericRecord value, Collector<Event> out) {
        out.collect(event(record, value));
    }

    @Override
    Event rejected(Outgoing deadLetter) {
        Event e = new Event();
        e.rejected = deadLetter;
        return e;
    }

    private Event event(ConsumerRecord<byte[], byte[]> record, GenericRecord value) {
        Event e = new Event();
        e.key = keyOf(value);
        e.id = Hash.of((String) value.get(id));
        e.time = (Long) value.get(time);
        e.ingest = record.timestamp();
        e.partition = record.partition();
        e.offset = record.offset();
        e.trace = trace(record);
        e.texts = new String[texts.length];
        for (int i = 0; i < texts.length; i++) {
            Object v = value.get(texts[i]);
            e.texts[i] = v == null ? null : v.toString();
        }
        e.numbers = new double[numbers.length];
        for (int i = 0; i < numbers.length; i++) {
            Object v = value.get(numbers[i]);
            e.numbers[i] = v == null ? Double.NaN : v instanceof Boolean b ? (b ? 1 : 0) : ((Number) v).doubleValue();
        }
        e.coupons = new int[coupons.length];
        for (int i = 0; i < coupons.length; i++) {
            Object v = value.get(coupons[i]);
            e.coupons[i] = v == null ? -1 : coupon(Hash.of(v.toString()), topic.precision);
        }
        return e;
    }

    private String keyOf(GenericRecord value) {
        if (key.length == 1) {
            return String.valueOf(value.get(key[0]));
        }
        StringBuilder b = new StringBuilder();
        for (int k : key) {
            b.append(value.get(k)).append('\u001f');
        }
        return b.toString();
    }

    /** HyperLogLog's coupon: the first `precision` bits of the hash are the bucket, the rank counts the zeros after them. */
    static int coupon(long hash, int precision) {
        int bucket = (int) (hash >>> (64 - precision));
        int rank = Math.min(Long.numberOfLeadingZeros(hash << precision), 64 - precision) + 1;
        return bucket << 6 | rank;
    }

    @Override
    public TypeInformation<Event> getProducedType() {
        return Types.EVENT;
    }
}
