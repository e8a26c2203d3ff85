"""May a schema change? Checked offline against every version that was ever recorded.

BACKWARD_TRANSITIVE: the new schema must read every record that any earlier version wrote, and must not call it
invalid. History lies in `schemas/history/SUBJECT/NNN.avsc`; a version, once recorded, never changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.bounds import Bound, bounds_of
from schemas.catalogue import subjects
from schemas.errors import ContractError, IncompatibleSchemaError

__all__ = ["HISTORY_DIR", "Finding", "breaks", "check", "history", "record", "require_compatible"]

Schema = dict[str, Any]

HISTORY_DIR = Path(__file__).parent / "history"
_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
_LOSSLESS_DEFAULT = "give it a default (null, in a union that begins with null, when there is no better one)"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a subject: where, what was, what is, what to do.

    `kind` is "incompatible" (refused), "unrecorded" (record it) or "removed". `version` is the recorded
    version that cannot be read.
    """

    subject: str
    kind: str
    field: str
    old: str
    new: str
    remedy: str
    version: int | None = None

    def __str__(self) -> str:
        where = f"{self.subject}: {self.field}" if self.field else self.subject
        since = f" (version {self.version})" if self.version else ""
        return f"{where} was {self.old}{since} and is {self.new}; {self.remedy}"


def check(
    current: Mapping[str, Schema] | None = None, directory: Path = HISTORY_DIR, *, unrecorded: bool = True
) -> list[Finding]:
    """Compare every subject (the catalogue's by default) with its recorded history; return what is wrong.

    With `unrecorded`, a change that is compatible and not yet recorded is found too, so that CI cannot miss it.
    """
    now = {subject: schema for subject, schema, _ in subjects()} if current is None else current
    findings: list[Finding] = []
    for subject, schema in now.items():
        versions = history(subject, directory)
        broken = [f for number, old in versions for f in breaks(subject, old, schema, number)]
        findings += _newest_of_each(broken)
        if unrecorded and not broken and (not versions or _essence(versions[-1][1]) != _essence(schema)):
            was = f"recorded up to version {versions[-1][0]}" if versions else "never recorded"
            findings.append(
                Finding(
                    subject,
                    "unrecorded",
                    "",
                    was,
                    "changed" if versions else "new",
                    "run `dealeriq schema record`",
                )
            )
    recorded = {path.name for path in directory.iterdir() if path.is_dir()} if directory.is_dir() else set()
    findings += [
        Finding(
            subject, "removed", "", "a recorded subject", "not in the catalogue",
            "restore its schema, or delete its history in the same change that retires the topic",
        )
        for subject in sorted(recorded - now.keys())
    ]  # fmt: skip
    return findings


def require_compatible(current: Mapping[str, Schema] | None = None, directory: Path = HISTORY_DIR) -> None:
    """Raise IncompatibleSchemaError, naming the first break, when a subject cannot read its history."""
    broken = [each for each in check(current, directory, unrecorded=False) if each.kind == "incompatible"]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise IncompatibleSchemaError(f"{broken[0]}{more}")


def record(current: Mapping[str, Schema] | None = None, directory: Path = HISTORY_DIR) -> list[tuple[str, int]]:
    """Record the subjects that changed as new versions; return (subject, version).

    Raises IncompatibleSchemaError, and records nothing, when any change is incompatible.
    """
    now = {subject: schema for subject, schema, _ in subjects()} if current is None else current
    require_compatible(now, directory)
    recorded = []
    for subject, schema in now.items():
        versions = history(subject, directory)
        if versions and _essence(versions[-1][1]) == _essence(schema):
            continue
        number = versions[-1][0] + 1 if versions else 1
        path = directory / subject / f"{number:03d}.avsc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        recorded.append((subject, number))
    return recorded


def history(subject: str, directory: Path = HISTORY_DIR) -> list[tuple[int, Schema]]:
    """Return the recorded versions of a subject, oldest first; empty when there is none."""
    versions = []
    for path in sorted((directory / subject).glob("*.avsc")):
        try:
            versions.append((int(path.stem), json.loads(path.read_text(encoding="utf-8"))))
        except ValueError as error:
            raise ContractError(
                f"the recorded schema history/{subject}/{path.name} cannot be read: {error}",
                remedy="Restore it from version control: a recorded version never changes.",
            ) from None
    return versions


def breaks(subject: str, old: Schema, new: Schema, version: int | None = None) -> list[Finding]:
    """Return why `new` cannot read, or would call invalid, what `old` wrote; empty when it can."""
    return [
        Finding(subject, "incompatible", field, was, now, remedy, version)
        for field, was, now, remedy in [*_unreadable(old, new, ""), *_tighter(old, new)]
    ]


_Break = tuple[str, str, str, str]


