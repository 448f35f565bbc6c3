"""What JSON of a file that anybody may have written must be, checked once, where it is read."""

import re
from collections.abc import Iterator
from typing import Any

Schema = Any
ANY = object
_WORDS = {str: "text", int: "an integer", float: "a number", bool: "true or false", dict: "an object", None: "null"}


def require(value: Any, schema: Schema, place: str = "") -> None:
    """Raise ValueError that names the first entry of parsed JSON that is missing or is not what `schema` says.

    A schema is `ANY`, None, a type (int: of 64 bits, and no bool; float: an integer as well), a pattern that text
    matches as a whole, a set of values, a tuple of alternatives, [schema] for the entries of a list, {str: schema} for
    an object of any names, and {name: schema} for one that has these and may have others; `name?` may be absent.
    """
    if isinstance(schema, tuple):
        # Of the alternatives the one of the value's kind, so that an error names the entry in it.
        alike = [inner for inner in schema if isinstance(inner, dict | list) and isinstance(value, type(inner))]
        if alike:
            require(value, alike[0], place)
        elif not any(_is(value, inner) for inner in schema if not isinstance(inner, dict | list)):
            raise ValueError(f"{place}: {_shown(value)} is not {' or '.join(map(_named, schema))}")
    elif isinstance(schema, dict | list):
        if not isinstance(value, type(schema)):
            raise ValueError(f"{place or 'content'}: {_shown(value)} is not {_named(schema)}")
        for name, inner, entry in _entries(value, schema, place):
            require(entry, inner, name)
    elif not _is(value, schema):
        raise ValueError(f"{place}: {_shown(value)} is not {_named(schema)}")


def _entries(value: Any, schema: Schema, place: str) -> Iterator[tuple[str, Schema, Any]]:
    """Place, schema and value of every entry that a schema speaks of."""
    if isinstance(schema, list):
        yield from ((f"{place}[{i}]", schema[0], entry) for i, entry in enumerate(value))
    elif str in schema:
        yield from ((_below(place, name), schema[str], entry) for name, entry in value.items())
    else:
        for name, inner in schema.items():
            known = name.removesuffix("?")
            if known in value:
                yield _below(place, known), inner, value[known]
            elif known == name:
                raise ValueError(f"{_below(place, name)}: missing")


def _is(value: Any, schema: Schema) -> bool:
    match schema:
        case None:
            return value is None
        case re.Pattern():
            return isinstance(value, str) and bool(schema.fullmatch(value))
        case frozenset():
            return isinstance(value, str | int) and value in schema
    if schema is int:
        return type(value) is int and -(2**63) <= value < 2**63
    if schema is float:
        return type(value) in (int, float)
    return isinstance(value, schema)


def _named(schema: Schema) -> str:
    match schema:
        case re.Pattern():
            return f"text like {schema.pattern}"
        case frozenset():
            return f"one of {', '.join(map(str, sorted(schema)))}"
        case dict():
            return "an object"
        case list():
            return "a list"
    return _WORDS[schema]


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
