"""An S3 server of its own for tests: S3Proxy over a folder. It checks the signature of every request."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from connectors.lake import Lake, lake_at
from connectors.settings import LakeSettings
from dealeriq.runtime.jars import ensure
from dealeriq.runtime.java import java

__all__ = ["ACCESS_KEY", "BUCKET", "SECRET_KEY", "S3Server"]

BUCKET = "lake-of-tests"
ACCESS_KEY, SECRET_KEY = "the-access-key", "the-secret-key"
_PATIENCE_S = 120.0
_LOGGING = """<configuration>
  <appender name="E" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target><encoder><pattern>%level %logger{0}: %msg%n</pattern></encoder>
  </appender>
  <root level="ERROR"><appender-ref ref="E"/></root>
</configuration>"""


class S3Server:
    """The server on a free port that stays the same when it is stopped and started again.

    The objects lie below `folder`; `BUCKET` is there from the start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "objects"
        (self.folder / BUCKET).mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        properties, logging = folder / "s3proxy.properties", folder / "logback.xml"
        logging.write_text(_LOGGING)
        options = {
            "s3proxy.endpoint": self.endpoint,
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": ACCESS_KEY,
            "s3proxy.credential": SECRET_KEY,
            "jclouds.provider": "filesystem-nio2",
            "jclouds.filesystem.basedir": str(self.folder),
        }
        properties.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
        classpath = ":".join(str(jar) for jar in ensure("s3"))
        self._command = [
            java(), "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Dlogback.configurationFile={logging}", "-cp", classpath,
            "org.gaul.s3proxy.Main", "--properties", str(properties),
        ]  # fmt: skip
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._child = subprocess.Popen(self._command)
        deadline = time.monotonic() + _PATIENCE_S
        while not self._answers():
            assert self._child.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it; what was stored stays."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(60)
            self._child = None

    def variables(self, prefix: str, secret: str = SECRET_KEY) -> dict[str, str]:
        """Return the environment that points our processes at a lake below `prefix`."""
        return {
            "DEALERIQ_LAKE__URL": f"s3://{BUCKET}/{prefix}",
            "DEALERIQ_LAKE__S3_ENDPOINT": self.endpoint,
            "DEALERIQ_LAKE__S3_ACCESS_KEY": ACCESS_KEY,
            "DEALERIQ_LAKE__S3_SECRET_KEY": secret,
        }

    def lake(self, prefix: str, secret: str = SECRET_KEY) -> Lake:
        """Return the lake below `prefix`."""
        settings = LakeSettings(
            url=f"s3://{BUCKET}/{prefix}",
            s3_endpoint=self.endpoint,
            s3_access_key=ACCESS_KEY,
            s3_secret_key=secret,
        )
        return lake_at(settings, Path("unused"))

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint}/{BUCKET}", timeout=2)
        except urllib.error.HTTPError as answer:
            return answer.code == 403  # an unsigned request
        except OSError:
            return False
        return True
