"""The benchmark of the fleet's pace still runs."""

import numpy as np
import tiny_models
from commands import load_benchmark

from exporter import pipeline


def test_one_worker_and_parity_user_by_user(tmp_path):
    items = np.random.default_rng(0).integers(1, 60, (40, 5))
    rows = [f"{user},{item},{time}" for user, own in enumerate(items) for time, item in enumerate(own)]
    data = tmp_path / "clicks.csv"
    data.write_text("\n".join(["user,item,timestamp", *rows, ""]))
    checkpoint = tiny_models.write("scn", tmp_path / "checkpoint")
    request = pipeline.FleetRequest("scn", data, "onnx", tmp_path, "fp32", checkpoint=checkpoint, sample=1)
    figures = load_benchmark("fleet").measure(request, users=40, single=1)
    assert figures["fleet"] > figures["single"] > 0 and figures["runtime"] > 0
