"""A flow's parameters as a person gives them: ``name=value``, checked before anything starts.

    flow = load_flow("semi-automatic")
    values = read_parameters(flow, ["images=200", "campaign=semi-1"], {"workspace": "/data/birds"})

A value is JSON where that is what the parameter takes, and else the text as it stands: nobody has
to quote a name. What a flow does not know, or still needs, is said with what it does know.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, get_type_hints

from prefect import Flow
from pydantic import TypeAdapter, ValidationError

from engine.errors import BadInputError
from flows.catalogue import FLOWS

__all__ = ["FlowParameter", "load_flow", "parameters_of", "read_parameters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowParameter:
    """What a flow can be told.

    Attributes:
        name: of the parameter.
        kind: its type, as it is written in the flow.
        required: whether it has no default.
        default: as JSON; empty where it is required.
        doc: what it means, from the flow's documentation.
    """

    name: str
    kind: str
    required: bool
    default: str
    doc: str


def load_flow(name: str) -> Flow[..., Any]:
    """Import a flow of the catalogue.

    Raises:
        BadInputError: there is none of the name.
    """
    entry = FLOWS.get(name)
    if entry is None:
        near = get_close_matches(name, FLOWS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(FLOWS)}"
        raise BadInputError(f"there is no flow {name!r}{hint}")
    found = getattr(import_module(entry.module), entry.function)
    if not isinstance(found, Flow):
        raise TypeError(f"{entry.entrypoint} is no flow; got {type(found).__name__}")
    return found


def parameters_of(flow: Flow[..., Any]) -> tuple[FlowParameter, ...]:
    """Return what a flow can be told, in the order of its signature."""
    docs = dict(_documented(inspect.getdoc(flow.fn) or ""))
    return tuple(
        FlowParameter(
            name=name,
            kind=str(parameter.annotation),
            required=parameter.default is inspect.Parameter.empty,
            default=""
            if parameter.default is inspect.Parameter.empty
            else json.dumps(parameter.default, default=str),
            doc=docs.get(name, ""),
        )
        for name, parameter in inspect.signature(flow.fn).parameters.items()
    )


def read_parameters(
    flow: Flow[..., Any], given: Sequence[str], otherwise: Mapping[str, object]
) -> dict[str, object]:
    """Return the parameters of a run as JSON values.

    Args:
        flow: what is to run.
        given: ``name=value``; a name given several times makes a list.
        otherwise: values of parameters that are not among them; those that the flow does not have
            are left out.

    Raises:
        BadInputError: a parameter that the flow does not have, needs and did not get, or cannot
            read.
    """
    known = parameters_of(flow)
    names = [parameter.name for parameter in known]
    texts = _by_name(given)
    if unknown := [name for name in texts if name not in names]:
        near = get_close_matches(unknown[0], names, n=1)
        hint = f"did you mean {near[0]}? It" if near else "it"
        raise BadInputError(
            f"the flow {flow.name} has no parameter {unknown[0]!r}; {hint} takes {', '.join(names)}"
        )
    kinds = get_type_hints(flow.fn)
    values = {name: value for name, value in otherwise.items() if name in names}
    for name, given_texts in texts.items():
        values[name] = _value(flow.name, name, given_texts, TypeAdapter(kinds[name]))
    if missing := [one.name for one in known if one.required and one.name not in values]:
        raise BadInputError(
            f"the flow {flow.name} needs {', '.join(missing)}; give it as -p {missing[0]}=..."
        )
    return values


def _by_name(given: Sequence[str]) -> dict[str, list[str]]:
    texts = defaultdict[str, list[str]](list)
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise BadInputError(f"got the parameter {item!r}; expected name=value")
        texts[name.strip().replace("-", "_")].append(text)
    return texts


def _value(flow: str, name: str, texts: Sequence[str], adapter: TypeAdapter[Any]) -> object:
    """Read a value as JSON, as text, or as a list, whichever the parameter takes first."""
    problem: ValidationError | None = None
    for candidate in _readings(texts):
        try:
            return adapter.dump_python(adapter.validate_python(candidate), mode="json")
        except ValidationError as error:
            problem = problem or error
    said = "; ".join(item["msg"] for item in problem.errors()) if problem else ""
    raise BadInputError(
        f"{name} of the flow {flow} got {' and '.join(map(repr, texts))}, which it cannot take: "
        f"{said[:1].lower()}{said[1:]}"
    )


def _readings(texts: Sequence[str]) -> Iterator[object]:
    if len(texts) == 1:
        with suppress(ValueError):
            yield json.loads(texts[0])
        yield texts[0]
    yield list(texts)


def _documented(doc: str) -> Iterator[tuple[str, str]]:
    """Yield the parameters that a docstring explains, each in one line."""
    _, _, rest = doc.partition("Args:\n")
    name, parts = "", list[str]()
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        item = re.match(r"^ {4}(?P<name>\w+): (?P<text>.*)$", line)
        if item is not None:
            if name:
                yield name, " ".join(parts)
            name, parts = item["name"], [item["text"]]
        elif line.strip():
            parts.append(line.strip())
    if name:
        yield name, " ".join(parts)
