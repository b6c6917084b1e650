"""The `browser` connection: an artifact runs in a web page, in Chromium on this machine or in a phone's browser."""

import selectors
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from exporter.connections.browser import chromium
from exporter.connections.browser.device import Situation
from exporter.connections.browser.job import make_work, read_result, read_times, web_runtime
from exporter.connections.browser.server import Server
from exporter.connections.browser.session import Answer, Session
from exporter.connections.browser.stand import Https, address_of, check_stand, opened_stand, stand_at
from exporter.core.errors import CocorrError, DeviceError, RuntimeTimeoutError
from exporter.core.types import PairedTimes, RunRequest, RunResult, Verdict
from safeio.progress import PassingLine
from safeio.staging import scratch

Result = TypeVar("Result")

_ARRIVAL_S = 600.0  # a person finds the phone, opens the page and presses Run
_TAB_ARRIVAL_S = 120.0  # a tab of our own does so by itself, on a machine that may be busy
_SILENCE_S = 30.0  # of a page that says twice a second that it lives


@dataclass(frozen=True)
class _Patience:
    """How long a page is waited for, in seconds, and what is said of one that is not there."""

    arrival_s: float
    run_s: float
    target: str
    is_ours: bool

    def left(self, now: float, at: Situation) -> float:
        """Return the seconds until something should have happened; raises what is to be said where it has not."""
        if at.has_left:
            raise DeviceError(f"{at.device} left the page before the results were there; start the command again")
        if at.started is None:
            until = [(at.began + self.arrival_s, self._nobody())]
        else:
            until = [(at.started + self.run_s, self._slow())]
        if at.device is not None and (at.is_known or self.is_ours):
            until.append((at.seen + _SILENCE_S, self._silent(at)))
        for deadline, error in until:
            if now >= deadline:
                raise error
        return min(deadline for deadline, _ in until) - now

    def _nobody(self) -> CocorrError:
        if self.is_ours:
            return RuntimeTimeoutError(f"the page did not start in Chromium within {self.arrival_s:g} s")
        return DeviceError(
            f"nobody opened the page and pressed Run within {self.arrival_s:g} s; start the command again"
        )

    def _silent(self, at: Situation) -> CocorrError:
        if self.is_ours:
            return RuntimeTimeoutError(
                f"the tab that ran the {self.target} runtime gave no sign for {_SILENCE_S:g} s and was ended"
            )
        where = "" if at.beat.is_visible else ", after its page went into the background"
        return DeviceError(
            f"{at.device} gave no sign for {_SILENCE_S:g} s{where}; keep its screen on and the page in front, and start"
            " the command again"
        )

    def _slow(self) -> CocorrError:
        return RuntimeTimeoutError(
            f"the {self.target} runtime did not finish within {self.run_s:g} s in the browser and was ended; allow it"
            " more time or ask for fewer iterations"
        )


