package dealeriq.flink;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.Serializable;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericData;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericDatumWriter;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.avro.shaded.org.apache.avro.io.BinaryEncoder;
import org.apache.flink.avro.shaded.org.apache.avro.io.EncoderFactory;

/** Writes an insight as Confluent-framed Avro with its envelope; few are, so the plain way will do. */
final class InsightEncoder implements Serializable {
    private static final long serialVersionUID = 1L;

    private final String topic;
    private final String source;
    private final String schemaText;
    private final int schemaId;
    private transient Schema schema;
    private transient GenericDatumWriter<GenericRecord> writer;
    private transient Envelope envelope;

    /** `source` is the topic that scores come from. */
    InsightEncoder(String topic, String source, String schemaText, int schemaId) {
        this.topic = topic;
        this.source = source;
        this.schemaText = schemaText;
        this.schemaId = schemaId;
    }

    Outgoing encode(Reading r) throws IOException {
        if (schema == null) {
            schema = new Schema.Parser().setValidateDefaults(false).parse(schemaText);
            writer = new GenericDatumWriter<>(schema);
            envelope = new Envelope(topic);
        }
        Outgoing out = new Outgoing();
        out.topic = topic;
        out.key = bytes(r.texts[Reading.DEALER]);
        out.value = value(r);
        envelope.put(out, bytes(r.texts[Reading.INSIGHT]), bytes(r.texts[Reading.SUBJECT]), r.time, r.trace);
        return out;
    }

    private byte[] value(Reading r) throws IOException {
        GenericRecord insight = new GenericData.Record(schema);
        insight.put("event_id", r.texts[Reading.INSIGHT]);
        insight.put("dealer_id", r.texts[Reading.DEALER]);
        insight.put("rule", r.texts[Reading.RULE]);
        insight.put("rule_version", r.texts[Reading.RULE_VERSION]);
        insight.put("severity", r.texts[Reading.SEVERITY]);
        insight.put("text", r.texts[Reading.TEXT]);
        insight.put("value", r.value);
        insight.put("threshold", r.threshold);
        insight.put("subject_type", r.texts[Reading.SUBJECT_TYPE]);
        insight.put("subject_id", r.texts[Reading.SUBJECT]);
        insight.put("model", r.texts[Reading.MODEL]);
        insight.put("model_version", r.texts[Reading.MODEL_VERSION]);
        insight.put("reasons", reasons(r));
        insight.put("score_position", source + ":" + r.partition + ":" + r.offset);
        insight.put("cause_id", r.texts[Reading.SCORE]);
        insight.put("event_time", r.time);
        ByteArrayOutputStream out = new ByteArrayOutputStream(512);
        out.write(0);
        out.writeBytes(ByteBuffer.allocate(4).putInt(schemaId).array());
        BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(out, null);
        writer.write(insight, encoder);
        encoder.flush();
        return out.toByteArray();
    }

    private List<GenericRecord> reasons(Reading r) {
        Schema kind = schema.getField("reasons").schema().getElementType();
        List<GenericRecord> found = new ArrayList<>();
        for (Reading.Reason each : r.reasons) {
            GenericRecord reason = new GenericData.Record(kind);
            reason.put("input", each.input());
            reason.put("value", Double.isNaN(each.value()) ? null : each.value());
            reason.put("usual", Double.isNaN(each.usual()) ? null : each.usual());
            reason.put("by", each.by());
            found.add(reason);
        }
        return found;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
