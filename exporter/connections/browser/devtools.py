"""A client of Chromium's DevTools protocol on a pair of pipes: messages are JSON, each ended by a zero byte.

What comes is made by a program that runs pages: its size and form are checked before it is used.
"""

import json
import os
import select
import time
from collections.abc import Callable
from typing import Any

from exporter.connections.response import printable
from exporter.core.errors import DeviceError
from safeio import strict_json

MAX_MESSAGE_BYTES = 64 * 2**20
_READ_BYTES = 1 << 20

Message = dict[str, Any]


class EndedError(Exception):
    """The other side closed its pipe: the browser is gone."""


class DevTools:
    """Owns the two descriptors; `hear` is handed each event in the order of arrival, and what it raises goes on."""

    def __init__(self, reading: int, writing: int, hear: Callable[[Message], None]) -> None:
        self._reading, self._writing, self._hear = reading, writing, hear
        self._buffer = bytearray()
        self._searched = 0
        self._calls = 0

    def fileno(self) -> int:
        """Return the descriptor that can be read when something came."""
        return self._reading

    def close(self) -> None:
        """Close both ends, by which the browser is told to end."""
        os.close(self._writing)
        os.close(self._reading)

    def call(self, method: str, limit_s: float, session: str | None, parameters: Message) -> Message:
        """Call a method of the browser, or of the page of a session, and return its result.

        Raises DeviceError where it is refused, unusable, or not there within `limit_s` seconds, and EndedError.
        """
        self._calls += 1
        number = self._calls
        message = {"id": number, "method": method, "params": parameters}
        self._write(message if session is None else {**message, "sessionId": session})
        deadline = time.monotonic() + limit_s
        while True:
            answer = self._next(deadline)
            if answer is None:
                raise DeviceError(f"the browser did not answer {method} within {limit_s:g} s; start this again")
            if answer.get("id") == number:
                self.attend()  # else what came with it would wait here, and nothing come to say so
                return _result(method, answer)
            self._tell(answer)

    def attend(self) -> None:
        """Hand on the events that have come, and wait for none; raises DeviceError and EndedError."""
        while (message := self._next(0.0)) is not None:
            self._tell(message)

    def _tell(self, message: Message) -> None:
        if "id" not in message:  # else it answers a call that was given up
            self._hear(message)

    def _write(self, message: Message) -> None:
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._writing, data) :]
        except BrokenPipeError:
            raise EndedError from None

    def _next(self, deadline: float) -> Message | None:
        """Return the next message, or None where none is complete at the deadline (of time.monotonic)."""
        waiting = select.poll()
        waiting.register(self._reading, select.POLLIN)
        while (end := self._buffer.find(0, self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > MAX_MESSAGE_BYTES:
                raise DeviceError(f"the browser sent a message of more than {MAX_MESSAGE_BYTES >> 20} MiB")
            if not waiting.poll(1000 * max(0.0, deadline - time.monotonic())):
                return None
            read = os.read(self._reading, _READ_BYTES)
            if not read:
                raise EndedError
            self._buffer += read
        text = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return _parsed(text)


def _parsed(text: bytes) -> Message:
    try:
        message = strict_json.loads(text)
    except ValueError as error:
        raise DeviceError(f"what the browser said cannot be read: {printable(str(error))}") from None
    if not isinstance(message, dict):
        raise DeviceError("what the browser said is no JSON object")
    return message


def _result(method: str, answer: Message) -> Message:
    result, error = answer.get("result"), answer.get("error")
    if isinstance(error, dict):
        raise DeviceError(f"the browser refused {method}: {printable(str(error.get('message')))}")
    if not isinstance(result, dict):
        raise DeviceError(f"the browser's answer to {method} has no result")
    return result
