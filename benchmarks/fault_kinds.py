"""The kinds of input: which file of which part is mutated in which way, how often, and which commands then read it."""

import fault_formats as formats
import fault_mutations as mutations
from fault_inputs import HEAVY, Input, Mutation, Words
from fault_workload import MODEL, TRAINING

_RUN = ("cocorr-export", "run", "model.mlpackage", "--inputs", "inputs.npz", "--outputs", "out.npz")
_PARITY = ("cocorr-export", "parity", "artifact")
_PROFILE = ("cocorr-export", "profile", "artifact", "--iterations", "1")
_SWAP = ("cocorr-export", "swap", "artifact", "package.safetensors", "--output", "out")
# A profile that asks for more clicks than there are is refused, but not before the model of the checkpoint is built.
_CHECKPOINT = (
    "cocorr-export",
    MODEL,
    "--target",
    "onnx",
    "--checkpoint",
    "ck",
    "--profile",
    "longer.yaml",
    "--output",
    "out",
)
_EXPORT = ("cocorr-export", MODEL, "--target", "onnx", "--checkpoint", "ck", "--output", "out")
_OWN = ("cocorr-export", MODEL, "--target", "onnx", "--checkpoint", "none", "--profile", "own.yaml", "--output", "out")
_RANK = ("cocorr-export", "rank", "artifact", "--history", "3,17,5", "--candidates", "1,2,3")
_HISTORY = ("cocorr-export", "rank", "artifact", "--history", "history.txt", "--candidates", "1,2,3")
_RESUME = ("cocorr-train", MODEL, "--data", "clicks.csv", "--output", "out/ck", "--epochs", "2", *TRAINING)

_PACKAGE = {"model.mlpackage": "coreml/model.mlpackage", "inputs.npz": "inputs/inputs.npz"}
_MODEL_FILES: dict[str, tuple[tuple[str, ...], Mutation]] = {
    "onnx": (("model.onnx",), formats.protobuf),
    "tflite": (("model.tflite",), formats.flatbuffer),
    "executorch": (("model.pte",), formats.flatbuffer),
    "coreml": (
        (
            "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
            "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
        ),
        formats.protobuf,
    ),
}


def _of_package(name: str, count: int, file: str, mutate: Mutation) -> Input:
    return Input(name, count, (f"model.mlpackage/{file}",), mutate, _PACKAGE, (_RUN,))


def _of_artifact(
    name: str,
    count: int,
    file: str,
    mutate: Mutation,
    part: str,
    words: tuple[Words, ...],
    ends: tuple[int, ...] = (0,),
) -> Input:
    listed = None if file == "manifest.json" else "artifact"
    return Input(name, count, (f"artifact/{file}",), mutate, {"artifact": part}, words, HEAVY, listed, ends)


def _of_model(command: str, count: int, target: str, words: Words) -> Input:
    files, mutate = _MODEL_FILES[target]
    inside = tuple(f"artifact/{file}" for file in files)
    return Input(f"{command}-{target}", count, inside, mutate, {"artifact": target}, (words,), HEAVY, "artifact")


def _of_checkpoint(name: str, count: int, file: str, mutate: Mutation, *, whole: bool = False) -> Input:
    parts = {"ck": "checkpoint", "longer.yaml": "profiles/longer.yaml"}
    words, ends = (_EXPORT, (0,)) if whole else (_CHECKPOINT, (2,))
    return Input(name, count, (f"ck/{file}",), mutate, parts, (words,), HEAVY, ends=ends)


def _of_text(name: str, count: int, file: str, mutate: Mutation, words: Words) -> Input:
    return Input(name, count, (file,), mutate, {file: f"profiles/{file}"}, (words,), ends=(2,))


def _of_clicks(count: int, file: str, mutate: Mutation) -> Input:
    words = ("cocorr-train", MODEL, "--data", file, "--output", "out/ck", "--epochs", "1", *TRAINING)
    return Input(f"data-{file}", count, (file,), mutate, {file: f"clicks/{file}"}, (words,), HEAVY)


