"""A worker for tests of the engine: what it does with a shard is what its settings say."""

import os
import signal
import sys
import threading

from exporter.core.errors import CheckpointError
from exporter.fleet.worker import serve


def make_judge(settings):
    os.system("echo a runtime prints to stdout")
    if settings["does"] == "refuse":
        raise CheckpointError("the checkpoint has changed; start this again")

    def judge(shard):
        if settings["does"] == "double" or shard["x"][0] < 2:
            return {"y": shard["x"] * 2, "pid": shard["x"] * 0 + os.getpid()}
        if settings["does"] == "raise":
            raise RuntimeError("the runtime said\nno")
        if settings["does"] == "hang":
            threading.Event().wait()
        sys.stderr.write("the last words\n")
        sys.stderr.flush()
        os.kill(os.getpid(), getattr(signal, settings["does"]))
        return {}

    return judge


def main(lifeline):
    serve(make_judge, lifeline)
