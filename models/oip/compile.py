"""Compile the protocol's definition: `python -m models.oip.compile` writes `open_inference.binpb` beside it.

What is written is a FileDescriptorSet, and no code: `messages` makes the classes from it. Needs `grpcio-tools`,
which the running system does not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

__all__ = ["compiled"]

_HERE = Path(__file__).parent


def compiled() -> bytes:
    """Return the descriptor set of `open_inference.proto`. Raises RuntimeError where it cannot be compiled."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        code = protoc.main(["protoc", f"-I{_HERE}", f"--descriptor_set_out={out}", "open_inference.proto"])
        if code:
            raise RuntimeError(f"protoc ended with {code}")
        return out.read_bytes()


if __name__ == "__main__":
    _HERE.joinpath("open_inference.binpb").write_bytes(compiled())
    sys.exit(0)
