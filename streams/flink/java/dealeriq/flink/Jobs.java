package dealeriq.flink;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** What the jobs share: how a specification becomes a running job, and how Kafka is spoken to. */
final class Jobs {
    private Jobs() {}

    /** Builds a job's graph from its specification. */
    interface Graph {
        void build(StreamExecutionEnvironment env, JsonNode spec);
    }

    /** Reads the specification from the file that the one argument names, or from standard input, and submits. */
    static void run(String[] args, Graph graph) throws Exception {
        byte[] text = args.length > 0 ? Files.readAllBytes(Path.of(args[0])) : System.in.readAllBytes();
        JsonNode spec = new ObjectMapper().readTree(text);
        Configuration configuration = new Configuration();
        spec.get("flink").properties().forEach(e -> configuration.setString(e.getKey(), e.getValue().asText()));
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(configuration);
        env.configure(configuration, Jobs.class.getClassLoader());
        graph.build(env, spec);
        JobClient job = env.executeAsync(spec.get("job").asText());
        System.out.println("job " + job.getJobID());
    }

    static Properties producer(Properties kafka) {
        Properties p = new Properties();
        p.putAll(kafka);
        p.putIfAbsent("linger.ms", "5");
        p.putIfAbsent("batch.size", "131072");
        p.putIfAbsent("compression.type", "lz4");
        p.putIfAbsent("max.request.size", "16777216"); // a dead letter may be as large as any record the broker took
        return p;
    }

    static Properties properties(JsonNode json) {
        Properties p = new Properties();
        json.properties().forEach(e -> p.setProperty(e.getKey(), e.getValue().asText()));
        return p;
    }
}
