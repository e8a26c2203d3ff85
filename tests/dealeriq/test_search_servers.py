"""An index on a real server, chosen by the settings: its versions, and what becomes of the former ones."""

import httpx
import pytest
from pydantic import ValidationError

from connectors.vectors import Encoding, Entry, IndexUnavailableError, WrongFormatError
from connectors.vectors.folder import IndexFolder
from connectors.vectors.weaviate import WeaviateIndex
from dealeriq.search.folder import current_version, open_version
from dealeriq.search.servers import forgetter
from dealeriq.settings import load
from schemas.ids import event_id

KINDS = {"text": Encoding("test@1", 4)}


def settings_of(url):
    return load({"DEALERIQ_SEARCH__INDEX_URL": url}, running=False)


def collections(address):
    return {each["class"] for each in httpx.get(f"{address}/v1/schema", timeout=30).json()["classes"]}


def test_versions_are_collections_that_are_swapped_and_removed_with_their_folders(weaviate_server, tmp_path):
    settings, folder = settings_of(f"weaviate+{weaviate_server.address}"), IndexFolder(tmp_path)
    before = collections(weaviate_server.address)
    folder.own()
    try:
        first = current_version(folder)
        index = open_version(first, settings, KINDS)
        assert isinstance(index, WeaviateIndex)
        index.put([Entry(event_id("test", 1), {"entry": "chunk"})])
        index.close()
        again = open_version(first, settings, KINDS)
        assert again.count() == 1
        again.close()
        with pytest.raises(WrongFormatError, match="wanted are those of test@2"):
            open_version(first, settings, {"text": Encoding("test@2", 4)})
        with folder.building(forgetter(settings.search)) as beside:
            open_version(beside, settings, KINDS).close()
            folder.adopt(beside)
        assert len(collections(weaviate_server.address) - before) == 4
        second = open_version(current_version(folder), settings, KINDS)
        assert second.count() == 0
        second.close()
        folder.tidy(forgetter(settings_of("weaviate+http://127.0.0.1:9").search))
        assert len(folder.versions()) == 2  # the server was away: another time
        folder.tidy(forgetter(settings.search))
        assert folder.versions() == [folder.current()]
        assert len(collections(weaviate_server.address) - before) == 2
        with folder.building(forgetter(settings.search)) as beside:
            open_version(beside, settings, KINDS).close()
        assert len(collections(weaviate_server.address) - before) == 2
    finally:
        folder.release()


@pytest.mark.parametrize("engine", ["weaviate", "qdrant"])
def test_a_server_that_is_away_is_told(engine, tmp_path):
    with pytest.raises(IndexUnavailableError) as caught:
        open_version(tmp_path / "version-1", settings_of(f"{engine}+http://127.0.0.1:9"), KINDS)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("url", ["http://127.0.0.1:6333", "milvus+http://there", "qdrant+http://me:word@there"])
def test_an_address_without_an_engine_or_with_a_password_is_refused(url):
    with pytest.raises(ValidationError):
        load(running=False).search.index_url = url
