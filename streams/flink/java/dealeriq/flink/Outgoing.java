package dealeriq.flink;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetIdentifier;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacetProvider;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.Header;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.internals.RecordHeader;

/** A record ready for Kafka: a tile, or a dead letter with its original bytes. */
final class Outgoing {
    static final int ANY = -1;

    String topic;
    /** Hash that decides the partition, or ANY: the key's. */
    int place = ANY;
    byte[] key;
    byte[] value;
    List<String> headerNames = List.of();
    List<byte[]> headerValues = List.of();

    void header(String name, byte[] value) {
        if (headerNames.isEmpty()) {
            headerNames = new ArrayList<>();
            headerValues = new ArrayList<>();
        }
        headerNames.add(name);
        headerValues.add(value);
    }

    void header(String name, String value) {
        header(name, value.getBytes(StandardCharsets.UTF_8));
    }

    static class Schema implements KafkaRecordSerializationSchema<Outgoing> {
        private static final long serialVersionUID = 1L;

        @Override
        public ProducerRecord<byte[], byte[]> serialize(Outgoing record, KafkaSinkContext context, Long timestamp) {
            Integer partition = null;
            if (record.place != ANY) {
                partition = record.place % context.getPartitionsForTopic(record.topic).length;
            }
            List<Header> headers = new ArrayList<>(record.headerNames.size());
            for (int i = 0; i < record.headerNames.size(); i++) {
                headers.add(new RecordHeader(record.headerNames.get(i), record.headerValues.get(i)));
            }
            return new ProducerRecord<>(record.topic, partition, null, record.key, record.value, headers);
        }
    }

    /** Names the one topic that all records go to: whoever pools transactions looks for open ones there. */
    static final class TopicSchema extends Schema implements KafkaDatasetFacetProvider {
        private static final long serialVersionUID = 1L;
        private final String topic;

        TopicSchema(String topic) {
            this.topic = topic;
        }

        @Override
        public Optional<KafkaDatasetFacet> getKafkaDatasetFacet() {
            return Optional.of(new DefaultKafkaDatasetFacet(DefaultKafkaDatasetIdentifier.ofTopics(List.of(topic))));
        }
    }
}
