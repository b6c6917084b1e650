"""Fuzz the Core ML interpreter: mutate packages and hold it to errors of its own, answers, a time and a memory bound.

    python benchmarks/fuzz_mil.py --minutes 10

The corpus is converted first (this needs coremltools and torch). A child process then loads and runs mutated packages
under a limit on its address space; the parent notices when it dies or hangs, names the seed and starts another one. The
last lines say what came out; exit status 1 if a crash, a hang, a foreign exception or too much memory was among it.
"""

import argparse
import collections
import json
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests" / "mil"
ADDRESS_SPACE = 3 << 30
# An idle child takes some 50 MiB; the interpreter may hold 64 MiB of values (mil_fuzzing.LIMITS), and one operation at
# work may hold as much again twice, for its operands in float32 and for indices.
RSS_LIMIT_MIB = 256
SECONDS_PER_CASE = 30


def main() -> int:
    """Parse the command line and run the parent or a child."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", metavar="FOLDER", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    if options.child:
        return child(options.child, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        return parent(Path(folder), options.minutes * 60, options.seed)


def parent(folder: Path, seconds: float, seed: int) -> int:
    """Build the corpus and watch over children until the time is up."""
    names = corpus(folder)
    print(f"corpus: {', '.join(names)}", flush=True)
    counts: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    peak, deadline, first = 0, time.monotonic() + seconds, seed
    while time.monotonic() < deadline:
        command = [sys.executable, __file__, "--child", str(folder), "--seed", str(seed)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        watcher = selectors.DefaultSelector()
        watcher.register(process.stdout, selectors.EVENT_READ)
        ended = ""
        while time.monotonic() < deadline:
            if not watcher.select(timeout=SECONDS_PER_CASE):
                ended = "hang"
                break
            line = process.stdout.readline()
            if not line:
                ended = f"crash with status {process.wait()}"
                break
            report = json.loads(line)
            seed = report["seed"] + 1
            peak = max(peak, report["rss_mib"])
            counts[report["outcome"]] += 1
            if report["outcome"] == "foreign exception" or report["rss_mib"] > RSS_LIMIT_MIB:
                failures.append(
                    f"seed {report['seed']} ({report['package']}): {report['detail']} rss {report['rss_mib']} MiB"
                )
                print(failures[-1], flush=True)
        if ended:
            failures.append(f"seed {seed}: {ended}")
            print(failures[-1], flush=True)
            seed += 1
        process.kill()
        process.wait()
    print(f"{seed - first} mutations; " + "; ".join(f"{count} {kind}" for kind, count in counts.most_common()))
    print(f"peak resident memory of a child: {peak} MiB (bound {RSS_LIMIT_MIB} MiB)")
    print(f"{len(failures)} failures")
    return 1 if failures else 0


def child(folder: Path, seed: int) -> int:
    """Run mutations from `seed` on, one line of JSON each, until killed."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    from mil_fuzzing import Mutator, attempt

    from exporter.connections.agent.conditions import resident_bytes

    model, weights = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"
    packages = sorted(folder.glob("*.mlpackage"))
    mutators = [
        Mutator((p / model).read_bytes(), (p / weights).read_bytes() if (p / weights).exists() else b"")
        for p in packages
    ]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "mutated.mlpackage"
        while True:
            which = seed % len(packages)
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(packages[which], path)
            data, blobs = mutators[which].mutate(seed)
            (path / model).write_bytes(data)
            if (path / weights).exists():
                (path / weights).write_bytes(blobs)
            detail = ""
            try:
                error = attempt(path)
                outcome = "answers" if error is None else f"{type(error).__name__}s"
            except Exception:
                outcome, detail = "foreign exception", traceback.format_exc(limit=-3)
            rss = resident_bytes("VmHWM") >> 20
            report = {
                "seed": seed,
                "package": packages[which].stem,
                "outcome": outcome,
                "detail": detail,
                "rss_mib": rss,
            }
            print(json.dumps(report), flush=True)
            seed += 1


def corpus(folder: Path) -> list[str]:
    """Convert networks of every kind: convolutions, recurrence, attention, compressed weights, loops and lists."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import coremltools as ct
    import coremltools.optimize.coreml as optimize
    import numpy as np
    import torch
    from mil_fuzzing import looped
    from mil_networks import NAMES, build

    torch.set_num_threads(1)
    for number, name in enumerate(NAMES):
        module, example = build(name)
        inputs = {"inputs": [ct.TensorType(shape=example[0].shape, dtype=np.int32)]} if name == "tagger" else {}
        if name == "tagger":
            given = torch.jit.trace(module, example)
        else:
            given = torch.export.export(module, example).run_decompositions({})
        model = ct.convert(
            given,
            minimum_deployment_target=(ct.target.iOS16, ct.target.iOS17, ct.target.iOS18)[number % 3],
            compute_precision=(ct.precision.FLOAT32, ct.precision.FLOAT16)[number % 2],
            skip_model_load=True,
            **inputs,
        )
        model.save(str(folder / f"{name}.mlpackage"))
        bits = 4 if number % 2 else 8
        how = optimize.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=64)
        compressed = optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=how))
        compressed.save(str(folder / f"{name}-palette{bits}.mlpackage"))
    how = optimize.OpLinearQuantizerConfig(mode="linear", weight_threshold=64)
    optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=how)).save(
        str(folder / "vit-int8.mlpackage")
    )
    loop = ct.convert(
        looped(ct), minimum_deployment_target=ct.target.iOS17, pass_pipeline=ct.PassPipeline.EMPTY, skip_model_load=True
    )
    loop.save(str(folder / "loop.mlpackage"))
    return sorted(path.stem for path in folder.glob("*.mlpackage"))


if __name__ == "__main__":
    sys.exit(main())
