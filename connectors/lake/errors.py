"""What can be wrong with the lake: a class for each remedy, and where foreign errors become them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import DealerIQError

__all__ = [
    "LakeBrokenError",
    "LakeBucketMissingError",
    "LakeConflictError",
    "LakeError",
    "LakeFileMissingError",
    "LakeLayoutError",
    "LakeRefusedError",
    "LakeReplacedError",
    "LakeTableMissingError",
    "LakeUnavailableError",
    "translated",
]


class LakeError(DealerIQError):
    """Anything that is wrong with the lake; what no class below describes."""

    remedy = "See docs/lake.md; what was committed is kept, and the log still holds the rest."


class LakeUnavailableError(LakeError):
    """The store under the lake does not answer. Nothing is lost: try again."""

    remedy = "Check lake.url and lake.s3_endpoint, and that the store is up; the lake view waits and goes on."
    exit_code = 4


class LakeRefusedError(LakeError):
    """The store under the lake answers, and refuses: credentials or rights."""

    remedy = "Check lake.s3_access_key, lake.s3_secret_key and lake.s3_region, or the rights on the folder."
    exit_code = 3


class LakeBucketMissingError(LakeError):
    """The bucket that lake.url names is not there."""

    remedy = "Make the bucket, or name another in lake.url; the lake view makes everything below it."
    exit_code = 5


class LakeTableMissingError(LakeError):
    """A topic has no table (or not this version of it)."""

    remedy = "The lake view makes a topic's table with its first record; see `dealeriq lake ls`."
    exit_code = 5


class LakeLayoutError(LakeError):
    """A table of another layout, or of a Delta version that this release does not know. Nothing is written."""

    remedy = "Point lake.url at another root, or fill the table anew: `dealeriq lake rebuild TOPIC`."
    exit_code = 5


class LakeFileMissingError(LakeError):
    """A table's log names a Parquet file that is not there."""

    remedy = "Restore the file from a copy, or fill the table again: `dealeriq lake rebuild TOPIC`."
    exit_code = 7


class LakeBrokenError(LakeError):
    """A table's log cannot be read: a commit or a checkpoint was cut off or overwritten."""

    remedy = "Restore the named file from a copy, or fill the table again: `dealeriq lake rebuild TOPIC`."
    exit_code = 7


class LakeConflictError(LakeError):
    """Another writer moved a table's positions in the meantime. Nothing of this commit was written."""

    remedy = "Read the table's positions again and append what they do not cover; run one lake view."
    exit_code = 4


class LakeReplacedError(LakeError):
    """A table was removed or filled anew while it was written to. Nothing was written to the new one."""

    remedy = "Start the lake view again: it goes on from the new table's own position."
    exit_code = 7


_REFUSED = re.compile(
    r"\b40[13]\b|Forbidden|Unauthorized|Unauthenticated|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|Permission denied|PermissionDenied|CredentialsNotLoaded",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"error sending request|connect error|connection refused|connection reset|timed? ?out|dns error|retries"
    r"|\b50[0234]\b|SlowDown|ServiceUnavailable|No space left|Too many open files|broken pipe",
    re.IGNORECASE,
)
_BUCKET = re.compile(r"NoSuchBucket|bucket does not exist", re.IGNORECASE)
_FOREIGN = re.compile(r"unsupported|is not supported|table features must", re.IGNORECASE)
_MISSING_TABLE = re.compile(
    r"not a delta table|no files in log segment|invalid version|not the same as the specified", re.IGNORECASE
)
_MISSING_FILE = re.compile(r"not found|No such file|No files found|\b404\b|NoSuchKey", re.IGNORECASE)
_CONFLICT = re.compile(r"concurrent|already exists|conflict|maximum number of attempts", re.IGNORECASE)
_BROKEN = re.compile(r"json|checkpoint|log segment|parse|EOF|Parquet error|deserializ|metadata", re.IGNORECASE)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what deltalake, Arrow and DuckDB raise into a LakeError that names `where`."""
    try:
        yield
    except DealerIQError:
        raise
    except Exception as error:
        found = _class_of(error)
        if found is None:
            raise
        raise found(f"{where}: {_first_sentence(error)}") from error


def _class_of(error: Exception) -> type[LakeError] | None:
    from deltalake.exceptions import DeltaError, TableNotFoundError

    if _BUCKET.search(str(error)):
        return LakeBucketMissingError
    text = re.sub(r"\S*/\S*", "", str(error))  # names of files hold any digits
    if type(error).__name__ in ("BinderException", "ParserException", "CatalogException"):
        return None  # a query of ours is wrong, not the lake
    foreign = isinstance(error, DeltaError | OSError) or type(error).__module__.startswith(
        ("deltalake", "_internal", "_duckdb", "duckdb", "pyarrow")
    )
    if not foreign:
        return None
    # Order matters: a refusal is often wrapped in words about retries or files.
    for pattern, kind in (
        (_REFUSED, LakeRefusedError),
        (_AWAY, LakeUnavailableError),
        (_FOREIGN, LakeLayoutError),
    ):
        if pattern.search(text):
            return kind
    if isinstance(error, TableNotFoundError) or _MISSING_TABLE.search(text):
        return LakeTableMissingError
    if type(error).__name__ == "CommitFailedError" or _CONFLICT.search(text):
        return LakeConflictError
    if _MISSING_FILE.search(text):
        return LakeFileMissingError
    if _BROKEN.search(text):
        return LakeBrokenError
    return LakeError


def _first_sentence(error: Exception) -> str:
    plain = re.sub(r"\x1b\[[\d;]*m", "", str(error)).replace("\N{DOWNWARDS ARROW WITH TIP RIGHTWARDS}", "-")
    plain = re.split(r"\s+0: (?=<unknown>|\w+::|std)", plain)[0]  # a stack of Rust functions
    text = " ".join(plain.split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
