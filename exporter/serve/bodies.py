"""The body of a request: read within a limit of bytes and time, and held to what the program takes, and no more."""

import asyncio
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from starlette.exceptions import HTTPException
from starlette.requests import Request

from exporter.serve.batching import User
from safeio.errors import one_line

_NUMBER_BYTES = 32
_OTHER_BYTES = 1024
_DRAINED_BYTES = 16 << 20
_LARGEST = float(np.finfo(np.float32).max)
_JSON = re.compile(r'application/json(\s*;\s*charset=("?)utf-8\2)?', re.IGNORECASE)
_A_NAME = re.compile(r"[A-Za-z_]{1,40}")
CLOSE = {"Connection": "close"}
STORED = "stored"


@dataclass(frozen=True)
class Taken:
    """One input as a request has it: numbers nested as `shape`, or with `in_digits` a text of 0 and 1."""

    name: str
    shape: tuple[int, ...]
    in_digits: bool = False


class Bodies:
    """What requests may hold: each of `inputs`, and where answers may be stored in several ways, `stored`.

    Without it an answer is stored as the first of them.
    """

    def __init__(self, inputs: Sequence[Taken], stored: Sequence[str] = ()) -> None:
        self._inputs, self._stored = inputs, stored
        kinds: dict[str, tuple[object, object]] = {one.name: (_type_of(one), ...) for one in inputs}
        if stored:
            kinds[STORED] = (Literal[tuple(stored)], stored[0])
        self._names = list(kinds)
        self._model: type[BaseModel] = create_model(
            "Body",
            __config__=ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True),
            **kinds,  # type: ignore[call-overload]  # pydantic's own names are none of a program's inputs
        )

    @property
    def most_bytes(self) -> int:
        """Return more bytes than a body needs whose numbers are written out in full."""
        return sum(math.prod(one.shape) for one in self._inputs) * _NUMBER_BYTES + _OTHER_BYTES

    def parse(self, body: bytes) -> User:
        """Return what a body says; raises HTTPException with one line that has none of its numbers."""
        try:
            read = self._model.model_validate_json(body)
        except ValidationError as error:
            raise HTTPException(400, self._words(error)) from None
        _require_each_once(body)
        values = {name: getattr(read, name) for name in self._names}
        inputs = {
            one.name: np.array([*map(int, values[one.name])] if one.in_digits else values[one.name], np.float32)
            for one in self._inputs
        }
        return User(inputs, values.get(STORED))

    def _words(self, error: ValidationError) -> str:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        taken = ", ".join(self._names)
        if first["type"] == "extra_forbidden":
            other = repr(place) if _A_NAME.fullmatch(place) else "a field of another name"  # it may be a user's number
            return f"{other} is not taken; a request has {taken} and nothing else, nothing that says whose it is"
        return one_line(f"{place!r}: {first['msg']}" if place else f"{first['msg']}; send an object with {taken}")


def _require_each_once(body: bytes) -> None:
    """Raise HTTPException where one of the fields of a body is given twice: readers differ in which of them they take.

    All else about it was judged before.
    """

    def each_once(pairs: Sequence[tuple[str, object]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise HTTPException(400, "a field is given twice; send each once")

    json.loads(body, object_pairs_hook=each_once, parse_int=len, parse_float=len)  # no number is made again


def _type_of(taken: Taken) -> Any:
    if taken.in_digits:
        return Annotated[str, Field(pattern=rf"^[01]{{{math.prod(taken.shape)}}}\z")]
    kind: Any = Annotated[float, Field(allow_inf_nan=False, ge=-_LARGEST, le=_LARGEST)]
    for size in reversed(taken.shape):
        kind = Annotated[list[kind], Field(min_length=size, max_length=size)]
    return kind


async def read(request: Request, most_bytes: int, seconds: float) -> bytes:
    """Return the body of a request in JSON; raises HTTPException with 408, 413 and 415.

    Who sends too much gets the answer once all of it has come, up to 16 MiB: with it unread the connection would be
    reset, and the answer with it.
    """
    kinds = request.headers.getlist("content-type")
    if len(kinds) != 1 or not _JSON.fullmatch(kinds[0].strip()):
        raise HTTPException(415, "send application/json, in UTF-8", CLOSE)
    if "content-encoding" in request.headers:
        raise HTTPException(415, "send the body as it is, without a Content-Encoding", CLOSE)
    stated = request.headers.get("content-length", "0")
    too_large = int(stated) > most_bytes
    if int(stated) > _DRAINED_BYTES:
        raise HTTPException(413, f"a body may have {most_bytes:,} bytes", CLOSE)
    content, came = bytearray(), 0
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                came += len(piece)
                too_large = too_large or came > most_bytes
                if came > _DRAINED_BYTES:
                    break
                if not too_large:
                    content += piece
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {seconds:g} s", CLOSE) from None
    if too_large:
        raise HTTPException(413, f"a body may have {most_bytes:,} bytes", CLOSE)
    return bytes(content)


def refusal(detail: str) -> Mapping[str, str]:
    """Return the document of an answer that is none."""
    return {"error": detail}
