"""The lake: every topic as a Delta table that knows its position. Layout, rows, writer and readers."""

from connectors.lake.current import refresh
from connectors.lake.errors import (
    LakeBrokenError,
    LakeBucketMissingError,
    LakeConflictError,
    LakeError,
    LakeFileMissingError,
    LakeLayoutError,
    LakeRefusedError,
    LakeReplacedError,
    LakeTableMissingError,
    LakeUnavailableError,
    translated,
)
from connectors.lake.layout import app_id, arrow_schema, default_topics, table_url
from connectors.lake.location import Lake, Root, lake_at, lake_of
from connectors.lake.objects import put_aside
from connectors.lake.reading import (
    LakeFile,
    active_files,
    columns,
    files,
    positions,
    relation,
    scan_sql,
    version,
)
from connectors.lake.rows import Rows
from connectors.lake.table import LakeTable, open_delta
from connectors.lake.upkeep import Compacted, compact, vacuum

__all__ = [
    "Compacted",
    "Lake",
    "LakeBrokenError",
    "LakeBucketMissingError",
    "LakeConflictError",
    "LakeError",
    "LakeFile",
    "LakeFileMissingError",
    "LakeLayoutError",
    "LakeRefusedError",
    "LakeReplacedError",
    "LakeTable",
    "LakeTableMissingError",
    "LakeUnavailableError",
    "Root",
    "Rows",
    "active_files",
    "app_id",
    "arrow_schema",
    "columns",
    "compact",
    "default_topics",
    "files",
    "lake_at",
    "lake_of",
    "open_delta",
    "positions",
    "put_aside",
    "refresh",
    "relation",
    "scan_sql",
    "table_url",
    "translated",
    "vacuum",
    "version",
]