def _unreadable(old: Any, new: Any, at: str) -> Iterator[_Break]:
    """Avro's schema resolution, writer `old`, reader `new`; logical types must stay, for they change the
    meaning.
    """
    if isinstance(old, list):
        for branch in old:
            yield from _unreadable(branch, new, at)
        return
    if isinstance(new, list):
        reasons = [list(_unreadable(old, branch, at)) for branch in new]
        if all(reasons):
            yield (at, _words(old), _words(new), f"keep {_words(old)} in the union")
        return
    was, now = _kind(old), _kind(new)
    if was != now:
        if now in _PROMOTIONS.get(was, ()) and not (_logical(old) or _logical(new)):
            return
        yield (at, _words(old), _words(new), "keep the type, or add a new field beside it")
        return
    if _logical(old) != _logical(new):
        yield (at, _words(old), _words(new), "keep the logical type, or add a new field beside it")
    elif was == "record":
        yield from _record(old, new, at)
    elif was == "array":
        yield from _unreadable(old["items"], new["items"], f"{at}[]")
    elif was == "map":
        yield from _unreadable(old["values"], new["values"], f"{at}{{}}")
    elif was == "enum":
        lost = [symbol for symbol in old["symbols"] if symbol not in new["symbols"]]
        if lost and "default" not in new:
            yield (
                at,
                f"an enum with {', '.join(lost)}",
                "without",
                "keep the symbols, or give the enum a default",
            )
    elif was == "fixed" and old["size"] != new["size"]:
        yield (at, f"fixed({old['size']})", f"fixed({new['size']})", "keep the size")


def _record(old: Schema, new: Schema, at: str) -> Iterator[_Break]:
    if old["name"] != new["name"] and old["name"] not in new.get("aliases", ()):
        yield (at, f"record {old['name']}", f"record {new['name']}", "keep the name")
    written = {field["name"]: field for field in old["fields"]}
    for field in new["fields"]:
        path = f"{at}.{field['name']}" if at else field["name"]
        source = next((written[n] for n in (field["name"], *field.get("aliases", ())) if n in written), None)
        if source is not None:
            yield from _unreadable(source["type"], field["type"], path)
        elif "default" not in field:
            yield (path, "absent", f"{_words(field['type'])} without a default", _LOSSLESS_DEFAULT)


def _tighter(old: Schema, new: Schema) -> Iterator[_Break]:
    """A bound that narrows makes old records invalid: a replay would send them to the dead letters."""
    if _kind(old) != "record" or _kind(new) != "record":
        return
    before = {bound.field: bound for bound in bounds_of(old)}
    for bound in bounds_of(new):
        was = before.get(bound.field)
        if was is None or was.type != bound.type:
            continue
        for what in _narrower(was, bound):
            yield (
                bound.field, f"{what} {_said(was, what)}", f"{what} {_said(bound, what)}",
                "keep the bound or widen it: replayed records would be refused",
            )  # fmt: skip


def _narrower(was: Bound, now: Bound) -> Iterator[str]:
    if now.minimum is not None and (was.minimum is None or now.minimum > was.minimum):
        yield "minimum"
    if now.maximum is not None and (was.maximum is None or now.maximum < was.maximum):
        yield "maximum"
    if (now.min_length or 0) > (was.min_length or 0):
        yield "minLength"
    if now.max_length is not None and (was.max_length is None or now.max_length < was.max_length):
        yield "maxLength"
    if now.pattern is not None and now.pattern != was.pattern and not _more_words(was.pattern, now.pattern):
        yield "pattern"


def _more_words(old: str | None, new: str) -> bool:
    """A list of words, ^(a|b)$, may grow; of any other pattern nobody can say whether it narrowed."""
    words = [
        text[2:-2].split("|") if text and text[:2] == "^(" and text[-2:] == ")$" else None
        for text in (old, new)
    ]
    return words[0] is not None and words[1] is not None and set(words[0]) <= set(words[1])


def _said(bound: Bound, what: str) -> str:
    value = {
        "minimum": bound.minimum, "maximum": bound.maximum, "minLength": bound.min_length,
        "maxLength": bound.max_length, "pattern": bound.pattern,
    }[what]  # fmt: skip
    return "unbounded" if value is None else str(value)


def _newest_of_each(broken: list[Finding]) -> list[Finding]:
    """The same break against several versions is one thing to mend."""
    return list({(each.field, each.new): each for each in broken}.values())


def _kind(schema: Any) -> str:
    return str(schema["type"]) if isinstance(schema, dict) and isinstance(schema["type"], str) else str(schema)


def _logical(schema: Any) -> str | None:
    return schema.get("logicalType") if isinstance(schema, dict) else None


def _words(schema: Any) -> str:
    if isinstance(schema, list):
        return "[" + ", ".join(_words(each) for each in schema) + "]"
    if isinstance(schema, dict):
        return str(schema.get("logicalType") or schema.get("name") or schema["type"])
    return str(schema)


def _essence(schema: Any) -> Any:
    """The schema without words: a better description is not a new version."""
    if isinstance(schema, dict):
        return {
            key: (value if key == "default" else _essence(value))
            for key, value in schema.items()
            if key != "doc"
        }
    if isinstance(schema, list):
        return [_essence(each) for each in schema]
    return schema
