package dealeriq.flink;

import java.io.IOException;
import java.io.Serializable;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.avro.shaded.org.apache.avro.Schema;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Schemas by id. An id that the registry does not know is an answer; a registry that cannot answer is asked again. */
final class Registry implements Serializable {
    private static final long serialVersionUID = 1L;
    private static final Logger LOG = LoggerFactory.getLogger(Registry.class);

    /** The registry answered that no schema has this id. */
    static final class UnknownSchema extends Exception {
        private static final long serialVersionUID = 1L;

        UnknownSchema(int id) {
            super("no schema has the id " + id + " in the registry");
        }
    }

    private final String url;
    private final String authorization;
    private final String authorities;
    private final String certificate;
    private final String key;
    private final int patienceS;
    private transient HttpClient client;
    private transient Map<Integer, Schema> schemas;

    /**
     * Takes url, username, password, the PEM texts ca, certificate and key, and patience_s, after which the job fails
     * and starts again; only the url must be there.
     */
    Registry(JsonNode settings) {
        String given = settings.get("url").asText();
        url = given.endsWith("/") ? given.substring(0, given.length() - 1) : given;
        String who = settings.path("username").asText("") + ":" + settings.path("password").asText("");
        authorization = who.startsWith(":") ? null
                : "Basic " + Base64.getEncoder().encodeToString(who.getBytes(StandardCharsets.UTF_8));
        authorities = settings.path("ca").asText("");
        certificate = settings.path("certificate").asText("");
        key = settings.path("key").asText("");
        patienceS = settings.path("patience_s").asInt(30);
    }

    /**
     * Fetches once a subtask.
     *
     * @throws IOException if the registry did not answer for its time: the job's restart strategy goes on asking
     */
    Schema schema(int id) throws UnknownSchema, IOException {
        if (schemas == null) {
            HttpClient.Builder builder = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5));
            if (url.startsWith("https:")) {
                builder.sslContext(Tls.context(authorities, certificate, key));
            }
            client = builder.build();
            schemas = new HashMap<>();
        }
        Schema known = schemas.get(id);
        if (known == null) {
            known = fetch(id);
            schemas.put(id, known);
        }
        return known;
    }

    private Schema fetch(int id) throws UnknownSchema, IOException {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + "/schemas/ids/" + id)).timeout(Duration.ofSeconds(10));
        if (authorization != null) {
            request.header("Authorization", authorization);
        }
        long deadline = System.nanoTime() + Duration.ofSeconds(patienceS).toNanos();
        for (long pause = 100;; pause = Math.min(2 * pause, 3_000)) {
            String reason;
            try {
                HttpResponse<String> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofString());
                if (answer.statusCode() == 404) {
                    throw new UnknownSchema(id);
                }
                if (answer.statusCode() == 200) {
                    String text = new ObjectMapper().readTree(answer.body()).get("schema").asText();
                    return new Schema.Parser().setValidateDefaults(false).parse(text);
                }
                reason = "it answered " + answer.statusCode();
            } catch (IOException e) {
                reason = String.valueOf(e);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new IOException("interrupted while asking the schema registry for id " + id, e);
            }
            if (System.nanoTime() > deadline) {
                throw new IOException("the schema registry at " + url + " gave no schema " + id + " for " + patienceS
                        + " s: " + reason);
            }
            LOG.warn("The schema registry at {} gave no schema {} ({}); asking again in {} ms", url, id, reason, pause);
            try {
                Thread.sleep(pause);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new IOException("interrupted while waiting for the schema registry", e);
            }
        }
    }
}
