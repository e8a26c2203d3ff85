package dealeriq.flink;

import java.util.List;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.avro.shaded.org.apache.avro.generic.GenericRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.util.Collector;

/** Scores to what each of their rules says. A challenger's scores say nothing to anyone. */
final class ScoreDecoder extends AvroDecoder<Reading> {
    private static final long serialVersionUID = 1L;

    /** Takes the fields of a score that the job reads, as a schema, and the topic of dead letters. */
    ScoreDecoder(String schema, String deadLetters, Registry registry) {
        super(schema, List.of("event_id", "dealer_id", "subject_id"), deadLetters, registry);
    }

    @Override
    void prepare(Schema schema) {}

    @Override
    void decoded(ConsumerRecord<byte[], byte[]> record, GenericRecord score, Collector<Reading> out) {
        if ((Boolean) score.get("shadow")) {
            return;
        }
        for (Object each : (List<?>) score.get("readings")) {
            GenericRecord said = (GenericRecord) each;
            Reading r = new Reading();
            r.texts[Reading.SCORE] = (String) score.get("event_id");
            r.texts[Reading.DEALER] = (String) score.get("dealer_id");
            r.texts[Reading.SUBJECT_TYPE] = (String) score.get("subject_type");
            r.texts[Reading.SUBJECT] = (String) score.get("subject_id");
            r.texts[Reading.MODEL] = (String) score.get("model");
            r.texts[Reading.MODEL_VERSION] = (String) score.get("model_version");
            r.texts[Reading.RULE] = (String) said.get("rule");
            r.texts[Reading.RULE_VERSION] = (String) said.get("rule_version");
            r.texts[Reading.INSIGHT] = (String) said.get("insight_id");
            r.texts[Reading.SEVERITY] = (String) said.get("severity");
            r.texts[Reading.TEXT] = (String) said.get("text");
            r.above = (Boolean) said.get("above");
            r.value = number(said.get("value"));
            r.threshold = (Double) said.get("threshold");
            r.hysteresis = (Double) said.get("hysteresis");
            r.coolDown = (Long) said.get("cool_down_ms");
            r.time = (Long) score.get("event_time");
            r.partition = record.partition();
            r.offset = record.offset();
            r.trace = trace(record);
            r.reasons = ((List<?>) said.get("reasons")).stream().map(ScoreDecoder::reason).toArray(Reading.Reason[]::new);
            out.collect(r);
        }
    }

    private static Reading.Reason reason(Object given) {
        GenericRecord r = (GenericRecord) given;
        return new Reading.Reason((String) r.get("input"), number(r.get("value")), number(r.get("usual")), number(r.get("by")));
    }

    private static double number(Object value) {
        return value == null ? Double.NaN : (Double) value;
    }

    @Override
    Reading rejected(Outgoing deadLetter) {
        Reading r = new Reading();
        r.rejected = deadLetter;
        return r;
    }

    @Override
    public TypeInformation<Reading> getProducedType() {
        return Types.READING;
    }
}