def _packed(rng: mutations.Random, data: bytes) -> bytes:
    """Damage gzipped lines: the lines before they are packed, or the packed bytes."""
    import gzip

    if rng.random() < 0.5:
        return mutations.damage(rng, data)
    packed = gzip.compress(mutations.lines_of_text(rng, gzip.decompress(data)), 1)
    return rng.choice((packed, packed, packed + packed, packed + b"more", gzip.compress(bytes(32 << 20), 1)))


INPUTS: tuple[Input, ...] = (
    _of_package("run-mlmodel", 1000, "Data/com.apple.CoreML/model.mlmodel", formats.protobuf),
    _of_package("run-weight-bin", 300, "Data/com.apple.CoreML/weights/weight.bin", mutations.damage),
    _of_package("run-package-manifest", 200, "Manifest.json", mutations.json_document),
    Input("run-inputs", 1200, ("inputs.npz",), formats.npz, _PACKAGE, (_RUN,)),
    _of_artifact("manifest", 1200, "manifest.json", mutations.json_document, "changed", (_PARITY, _PROFILE), (1, 2)),
    _of_artifact("manifest-whole", 200, "manifest.json", mutations.json_document, "onnx", (_PARITY, _PROFILE)),
    _of_artifact("golden", 600, "golden.npz", formats.npz, "onnx", (_PARITY, _PARITY, _PROFILE)),
    Input(
        "swap-package", 700, ("package.safetensors",), formats.safetensors,
        {"artifact": "external", "package.safetensors": "package/weights.safetensors"}, (_SWAP,), HEAVY,
    ),
    Input(
        "swap-manifest", 300, ("artifact/manifest.json",), mutations.json_document,
        {"artifact": "external", "package.safetensors": "package/weights.safetensors"}, (_SWAP,), HEAVY,
    ),
    _of_text("device-profile", 1000, "own.yaml", mutations.yaml_document, _OWN),
    Input(
        "history", 100, ("history.txt",), mutations.damage,
        {"artifact": "onnx", "history.txt": "profiles/history.txt"}, (_HISTORY,), HEAVY,
    ),
    _of_artifact("items", 300, "items.tsv", mutations.lines_of_text, "onnx", (_RANK,)),
    _of_model("profile", 300, "onnx", _PROFILE),
    _of_model("profile", 300, "tflite", _PROFILE),
    _of_model("profile", 200, "coreml", _PROFILE),
    _of_model("parity", 100, "onnx", _PARITY),
    _of_model("parity", 100, "tflite", _PARITY),
    _of_model("parity", 100, "coreml", _PARITY),
    _of_checkpoint("weights", 450, "model.safetensors", formats.safetensors),
    _of_checkpoint("config", 500, "config.json", mutations.json_document),
    _of_checkpoint("checkpoint-golden", 400, "golden.npz", formats.npz),
    _of_checkpoint("checkpoint-items", 200, "items.tsv", mutations.lines_of_text),
    Input(
        "resume", 400, ("out/ck.resume",), formats.safetensors,
        {"clicks.csv": "clicks/clicks.csv", "out/ck.resume": "progress/ck.resume"},
        (_RESUME,), HEAVY, right="checkpoint",
    ),
    _of_clicks(130, "ratings.dat", mutations.lines_of_text),
    _of_clicks(130, "clicks.csv", mutations.lines_of_text),
    _of_clicks(100, "amazon.csv", mutations.lines_of_text),
    _of_clicks(100, "clicks.tsv", mutations.lines_of_text),
    _of_clicks(130, "reviews.json", mutations.lines_of_text),
    _of_clicks(100, "clicks.csv.gz", _packed),
    _of_model("profile", 200, "executorch", _PROFILE),
    _of_model("parity", 100, "executorch", _PARITY),
    _of_checkpoint("config-export", 30, "config.json", mutations.json_document, whole=True),
)  # fmt: skip
"""In this order: the processes that fork cases have no torch at first."""
