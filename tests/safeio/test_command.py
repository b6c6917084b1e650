"""How a command ends: its exit code is about the work, its errors are one line, and nothing depends on who listens."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys
from importlib.machinery import ModuleSpec
import typer
from safeio import command
from safeio.errors import BadInputError, CocorrError
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

@app.command()
def work(how: str, as_json: bool = typer.Option(False, "--json")) -> None:
    typer.echo("... working", err=True)
    if as_json and how != "well": print = lambda *_, **__: None
    else: print = __builtins__.print
    if how == "much":
        for _ in range(3_000): print("x" * 100)
    print("result \\udce9")
    match how:
        case "bad": raise BadInputError("two\\nlines \\x1b[1m")
        case "fail": sys.exit(1)
        case "unverified": sys.exit(3)
        case "full": raise OSError(28, "No space left on device", "/somewhere")
        case "memory": raise MemoryError
        case "fault": raise KeyError("a fault of the program")
        case "opens":
            with open(sys.argv[0] if os.path.isfile(sys.argv[0]) else os.devnull) as file: assert file.fileno() > 2
        case "hidden":
            try: os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt: raise ImportError("a library's own words") from None
        case "destructor":
            class Left:
                def __del__(self): os.kill(os.getpid(), signal.SIGTERM)
            Left()
            while True: pass
        case "import":  # as an extension module that ends the process where its import is interrupted
            class Extension:
                def find_spec(self, name, *_): return ModuleSpec(name, self) if name == "extension" else None
                def create_module(self, spec): return None
                def exec_module(self, module):
                    try:
                        os.kill(os.getpid(), signal.SIGTERM)
                        for _ in range(1000): pass
                    except BaseException: os._exit(9)
            sys.meta_path.insert(0, Extension())
            import extension
            while True: pass
        case "swallowed":
            command._AGAIN_S = 0.01
            try: os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt: pass
            while True: pass
        case "waits":
            print("ready", flush=True)
            while True: pass  # a call that blocks may begin just after a signal came, and would not end for it

command.run(lambda: app, "interrupted; all is as it was", documents=True)
"""
COMMAND = [sys.executable, "-c", PROGRAM]


def ended(how: str, redirect: str = "") -> tuple[int, str, list[str]]:
    """Return exit code, stdout and the lines on stderr of the program under a shell's redirection."""
    arguments: Sequence[str] = [*COMMAND, how]
    if redirect:
        arguments = ["bash", "-c", f'set -o pipefail; "$@" {redirect}', "bash", *arguments]
    done = subprocess.run(arguments, capture_output=True, text=True)
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if not line.startswith("... ")]


@pytest.mark.parametrize(
    ("how", "code", "line"),
    [
        ("well", 0, None),
        ("bad", 2, "error: two lines \\x1b[1m"),
        ("fail", 1, None),
        ("unverified", 3, None),
        ("full", 2, "error: /somewhere: No space left on device; the system does not let this be done"),
        ("memory", 2, "error: this needs more memory than there is; ask for less, or use a larger machine"),
        ("--no-such-option", 2, "error: No such option: --no-such-option. Try --help."),
        ("hidden", 130, "interrupted; all is as it was"),
        ("destructor", 130, "interrupted; all is as it was"),
        ("import", 130, "interrupted; all is as it was"),
        ("swallowed", 130, "interrupted; all is as it was"),
    ],
)
def test_the_exit_code_is_about_the_work(how: str, code: int, line: str | None) -> None:
    got, out, lines = ended(how)
    assert (got, lines) == (code, [] if line is None else [line])
    assert how.startswith("-") or out == "result \\udce9\n"


@pytest.mark.parametrize(
    ("how", "kind", "code"),
    [
        ("bad", "bad_input", 2),
        ("full", "system", 2),
        ("memory", "memory", 2),
        ("--no-such-option", "usage", 2),
        ("hidden", "interrupted", 130),
        ("swallowed", "interrupted", 130),
        ("fault", "internal", 1),
    ],
)
def test_errors_are_documents_where_documents_are_asked_for(how: str, kind: str, code: int) -> None:
    done = subprocess.run([*COMMAND, how, "--json"], capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert (done.returncode, list(document), document["schema_version"]) == (code, ["schema_version", "error"], 1)
    error = document["error"]
    assert (error["kind"], error["exit_code"]) == (kind, code)
    line = error["message"] if code == 130 else f"error: {error['message']}"
    assert line in [line for line in done.stderr.splitlines() if not line.startswith("... ")]
    assert ("Traceback" in done.stderr) == (kind == "internal")


def test_there_is_one_document() -> None:
    """What ends a command that has printed its result is told of on stderr alone."""
    done = subprocess.run([*COMMAND, "well", "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "result \\udce9\n")
    late = PROGRAM.replace('case "fail": sys.exit(1)', 'case "well": raise BadInputError("late")')
    done = subprocess.run([sys.executable, "-c", late, "well", "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (2, "result \\udce9\n", "error: late")


@pytest.mark.parametrize("how", ["well", "much", "fail", "unverified", "bad"])
@pytest.mark.parametrize(
    ("redirect", "well"),
    [
        (">/dev/full", 2),  # what was asked for could not be given: never a wrong 0
        (">&-", 2),
        ("| head -c 10", 0),  # the reader has what it wanted
        ("2>/dev/full", 0),
        ("2>&-", 0),
        ("<&-", 0),
        (">&- 2>&-", 2),
        (">&- 2>&- <&-", 2),
    ],
)
def test_streams_that_are_full_or_closed(how: str, redirect: str, well: int) -> None:
    code, _, lines = ended(how, redirect)
    assert code == {"fail": 1, "unverified": 3, "bad": 2}.get(how, well)
    assert not any("Traceback" in line or "Exception" in line for line in lines)
    if well and "2>" not in redirect:
        assert len(lines) == 1 and lines[0].startswith("error: ")


def test_a_reader_that_is_slow_gets_everything() -> None:
    """Also through a pipe that somebody has told not to wait, as terminals' and event loops' pipes are."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = subprocess.Popen([*COMMAND, "much"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        assert len(file.read()) == 3_000 * 101 + len("result \\udce9\n")
    assert process.wait() == 0


def test_an_output_that_nobody_reads_can_be_interrupted() -> None:
    read, write = os.pipe()
    process = subprocess.Popen([*COMMAND, "much"], stdout=write, stderr=subprocess.PIPE)
    while select.select((), (write,), (), 0)[1]:  # until the pipe is full, so that it waits
        pass
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    os.close(write)
    os.close(read)


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    assert ended("opens", "<&- >&- 2>&-")[0] == 2  # 2 for what was not printed, and no failed assertion


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_with_one_line(number: signal.Signals) -> None:
    process = subprocess.Popen([*COMMAND, "waits"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        pass
    process.send_signal(number)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "... working\ninterrupted; all is as it was\n")


def test_what_is_to_be_ignored_is_ignored() -> None:
    process = subprocess.Popen(
        [*COMMAND, "waits"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as under nohup
    )
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        pass
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "... working\ninterrupted; all is as it was\n")


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    arguments = ["bash", "-c", 'cd "$0" && rmdir "$0" && "$@"', str(gone), *COMMAND, "well"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "error: the folder that this command runs in is gone; go to another one\n",
    )
