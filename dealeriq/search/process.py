"""The search process: the index's one owner. It folds on the main thread, and answers searches on others."""

from __future__ import annotations

import threading
from pathlib import Path

import uvicorn

from connectors.kafka import ensure_topics
from connectors.log import get_logger
from connectors.redis import connect
from connectors.registry import Registry
from connectors.vectors import AnyOf, VectorIndex
from connectors.vectors.folder import IndexFolder
from dealeriq.http.server import beside
from dealeriq.search.app import SearchApplication
from dealeriq.search.folder import (
    adapter_file,
    current_version,
    encoder_in_use,
    folder_of,
    images_of,
    kinds_of,
    open_version,
)
from dealeriq.search.servers import forgetter
from dealeriq.settings import Settings
from models.search.adapter import VectorMap
from models.search.fields import CHUNK
from models.search.searcher import Adapted, Searcher
from models.search.vocabulary import Vocabulary
from models.search.weights import Weights
from models.text import text_encoder
from schemas.errors import DealerIQError
from streams.metrics import ENCODER_TOKENS
from streams.views.ranking_view import RankingView, since_key
from streams.views.runner import ViewRunner
from streams.views.vector_view import VectorView

__all__ = ["run"]

_PATIENCE_S = 2.0
log = get_logger("dealeriq.search")

_AGAIN_S = 5.0


def run(settings: Settings, stop: threading.Event) -> None:
    """Fold and answer until `stop` is set; go over to another version of the index when one takes its place.

    Raises IndexBusyError, IndexDamagedError, EncoderError, AddressTakenError, PositionBeyondLogError.
    """
    folder = folder_of(settings)
    folder.own()
    try:
        folder.tidy(forgetter(settings.search))
        _Service(_impatient(settings), folder, stop).run()
    finally:
        folder.release()


def _impatient(settings: Settings) -> Settings:
    """Who searches does not wait a minute for a service that encodes."""
    patient = settings.model_copy(deep=True)
    for text in (patient.text, patient.reindex.text):
        text.endpoint_patience_s = min(text.endpoint_patience_s, _PATIENCE_S)
    return patient


class _Service:
    """The index in use, what folds into it, and what answers from it."""

    def __init__(self, settings: Settings, folder: IndexFolder, stop: threading.Event) -> None:
        self._settings, self._folder, self._stop = settings, folder, stop
        self._encoder = encoder_in_use(settings, folder)
        self._images = images_of(settings)
        self._fetch_schema = Registry(settings.registry).schema
        self._weights = Weights(
            settings.search.feedback_bound,
            settings.search.feedback_half_life_days,
            settings.search.feedback_holdout,
        )
        self._application: SearchApplication | None = None
        self._server: uvicorn.Server | None = None

    def run(self) -> None:
        previous: VectorIndex | None = None
        threading.Thread(target=self._weigh, name="ranking-view", daemon=True).start()
        try:
            while not self._stop.is_set():
                version = current_version(self._folder)
                if self._folder.about(version) != self._encoder.identity:
                    self._encoder = encoder_in_use(self._settings, self._folder)
                index = open_version(
                    version, self._settings, kinds_of(self._settings, self._encoder, self._images)
                )
                self._folder.describe(version, self._encoder.identity)
                view = self._put_in_place(index)
                if previous is not None:
                    previous.close()
                    self._folder.tidy(forgetter(self._settings.search))
                previous = index
                self._fold(view, version)
        finally:
            if self._server is not None:
                self._server.should_exit = True
            if self._application is not None:
                self._application.close()
            if previous is not None:
                previous.close()

    def _put_in_place(self, index: VectorIndex) -> VectorView:
        """Let searches be answered from `index`; returns when none is answered from another any more."""
        vocabulary = Vocabulary(entry.fields["text"] for entry in index.scan([AnyOf("entry", [CHUNK])]))
        searcher = Searcher(index, self._encoder, vocabulary, self._weights, self._images)
        if self._application is None:
            settings = self._settings
            token = settings.http.token.get_secret_value() if settings.http.token else None
            limits = (settings.search.threads, settings.http.max_body_bytes, token)
            self._application = SearchApplication(searcher, *limits)
            search = settings.search
            self._server = beside(self._application, "search", search.host, search.port)
        else:
            self._application.replace(searcher)
        return VectorView(index, self._fetch_schema, vocabulary)

    def _fold(self, view: VectorView, version: Path) -> None:
        """Fold until this process shall end, or another version counts."""
        settings = self._settings
        ensure_topics(settings.kafka, [*view.topics, *(f"{name}.dlq" for name in view.topics)])
        until = threading.Event()
        watch = threading.Thread(target=self._watch, args=(until, version), name="index-version", daemon=True)
        watch.start()
        group = f"{settings.features.project}-{view.name}"
        batch = settings.search.batch_records
        try:
            ViewRunner(settings.kafka, view, stop=until, batch_records=batch, group=group).run()
        finally:
            until.set()
            watch.join()

    def _adapt(self, seen: int | None) -> int | None:
        """Let the encoder to come encode queries, once there is a map for it; return which map was seen."""
        file, application = adapter_file(self._folder), self._application
        try:
            now = file.stat().st_mtime_ns
        except FileNotFoundError:
            if application is not None:
                application.searcher.adapted = None
            return None
        if application is None or now == seen or not self._settings.reindex.enabled:
            return seen
        try:
            found = VectorMap.load(file)
            if found.old == self._encoder.identity:
                encoder = text_encoder(self._settings.reindex.text, ENCODER_TOKENS.inc)
                if found.new == encoder.identity:
                    application.searcher.adapted = Adapted(encoder, found)
                    log.info("queries are adapted", encoder=found.new)
        except DealerIQError as error:  # searches go on by the encoder in use
            log.warning("queries are not adapted", error=error.told)
        return now

    def _weigh(self) -> None:
        """Fold feedback into weights until this process shall end; searches go on whatever happens here."""
        settings, store = self._settings, connect(self._settings.redis)
        project = settings.features.project
        view = RankingView(self._weights, self._fetch_schema, lambda: int(store.get(since_key(project)) or 0))
        while not self._stop.is_set():
            try:
                ensure_topics(settings.kafka, view.topics)
                ViewRunner(settings.kafka, view, stop=self._stop, group=f"{project}-{view.name}").run()
            except Exception:
                log.exception("feedback is not folded for a while")
                self._stop.wait(_AGAIN_S)

    def _watch(self, until: threading.Event, version: Path) -> None:
        seen: int | None = None
        while not until.is_set():
            seen = self._adapt(seen)
            if self._stop.wait(0.5):
                until.set()
            elif self._folder.current() != version:
                log.info("another version of the index takes over")
                until.set()
