package dealeriq.flink;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.avro.shaded.org.apache.avro.AvroRuntimeException;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericData;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericDatumReader;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.avro.shaded.org.apache.avro.io.BinaryDecoder;
import org.apache.flink.avro.shaded.org.apache.avro.io.DecoderFactory;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.Header;
import org.apache.flink.util.Collector;

/** Confluent-framed Avro to events. What cannot be read or is out of bounds becomes a dead letter and never an exception. */
final class EventDecoder implements KafkaRecordDeserializationSchema<Event> {
    private static final long serialVersionUID = 1L;
    private static final int FRAME = 5;

    private final TopicSpec topic;
    private final Registry registry;
    private transient Map<Integer, GenericDatumReader<GenericRecord>> readers;
    private transient Schema schema;
    private transient Bounds bounds;
    private transient BinaryDecoder decoder;
    private transient GenericRecord reused;
    private transient int[] key;
    private transient int[] texts;
    private transient int[] numbers;
    private transient int[] coupons;
    private transient int id;
    private transient int time;

    EventDecoder(TopicSpec topic, Registry registry) {
        this.topic = topic;
        this.registry = registry;
    }

    private void prepare() {
        schema = new Schema.Parser().setValidateDefaults(false).parse(topic.schema);
        for (Schema.Field field : schema.getFields()) {
            asJavaString(field.schema());
        }
        key = positions(topic.key);
        texts = positions(topic.texts);
        numbers = positions(topic.numbers);
        coupons = positions(topic.coupons);
        id = schema.getField(topic.id).pos();
        time = schema.getField(topic.time).pos();
        List<String> identity = new ArrayList<>(topic.key);
        identity.add(topic.id);
        bounds = new Bounds(schema, identity);
        readers = new HashMap<>();
    }

    private static void asJavaString(Schema type) {
        if (type.getType() == Schema.Type.STRING) {
            GenericData.setStringType(type, GenericData.StringType.String);
        } else if (type.getType() == Schema.Type.UNION) {
            type.getTypes().forEach(EventDecoder::asJavaString);
        }
    }

    private int[] positions(List<String> columns) {
        return columns.stream().mapToInt(c -> schema.getField(c).pos()).toArray();
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Event> out) throws IOException {
        if (schema == null) {
            prepare();
        }
        String error;
        String stage = "decode";
        try {
            GenericRecord value = read(record.value());
            stage = "validate";
            error = bounds.problem(value);
            if (error == null) {
                out.collect(event(record, value));
                return;
            }
        } catch (Registry.UnknownSchema | Poison e) {
            error = e.getMessage();
        } catch (RegistryDown e) {
            throw e;
        } catch (IOException e) {
            error = "not Avro of its schema: " + e;
        } catch (AvroRuntimeException | IndexOutOfBoundsException | ClassCastException | NegativeArraySizeException e) {
            reused = null; // half filled
            error = "not Avro of its schema: " + e;
        }
        Event rejected = new Event();
        rejected.rejected = deadLetter(record, error, stage);
        out.collect(rejected);
    }

    /** Asking again is the remedy, never a dead letter. */
    private static final class RegistryDown extends IOException {
        private static final long serialVersionUID = 1L;

        RegistryDown(IOException cause) {
            super(cause.getMessage(), cause);
        }
    }

    private static final class Poison extends Exception {
        private static final long serialVersionUID = 1L;

        Poison(String message) {
            super(message);
        }
    }

    private GenericRecord read(byte[] value) throws IOException, Poison, Registry.UnknownSchema {
        if (value == null) {
            throw new Poison("the value is null, but this topic has no deletions");
        }
        if (value.length < FRAME || value[0] != 0) {
            throw new Poison("the value does not start with the Confluent frame (a zero byte and a schema id)");
        }
        int schemaId = ByteBuffer.wrap(value, 1, 4).getInt();
        GenericDatumReader<GenericRecord> reader = readers.get(schemaId);
        if (reader == null) {
            Schema written;
            try {
                written = registry.schema(schemaId);
            } catch (IOException e) {
                throw new RegistryDown(e);
            }
            reader = new GenericDatumReader<>(written, schema);
            readers.put(schemaId, reader);
        }
        decoder = DecoderFactory.get().binaryDecoder(value, FRAME, value.length - FRAME, decoder);
        reused = reader.read(reused, decoder);
        if (!decoder.isEnd()) {
            throw new Poison("bytes are left over after the record");
        }
        return reused;
    }

    private Event event(ConsumerRecord<byte[], byte[]> record, GenericRecord value) {
        Event e = new Event();
        e.key = keyOf(value);
        e.id = Hash.of((String) value.get(id));
        e.time = (Long) value.get(time);
        e.ingest = record.timestamp();
        e.partition = record.partition();
        e.offset = record.offset();
        Header trace = record.headers().lastHeader(Envelope.TRACE);
        e.trace = trace == null || !Envelope.isTrace(trace.value()) ? null : trace.value();
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

    private Outgoing deadLetter(ConsumerRecord<byte[], byte[]> record, String error, String stage) {
        Outgoing out = new Outgoing();
        out.topic = topic.deadLetters;
        out.key = record.key();
        out.value = record.value();
        for (Header header : record.headers()) {
            if (!header.key().startsWith("dlq_")) { // a redriven record carries those of its last failure
                out.header(header.key(), header.value());
            }
        }
        out.header("dlq_error", error.length() <= 4_000 ? error : error.substring(0, 4_000));
        out.header("dlq_topic", record.topic());
        out.header("dlq_partition", Integer.toString(record.partition()));
        out.header("dlq_offset", Long.toString(record.offset()));
        out.header("dlq_stage", "flink." + stage);
        out.header("dlq_time", Long.toString(System.currentTimeMillis()));
        return out;
    }

    @Override
    public TypeInformation<Event> getProducedType() {
        return Types.EVENT;
    }
}
