"""Words as sparse vectors: BM25's term frequencies of English stems; the index adds how rare a term is.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009). The tokenizer and the
hashes of terms are Qdrant's own, so that an index filled here can be asked by any client of Qdrant's.
"""

from __future__ import annotations

from qdrant_edge import Bm25, Bm25Config

from connectors.vectors.index import Sparse

__all__ = ["Lexical"]

_USUAL_WORDS = 24.0  # of a chunk: products have 8, paragraphs of documents 60


class Lexical:
    """Turns texts into sparse vectors. Threads may share one."""

    def __init__(self) -> None:
        self._model = Bm25(Bm25Config(avg_len=_USUAL_WORDS, language="english", ascii_folding=True))

    def document(self, text: str) -> Sparse:
        """Return the vector of a text that is stored."""
        found = self._model.embed_document(text)
        return Sparse(found.indices, found.values)

    def query(self, text: str) -> Sparse:
        """Return the vector of a text that is asked for; empty where it has stop words alone."""
        found = self._model.embed_query(text)
        return Sparse(found.indices, found.values)
