"""Where the index is, and how its versions are opened."""

from __future__ import annotations

from pathlib import Path

from connectors.vectors import Encoding, Kinds, VectorIndex, WrongFormatError
from connectors.vectors.edge import EdgeIndex
from connectors.vectors.folder import IndexFolder
from dealeriq.kinds import fused_kinds, indexed_kinds
from dealeriq.search.servers import open_on_server
from dealeriq.settings import Settings
from models.fusion import HYBRID, fused_name
from models.image import ImageEncoder, image_encoder
from models.search.fields import KEYWORDS, NUMBERS, TEXT
from models.text import Encoder, TextSettings, text_encoder
from streams.metrics import ENCODER_TOKENS
from streams.recommend.behaviour import behaviour_encoder

__all__ = [
    "adapter_file",
    "current_version",
    "encoder_in_use",
    "encoders",
    "folder_of",
    "images_of",
    "kinds_of",
    "open_version",
]


def folder_of(settings: Settings) -> IndexFolder:
    """Return the folder of the index that the settings name."""
    return IndexFolder(settings.search.folder or settings.data_dir / "index")


def images_of(settings: Settings) -> ImageEncoder | None:
    """Return the encoder of pictures where the index holds their vectors, or what they are part of; else None.

    Raises EncoderError.
    """
    fused = settings.hybrid.enabled and "image" in fused_kinds(settings)
    needed = fused or "image" in indexed_kinds(settings)
    return image_encoder(settings.image) if needed else None


def kinds_of(settings: Settings, text: Encoder, images: ImageEncoder | None = None) -> Kinds:
    """Return the kinds of vectors in the index: those of `search.kinds`, else text and what else is published.

    A graph makes versions of its encoder's vectors by itself, so its encoder is named without one.
    """
    graph, recommend = settings.graph, settings.recommend
    known = {
        TEXT: Encoding(text.identity, text.dimension),
        "graph": Encoding(f"graph-{graph.embedding}-{graph.embedding_dimension}", graph.embedding_dimension),
        "behaviour": Encoding(behaviour_encoder(recommend), recommend.behaviour_dimension),
    }
    if images is not None:
        known["image"] = Encoding(images.identity, images.dimension)
    if settings.hybrid.enabled:
        length = sum(known[name].dimension for name in fused_kinds(settings) if name in known)
        known[HYBRID] = Encoding(fused_name(length), length)
    return {name: each for name, each in known.items() if name in indexed_kinds(settings)}


def adapter_file(folder: IndexFolder) -> Path:
    """Return where the map is by which an encoder to come searches the index in use."""
    return folder.root / "adapter.npz"


def current_version(folder: IndexFolder) -> Path:
    """Return the version that counts; where there is none, a new one that counts from now on."""
    version = folder.current()
    if version is None:
        version = folder.fresh()
        folder.swap(version)
    return version


def encoders(settings: Settings) -> list[TextSettings]:
    """Return the settings of the encoders that an index may be of: the first, and the one that is to follow."""
    both = [settings.text, settings.reindex.text]
    return both if settings.reindex.enabled else both[:1]


def encoder_in_use(settings: Settings, folder: IndexFolder) -> Encoder:
    """Return the encoder whose vectors the index in use holds; the first one where nothing is said of it.

    Raises WrongFormatError where it is none of the settings', EncoderError.
    """
    version = folder.current()
    identity = None if version is None else folder.about(version)
    names = []
    for each in encoders(settings):
        encoder = text_encoder(each, ENCODER_TOKENS.inc)
        if identity in (None, encoder.identity):
            return encoder
        names.append(encoder.identity)
    raise WrongFormatError(
        f"the index in {folder.root} holds vectors of {identity}, and the settings name {', '.join(names)}",
        remedy="Name that encoder in [text], or in [reindex.text] with reindex.enabled; "
        "or `dealeriq index rebuild` once [text] is the one that you want.",
    )


def open_version(version: Path, settings: Settings, kinds: Kinds) -> VectorIndex:
    """Open a version, or make it where nothing is there.

    Raises IndexDamagedError, WrongFormatError, IndexUnavailableError.
    """
    if settings.search.index_url is not None:
        return open_on_server(version, settings.search, kinds, KEYWORDS, NUMBERS)
    return EdgeIndex(version, kinds, KEYWORDS, NUMBERS)