class BrowserConnection:
    """Runs in a page that this machine serves.

    `open` says who opens it, None for Chromium where there is one; `bind` is the address at which it is served, and
    `https` by what certificate (`stand.Https`).
    """

    name = "browser"
    system: str | None = None

    def __init__(
        self, open: Literal["chromium", "phone"] | None = None, bind: str = "loopback", https: Https = False
    ) -> None:
        self._opener, self._bind, self._https = open, bind, https

    def check(self) -> None:
        """Raise DeviceError where there is no Chromium to open the page, and what `check_stand` raises."""
        if not self.is_for_phones:
            self._chromium()
        check_stand(self._bind, self._https)

    @property
    def is_for_phones(self) -> bool:
        """Say whether a person opens the page: asked for, or at the terminal of a machine without Chromium."""
        if self._opener is None:
            return chromium.find() is None and sys.stderr.isatty()
        return self._opener == "phone"

    def run(self, request: RunRequest) -> RunResult:
        """Run the request in a page and return outputs and times; the memory of a page's process is not known.

        Raises RuntimeMissingError where no browser runs the target, DeviceError for a device that does not come, leaves
        or falls silent, and what HostConnection.run raises.
        """
        result, device = self._serve(request, None, read_result)
        return replace(result, executed_on=f"{result.executed_on} in {device}", connection=self.name)

    def compare(self, first: RunRequest, second: RunRequest) -> PairedTimes:
        """Call two artifacts in turn in one page, with the counts, threads and limits of `first`."""
        times, device = self._serve(first, second, read_times)
        one, other = (f"{place} in {device}" for place in times.executed_on)
        return replace(times, executed_on=(one, other))

    def show(self, verdict: Verdict, words: str, facts: Mapping[str, str]) -> None:
        """Have the page of the last run show what came of it, for the person who holds the phone."""
        stand = opened_stand(self._bind, self._https) if self.is_for_phones else None
        if stand is not None:  # else nothing was to be run there
            stand.session.show(verdict, words, list(facts.items()))

    def next_device(self) -> None:
        """Let another phone come for the next run; the one of the last is told that it is done."""
        stand = stand_at(self._bind, self._https)
        stand.session.dismiss("This device is done. You can close this page.")
        stand.has_invited = False

    def _serve(
        self,
        request: RunRequest,
        rival: RunRequest | None,
        read: Callable[[Answer, RunRequest, int], Result],
    ) -> tuple[Result, str]:
        """Have the job done by a page; return what came of it, and what the device is called."""
        for one in (request, rival):
            if one is not None:
                web_runtime(one)
        serve = self._by_phone if self.is_for_phones else self._by_chromium
        answer, device, job = serve(request, rival)
        return read(answer, request, job), device

    def _by_chromium(self, request: RunRequest, rival: RunRequest | None) -> tuple[Answer, str, int]:
        program = self._chromium()
        patience = _Patience(_TAB_ARRIVAL_S, request.time_limit_s, request.target.name, is_ours=True)
        with ExitStack() as stack:
            folder = stack.enter_context(scratch("run"))
            session = Session()
            session.begin(make_work(folder, request, rival, 1, starts_itself=True))
            url = stack.enter_context(Server(session, address_of(self._bind))).url
            stack.callback(session.close)
            tab = stack.enter_context(chromium.Chromium(program, folder / "chromium"))
            tab.open(url)
            return *_attend(session, patience, tab), 1

    def _by_phone(self, request: RunRequest, rival: RunRequest | None) -> tuple[Answer, str, int]:
        stand = stand_at(self._bind, self._https)
        stand.jobs += 1
        patience = _Patience(_ARRIVAL_S, request.time_limit_s, request.target.name, is_ours=False)
        with scratch("run") as folder:
            stand.session.begin(make_work(folder, request, rival, stand.jobs, starts_itself=False))
            stand.invite()
            return *_attend(stand.session, patience, None), stand.jobs

    def _chromium(self) -> Path:
        program = chromium.find()
        if program is None:
            raise DeviceError(
                f"no Chromium is on the PATH to open the page; {chromium.how_to_get()}, or use a phone's browser:"
                " --connection phone-browser"
            )
        return program


def _attend(session: Session, patience: _Patience, tab: "chromium.Chromium | None") -> tuple[Answer, str]:
    """Wait for the answer of whoever does the job, and show how far it is; return it and what the device is called."""
    line = PassingLine()
    with selectors.DefaultSelector() as watched, ExitStack() as stack:
        stack.callback(line.end)
        watched.register(session, selectors.EVENT_READ, session.drain)
        if tab is not None:
            watched.register(tab, selectors.EVENT_READ, tab.attend)
        while (answer := session.answer()) is None:
            at = session.situation()
            if at.started is not None and at.beat.total > 0:
                line.show(f"{at.device}: {at.beat.phase}, {at.beat.done / at.beat.total:.0%}")
            elif at.device is not None:
                line.show(f"{at.device}: {at.beat.phase}")
            for key, _ in watched.select(patience.left(time.monotonic(), at)):
                key.data()
        return answer, session.situation().device or "a browser"
