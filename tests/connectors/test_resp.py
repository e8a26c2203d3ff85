"""The packed commands are what hiredis packs, and what Redis reads."""

import hiredis
import pytest
from redis.exceptions import DataError

from connectors.resp import CommandPacker


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "k", b"v"),
        ("SCRIPT LOAD", "return 1"),
        (b"SCRIPT LOAD", b"return 1"),
        ("EVALSHA", "0" * 40, 2, "ä", b"", 1.5, -7, "", b"\x00\r\n" * 1000),
    ],
)
def test_a_command_is_packed_as_hiredis_packs_it(command: tuple[object, ...]) -> None:
    first = command[0]
    words = first.split() if isinstance(first, str | bytes) else [first]
    assert CommandPacker().pack(*command) == [hiredis.pack_command((*words, *command[1:]))]


def test_bytes_come_in_any_form() -> None:
    packer = CommandPacker()
    forms = (b"abc", bytearray(b"abc"), memoryview(b"abc"))
    assert len({packer.pack("SET", "k", form)[0] for form in forms}) == 1


@pytest.mark.parametrize("argument", [None, True, ["a"]])
def test_what_redis_has_no_form_for_is_refused(argument: object) -> None:
    with pytest.raises(DataError, match=type(argument).__name__):
        CommandPacker().pack("SET", "k", argument)
