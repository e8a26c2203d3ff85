package dealeriq.flink;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
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

/**
 * Confluent-framed Avro to records of the job. What cannot be read or is out of bounds becomes a dead letter and never an
 * exception; a registry that is away is one, so that the job asks again.
 */
abstract class AvroDecoder<T> implements KafkaRecordDeserializationSchema<T> {
    private static final long serialVersionUID = 1L;
    private static final int FRAME = 5;

    private final String schemaText;
    private final List<String> identity;
    private final String deadLetters;
    private final Registry registry;
    private transient Map<Integer, GenericDatumReader<GenericRecord>> readers;
    private transient Schema schema;
    private transient Bounds bounds;
    private transient BinaryDecoder decoder;
    private transient GenericRecord reused;

    /** Takes the reader's schema, the fields that must not be empty, and the topic of dead letters. */
    AvroDecoder(String schemaText, List<String> identity, String deadLetters, Registry registry) {
        this.schemaText = schemaText;
        this.identity = identity;
        this.deadLetters = deadLetters;
        this.registry = registry;
    }

    /** Called once in each task, before the first record. */
    abstract void prepare(Schema schema);

    /** Hands on what a record within bounds says. The record is used again for the next one. */
    abstract void decoded(ConsumerRecord<byte[], byte[]> record, GenericRecord value, Collector<T> out);

    /** Wraps a dead letter, so that it leaves the stream beside the source. */
    abstract T rejected(Outgoing deadLetter);

    private static void asJavaString(Schema type) {
        if (type.getType() == Schema.Type.STRING) {
            GenericData.setStringType(type, GenericData.StringType.String);
        } else if (type.getType() == Schema.Type.UNION) {
            type.getTypes().forEach(AvroDecoder::asJavaString);
        } else if (type.getType() == Schema.Type.ARRAY) {
            asJavaString(type.getElementType());
        } else if (type.getType() == Schema.Type.RECORD) {
            type.getFields().forEach(field -> asJavaString(field.schema()));
        }
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<T> out) throws IOException {
        if (schema == null) {
            Schema parsed = new Schema.Parser().setValidateDefaults(false).parse(schemaText);
            asJavaString(parsed);
            bounds = new Bounds(parsed, identity);
            readers = new HashMap<>();
            prepare(parsed);
            schema = parsed;
        }
        String error;
        String stage = "decode";
        try {
            GenericRecord value = read(record.value());
            stage = "validate";
            error = bounds.problem(value);
            if (error == null) {
                decoded(record, value, out);
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
        out.collect(rejected(deadLetter(record, error, stage)));
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

    private Outgoing deadLetter(ConsumerRecord<byte[], byte[]> record, String error, String stage) {
        Outgoing out = new Outgoing();
        out.topic = deadLetters;
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

    /** The record's trace, null where it has none that can be passed on. */
    static byte[] trace(ConsumerRecord<byte[], byte[]> record) {
        Header trace = record.headers().lastHeader(Envelope.TRACE);
        return trace == null || !Envelope.isTrace(trace.value()) ? null : trace.value();
    }
}
