"""What can go wrong between us and a Flink cluster, a class for each remedy."""

from schemas.errors import DealerIQError

__all__ = ["FlinkRefusedError", "FlinkUnavailableError", "JobBuildError"]


class FlinkUnavailableError(DealerIQError):
    """The cluster's REST interface does not answer. Nothing is lost: its jobs resume from their checkpoints."""

    remedy = "Check flink.url and that the JobManager is up, then try again."
    exit_code = 4


class FlinkRefusedError(DealerIQError):
    """The cluster answered, and would not do what was asked."""

    remedy = "Read the reason above; the JobManager's log has the whole of it."
    exit_code = 3


class JobBuildError(DealerIQError):
    """The Java sources of the job do not compile, or there is nothing to compile them with."""

    remedy = (
        "Run `./run` again to restore the jars; after a change in streams/flink/java, mend what is named above."
    )
    exit_code = 5
