"""Settings: from file and environment, each with its source, secrets masked."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from dealeriq.settings import AgentSettings, SettingsError, TextSettings, load


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "dealeriq.toml"
    file.write_text('[kafka]\nbootstrap = "file:1"\n[http]\nport = 9000\n')
    environment = {"DEALERIQ_CONFIG": str(file), "DEALERIQ_KAFKA__BOOTSTRAP": "environment:1"}
    settings = load(environment)
    assert settings.kafka.bootstrap == "environment:1"
    assert settings.http.port == 9000
    sources = {value.name: value.source for value in settings.values(environment)}
    assert sources["kafka.bootstrap"] == "environment DEALERIQ_KAFKA__BOOTSTRAP"
    assert sources["http.port"] == f"file {file}"
    assert sources["redis.url"] == "default"


def test_every_setting_has_a_description() -> None:
    assert [value.name for value in load({}).values({}) if not value.description] == []


def test_every_option_of_agents_and_encoder_is_a_setting() -> None:
    names = {value.name for value in load({}).values({})}
    assert {f"agents.{name}" for name in AgentSettings.model_fields} <= names
    assert {f"text.{name}" for name in TextSettings.model_fields} <= names


def test_secrets_are_masked() -> None:
    settings = load(
        {"DEALERIQ_KAFKA__SASL_PASSWORD": "hunter2", "DEALERIQ_REDIS__URL": "redis://u:hunter2@h:1/0"}
    )
    shown = " ".join(value.shown for value in settings.values({}))
    assert "hunter2" not in shown
    assert "redis://********@h:1/0" in shown


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"DEALERIQ_HTTP__PORT": "many"}, r"http.port \(DEALERIQ_HTTP__PORT\).*came 'many'"),
        ({"DEALERIQ_AGENTS__BATCH_SIZE": "0"}, r"agents.batch_size \(DEALERIQ_AGENTS__BATCH_SIZE\)"),
        ({"DEALERIQ_TEXT__THREADS": "x"}, r"text.threads \(DEALERIQ_TEXT__THREADS\).*came 'x'"),
        ({"DEALERIQ_KAFKA__PARTITIONS": '{"order": 3}'}, "no topic is called 'order'; did you mean orders"),
        ({"DEALERIQ_KAFKA__PARTITIONS": '{"orders": 0}'}, "orders is given 0 partitions"),
        ({"DEALERIQ_FEATURES__PROJECT": "a b"}, r"features.project \(DEALERIQ_FEATURES__PROJECT\)"),
        ({"DEALERIQ_KAFKA__BOOTSTRP": "x"}, "DEALERIQ_KAFKA__BOOTSTRP names no setting"),
        ({"DEALERIQ_CONFIG": "nowhere.toml"}, "nowhere.toml .* does not exist"),
    ],
)
def test_a_wrong_setting_is_one_sentence(environment: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        load(environment)
    assert "\n" not in str(caught.value)


def test_a_wrong_password_is_not_told() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"DEALERIQ_REDIS__TIMEOUT_S": "-1", "DEALERIQ_REDIS__PASSWORD": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_child_gets_the_same_settings() -> None:
    parent = load(
        {
            "DEALERIQ_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "DEALERIQ_KAFKA__SASL_PASSWORD": "s p a c e",
            "DEALERIQ_FLINK__DEDUPLICATE": "false",
            "DEALERIQ_DEMO__ORDERS": "5",
            "DEALERIQ_AGENTS__BATCH_SIZE": "17",
            "DEALERIQ_TEXT__MODEL": "/models/my encoder.onnx",
            "DEALERIQ_KAFKA__PARTITIONS": '{"orders": 24}',
            "DEALERIQ_DATA_DIR": "/somewhere else",
        }
    )
    assert load(parent.environment()) == parent


def test_security_reaches_every_kafka_client() -> None:
    kafka = load({}).kafka
    kafka.bootstrap = "broker:9093"
    kafka.security_protocol = "SASL_SSL"
    kafka.sasl_mechanism = "SCRAM-SHA-512"
    kafka.sasl_username, kafka.sasl_password = "dealer", SecretStr('quo"te')
    for config, password in (
        (kafka.client_config(), 'quo"te'),
        (kafka.flink_properties(), r'password="quo\"te"'),
    ):
        values = [str(value) for value in config.values()]
        assert "SASL_SSL" in values
        assert "SCRAM-SHA-512" in values
        assert any(password in value for value in values)
