package dealeriq.flink;

import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.BasicTypeInfo;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * Topics to tiles: decode and check (dead letters leave here), deduplicate by id, fold, upsert.
 *
 * <p>The specification that `streams/flink/job.py` compiles from the feature plan and the topic catalogue comes as JSON
 * on standard input, because it may hold passwords; or in a file that the one argument names.
 */
public final class TileJob {
    private TileJob() {}

    /** Builds the graph and submits it to wherever this runs. */
    public static void main(String[] args) throws Exception {
        Jobs.run(args, TileJob::build);
    }

    static void build(StreamExecutionEnvironment env, JsonNode spec) {
        Properties kafka = Jobs.properties(spec.get("kafka"));
        JsonNode registry = spec.get("registry");
        long flush = spec.get("flush_ms").asLong();
        long catchUp = spec.get("catch_up_ms").asLong();
        int most = spec.get("most_tiles").asInt();
        int rate = spec.get("tiles_per_s").asInt();
        long horizon = spec.get("dedupe_horizon_ms").asLong();
        KafkaSink<Outgoing> sink = KafkaSink.<Outgoing>builder()
                .setBootstrapServers(kafka.getProperty("bootstrap.servers"))
                .setKafkaProducerConfig(Jobs.producer(kafka))
                .setRecordSerializer(new Outgoing.Schema())
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .build();
        List<ViewSpec> views = new ArrayList<>();
        DataStream<Partial> partials = null;
        DataStream<Outgoing> deadLetters = null;
        for (JsonNode json : spec.get("topics")) {
            TopicSpec topic = new TopicSpec(json, (char) ('A' + views.size()));
            views.addAll(topic.views);
            KafkaSource<Event> source = KafkaSource.<Event>builder()
                    .setProperties(kafka)
                    // Of a transaction that was aborted (an import that was broken off) nothing may count.
                    .setProperty("isolation.level", "read_committed")
                    .setBootstrapServers(kafka.getProperty("bootstrap.servers"))
                    .setTopics(topic.name)
                    .setGroupId(spec.get("group").asText())
                    // Without a checkpoint there is no state either: tiles are right only if every event is folded.
                    .setStartingOffsets(OffsetsInitializer.earliest())
                    .setDeserializer(new EventDecoder(topic, new Registry(registry)))
                    .build();
            SingleOutputStreamOperator<Event> valid = env
                    .fromSource(source, WatermarkStrategy.noWatermarks(), topic.name, Types.EVENT)
                    .uid("source-" + topic.name)
                    .process(new DeadLetters<Event>())
                    .returns(Types.EVENT)
                    .name("check " + topic.name)
                    .uid("check-" + topic.name);
            DataStream<Outgoing> rejected = valid.getSideOutput(DeadLetters.TAG);
            deadLetters = deadLetters == null ? rejected : deadLetters.union(rejected);
            DataStream<Partial> folded = valid
                    .keyBy(e -> e.key, BasicTypeInfo.STRING_TYPE_INFO)
                    .transform("deduplicate " + topic.name, Types.PARTIAL,
                            new Deduplicate(topic, horizon, flush, catchUp, most))
                    .uid("deduplicate-" + topic.name);
            partials = partials == null ? folded : partials.union(folded);
        }
        partials.keyBy(p -> p.key, BasicTypeInfo.STRING_TYPE_INFO)
                .transform("fold tiles", Types.OUTGOING, new Fold(views.toArray(new ViewSpec[0]), flush, catchUp, most, rate))
                .uid("fold")
                .sinkTo(sink)
                .name("tiles")
                .uid("tiles");
        deadLetters.sinkTo(sink).name("dead letters").uid("dead-letters");
    }
}
