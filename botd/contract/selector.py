"""Selectors: one grammar for every verb, parsed once by botctl, typed when it reaches botd.

    alice/shop   shop   alice/*   */shop-??   user:alice   phase:failed   health:unhealthy
    template:messenger   label:tier=free

Terms joined by a comma all hold; several arguments are a union. A typed selection is a JSON value:

    {"all": true}                                  every bot that the caller may see
    {"any": [{"id": "alice/*", "phase": "failed"}, {"user": "bob", "labels": {"tier": "free"}}]}

An `id` without a slash means the caller's own; `*`, `?` and `[...]` make it a pattern.
"""

from __future__ import annotations

from botd.contract.errors import invalid, nearest
from botd.contract.vocabulary import HEALTH, NAME_RULE, PHASES, is_name, is_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Clause = dict[str, Any]
    Selection = dict[str, Any]

ALL: Selection = {"all": True}
KEYS = ("user", "phase", "health", "template", "label")
MAX_CLAUSES = 10_000
_GLOB = frozenset("*?[]")
_PATTERN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-*?[]!")


def is_glob(text: str) -> bool:
    return not _GLOB.isdisjoint(text)


def parse(arguments: Sequence[str], *, every: bool = False) -> Selection:
    """The selection that these arguments mean. Raises BotdError(invalid, exit 2) naming the bad term.

    No arguments and not `every` is an error: a verb that changes something never means "all" by itself.
    """
    if every:
        if arguments:
            raise invalid("", "--all and a selector together", hint="give one of them")
        return dict(ALL)
    if not arguments:
        raise invalid("", "no bot is named", hint="name bots, for example alice/shop or 'user:alice', or use --all")
    return {"any": [parse_clause(argument) for argument in arguments]}


def parse_clause(argument: str) -> Clause:
    """One argument: terms joined by commas, all of which hold."""
    clause: Clause = {}
    for term in argument.split(","):
        _parse_term(term, argument, clause)
    return clause


def _parse_term(term: str, argument: str, clause: Clause) -> None:
    where = f"selector {argument!r}" if term != argument else "selector"
    if not term:
        raise invalid(where, "an empty term", hint="join terms with single commas: user:alice,phase:failed")
    key, colon, value = term.partition(":")
    if not colon:
        _set(clause, "id", _check_id(term, where), where)
        return
    if key not in KEYS:
        near = nearest(key, KEYS)
        hint = f"did you mean {near}:{value}?" if near else f"known keys: {', '.join(KEYS)}"
        raise invalid(where, f"unknown key {key!r} in {term!r}", hint=hint)
    if key == "label":
        name, equals, wanted = value.partition("=")
        if not equals or not name:
            raise invalid(where, f"{term!r} is no label term", hint="write label:KEY=VALUE, as in label:tier=free")
        labels = clause.setdefault("labels", {})
        _set(labels, name, wanted, where)
        return
    _check_value(key, value, term, where)
    _set(clause, key, value, where)


def _check_value(key: str, value: str, term: str, where: str) -> None:
    words = {"phase": PHASES, "health": HEALTH}.get(key)
    if words is not None and value not in words:
        near = nearest(value, words)
        hint = f"did you mean {key}:{near}?" if near else f"one of: {', '.join(words)}"
        raise invalid(where, f"{value!r} is no {key}", hint=hint)
    if key == "user" and not (is_user(value) or (is_glob(value) and len(value) <= 63 and _PATTERN.issuperset(value))):
        raise invalid(where, f"{value!r} is no user name in {term!r}")
    if key == "template" and not is_name(value):
        raise invalid(where, f"{value!r} is no template name", hint=NAME_RULE)


def _check_id(text: str, where: str) -> str:
    user, slash, name = text.partition("/")
    parts = (user, name) if slash else (user,)
    for part in parts:
        good = _PATTERN.issuperset(part) if is_glob(part) else is_name(part)
        if not part or len(part) > 63 or not good:
            raise invalid(
                where,
                f"{text!r} is no bot id, pattern or key:value term",
                hint=f"an id is user/name; a name is {NAME_RULE}",
            )
    return text


def _set(into: dict[str, Any], key: str, value: str, where: str) -> None:
    if into.get(key, value) != value:
        raise invalid(where, f"{key} is given twice; terms joined by a comma all hold", hint="use two arguments")
    into[key] = value


def from_ids(ids: Iterable[str]) -> Selection:
    """A selection of exactly these ids, as read from standard input by `-`."""
    return {"any": [{"id": _check_id(text, "standard input")} for text in ids]}


def check(value: object) -> Selection:
    """A typed selection from the wire, checked again: botd trusts no client. Raises BotdError(invalid)."""
    if not isinstance(value, dict):
        raise invalid("select", 'must be an object such as {"any": [{"id": "alice/shop"}]}')
    if set(value) == {"all"} and value["all"] is True:
        return dict(ALL)
    clauses = value.get("any")
    if set(value) != {"any"} or not isinstance(clauses, list):
        raise invalid("select", 'must be {"all": true} or {"any": [...]}')
    if len(clauses) > MAX_CLAUSES:
        raise invalid("select.any", f"{len(clauses)} clauses, at most {MAX_CLAUSES}", hint="use a pattern")
    return {"any": [_check_clause(clause, f"select.any[{i}]") for i, clause in enumerate(clauses)]}


def _check_clause(clause: object, path: str) -> Clause:
    if not isinstance(clause, dict) or not clause:
        raise invalid(path, "must be an object with at least one condition")
    out: Clause = {}
    for key, value in clause.items():
        if key == "labels":
            # Empty, it would hold for every bot: "all" must be said in so many words.
            if not isinstance(value, dict) or not value or not all(isinstance(v, str) for v in value.values()):
                raise invalid(f"{path}.labels", "must map label names to strings")
            out["labels"] = dict(value)
        elif not isinstance(value, str):
            raise invalid(f"{path}.{key}", "must be a string")
        elif key == "id":
            out["id"] = _check_id(value, f"{path}.id")
        elif key in ("user", "phase", "health", "template"):
            _check_value(key, value, f"{key}:{value}", path)
            out[key] = value
        else:
            raise invalid(path, f"unknown condition {key!r}", hint="known: id, user, phase, health, template, labels")
    return out


def describe(selection: Selection) -> str:
    """The selection in the words of the command line, for messages and the audit log."""
    if selection.get("all"):
        return "--all"
    shown = [_describe_clause(clause) for clause in selection["any"][:5]]
    more = len(selection["any"]) - len(shown)
    return " ".join(shown) + (f" and {more} more" if more > 0 else "")


def _describe_clause(clause: Clause) -> str:
    terms = [clause["id"]] if "id" in clause else []
    terms += [f"{key}:{clause[key]}" for key in ("user", "phase", "health", "template") if key in clause]
    terms += [f"label:{k}={v}" for k, v in clause.get("labels", {}).items()]
    return ",".join(terms)
