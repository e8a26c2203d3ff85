package dealeriq.flink;

import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.BasicTypeInfo;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.KafkaSinkBuilder;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * Scores to insights: each brings along what the rules of its model say of it, and the job keeps their state.
 *
 * <p>Insights go out in Kafka transactions that commit with a checkpoint, so whoever reads committed records sees each
 * once, through any crash. Dead letters may come again.
 */
public final class InsightJob {
    private InsightJob() {}

    /** Builds the graph and submits it to wherever this runs. */
    public static void main(String[] args) throws Exception {
        Jobs.run(args, InsightJob::build);
    }

    static void build(StreamExecutionEnvironment env, JsonNode spec) {
        Properties kafka = Jobs.properties(spec.get("kafka"));
        JsonNode scores = spec.get("scores");
        JsonNode insights = spec.get("insights");
        String source = scores.get("name").asText();
        KafkaSource<Reading> readings = KafkaSource.<Reading>builder()
                .setProperties(kafka)
                .setProperty("isolation.level", "read_committed")
                .setBootstrapServers(kafka.getProperty("bootstrap.servers"))
                .setTopics(source)
                .setGroupId(spec.get("group").asText())
                // Without a checkpoint there is no state either, and it is all scores that make it.
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setDeserializer(new ScoreDecoder(
                        scores.get("schema").toString(), scores.get("dead_letters").asText(), new Registry(spec.get("registry"))))
                .build();
        SingleOutputStreamOperator<Reading> valid = env
                .fromSource(readings, WatermarkStrategy.noWatermarks(), source, Types.READING)
                .uid("source-scores")
                .process(new DeadLetters<Reading>())
                .returns(Types.READING)
                .name("check " + source)
                .uid("check-scores");
        InsightEncoder encoder = new InsightEncoder(
                insights.get("name").asText(), source, insights.get("schema").toString(), insights.get("schema_id").asInt());
        Properties transactions = Jobs.producer(kafka);
        transactions.setProperty("transaction.timeout.ms", spec.get("transaction_timeout_ms").asText());
        valid.keyBy(Reading::key, BasicTypeInfo.STRING_TYPE_INFO)
                .process(new Rules(encoder, spec.get("keep_ms").asLong()))
                .returns(Types.OUTGOING)
                .name("rules")
                .uid("rules")
                .sinkTo(sink(transactions, new Outgoing.TopicSchema(insights.get("name").asText()))
                        .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                        // A name of its own for each transaction would stay in the broker's memory for a week.
                        .setTransactionNamingStrategy(TransactionNamingStrategy.POOLING)
                        .setTransactionalIdPrefix(spec.get("group").asText())
                        .build())
                .name("insights")
                .uid("insights");
        valid.getSideOutput(DeadLetters.TAG)
                .sinkTo(sink(Jobs.producer(kafka), new Outgoing.Schema())
                        .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                        .build())
                .name("dead letters")
                .uid("dead-letters");
    }

    private static KafkaSinkBuilder<Outgoing> sink(Properties producer, Outgoing.Schema schema) {
        return KafkaSink.<Outgoing>builder()
                .setBootstrapServers(producer.getProperty("bootstrap.servers"))
                .setKafkaProducerConfig(producer)
                .setRecordSerializer(schema);
    }
}
