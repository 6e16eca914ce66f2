"""From bytes to a contract, with one clear message for what another version of this project wrote.

Guarantees: what a newer version wrote is never taken for a broken line: it is named, with both versions, and nothing is
touched. Cost: nothing beyond pydantic's own unless the bytes are refused.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from foundation.errors import Failure
from foundation.records import Contract

Kind = TypeVar("Kind", bound=Contract)


def parse(kind: type[Kind], data: bytes, where: str) -> Kind:
    """The contract in `data`. Raises `Failure` that names `where`, and the versions if they differ."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        refuse_other_version(kind, data, where, error)
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise Failure(
            f"a file of this workspace is broken: {kind.__name__}{f', {name}' if name else ''}: {first['msg']}",
            where=where,
            mend="restore that file from a copy",
        ) from error


def refuse_other_version(kind: type[Contract], data: bytes, where: str, error: ValidationError) -> None:
    """Raises `Failure` if `data`, which `kind` refused with `error`, is whole and was written by another version."""
    try:
        row: Any = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(row, dict):
        return
    mine = get_args(kind.model_fields["v"].annotation) if "v" in kind.model_fields else ()
    theirs = row.get("v", mine[0] if mine else None)
    strange = [str(first["loc"][-1]) for first in error.errors() if first["type"] == "extra_forbidden"]
    if theirs not in mine and mine:
        told = f"{kind.__name__} of version {theirs}, and this one ({installed()}) reads version {mine[0]}"
    elif strange:
        told = f"{kind.__name__} has {', '.join(strange)}, which this one ({installed()}) does not know"
    else:
        return
    raise Failure(
        f"another version of the factory wrote this: {told}",
        where=where,
        mend="upgrade this one (`pip install --upgrade qpt-factory`), or use the one that wrote it; nothing was changed",
    ) from error


def installed() -> str:
    """The version that runs, as `qpt-factory 0.1.0`."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"qpt-factory {version('qpt-factory')}"
    except PackageNotFoundError:
        return "qpt-factory, not installed"
