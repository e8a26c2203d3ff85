"""The files of a table as files, in a folder or an object store: to name a broken one, to put a table aside."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from connectors.lake.errors import LakeTableMissingError, translated
from connectors.lake.layout import table_url
from connectors.lake.location import Lake, Root, lake_of

__all__ = ["put_aside", "unreadable_commit"]

_LOOKED_AT = 200  # newest commits that are read to find a broken one


def unreadable_commit(root: Root, topic_name: str, *, current: bool = False) -> str | None:
    """Return the address of the newest commit that is not whole; None where each of the newest is."""
    lake = lake_of(root)
    url = f"{table_url(lake.url, topic_name, current=current)}/_delta_log"
    store, path = _opened(lake, url)
    from pyarrow.fs import FileSelector

    names = sorted(each.path for each in store.get_file_info(FileSelector(path)) if each.path.endswith(".json"))
    for name in reversed(names[-_LOOKED_AT:]):
        with store.open_input_stream(name) as stream:
            text = stream.read()
        try:
            whole = bool(text) and all(json.loads(line) for line in text.splitlines())
        except ValueError:
            whole = False
        if not whole:
            return f"{url}/{name.rpartition('/')[2]}"
    return None


def put_aside(root: Root, topic_name: str) -> str:
    """Move a topic's table to `<root>/aside/<topic>-<UTC time>` and drop its current table; return where it is.

    A lake view that writes to it sees that it went, ends, and fills it anew when it is started again. In an
    object store the table is copied and then removed. Raises LakeTableMissingError and what the store raises.
    """
    lake = lake_of(root)
    url = table_url(lake.url, topic_name)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = f"{lake.url.rstrip('/')}/aside/{topic_name}-{stamp}"
    with translated(url):
        from pyarrow.fs import FileType, copy_files

        store, path = _opened(lake, url)
        if store.get_file_info(path).type != FileType.Directory:
            raise LakeTableMissingError(f"{url} is not there")
        _, current = _opened(lake, table_url(lake.url, topic_name, current=True))
        if store.get_file_info(current).type == FileType.Directory:
            store.delete_dir(current)
        _, target = _opened(lake, aside)
        if lake.is_local:
            store.create_dir(target.rpartition("/")[0], recursive=True)
            store.move(path, target)
        else:
            store.create_dir(target, recursive=True)
            copy_files(path, target, source_filesystem=store, destination_filesystem=store)
            store.delete_dir(path)
    return aside


def _opened(lake: Lake, url: str) -> tuple[Any, str]:
    """Arrow's file system of a lake, and the path of an address in it."""
    from pyarrow.fs import LocalFileSystem, S3FileSystem

    if lake.is_local:
        return LocalFileSystem(), url
    options = lake.options
    endpoint = urlsplit(options.get("AWS_ENDPOINT_URL", ""))
    store = S3FileSystem(
        access_key=options.get("AWS_ACCESS_KEY_ID"),
        secret_key=options.get("AWS_SECRET_ACCESS_KEY"),
        region=options.get("AWS_REGION"),
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or "https",
    )
    return store, url.removeprefix("s3://")
