"""Forward-OFA as it is used: a device uploads what it wants, the cloud sends weights, the device runs its sub-network.

Every step is computed by an artifact: the controller and the sub-network of one target on the device, the mapper in
ONNX in the cloud. What crosses the network is bytes.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter.artifact import store, weights
from exporter.connections import running
from exporter.core.errors import ArtifactError, BadInputError, RuntimeFailureError
from exporter.core.precision import Weights
from exporter.core.sections import External
from exporter.core.types import Arrays, RunResult
from exporter.pipeline.subjects import subject_of

# Puts the mapper's output [1, L, P] for a structure [1, L] into a package that is stored as is asked for; the cloud's
# code, which knows the model.
Pack = Callable[[np.ndarray, np.ndarray, Weights], bytes]


@dataclass(frozen=True)
class Upload:
    """What leaves a device: the structure as one bit per block, and the latent interest [D] in fp32. Never an id."""

    structure: tuple[int, ...]
    latent: np.ndarray

    def to_bytes(self) -> bytes:
        """Return one byte with the number of blocks, their bits, and the latent interest, little-endian."""
        bits = np.packbits(np.array(self.structure, np.uint8)).tobytes()
        return struct.pack("<B", len(self.structure)) + bits + self.latent.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Upload":
        """Read what `to_bytes` wrote; raises BadInputError."""
        blocks = data[0] if data else 0
        start = 1 + -(-blocks // 8)
        if not blocks or len(data) <= start or (len(data) - start) % 4:
            raise BadInputError(f"an upload of {len(data)} bytes is damaged; send it again")
        bits = np.unpackbits(np.frombuffer(data[1:start], np.uint8))[:blocks]
        return cls(tuple(bits.tolist()), np.frombuffer(data[start:], "<f4").astype(np.float32))


@dataclass(frozen=True)
class Session:
    """One user's turn: what was sent in both directions, and the scores [1, C] that the device computed.

    `swap_ms` is the device's time to put the package in place and load the program again; None where it was not timed.
    """

    upload: bytes
    package: bytes
    scores: np.ndarray
    swap_ms: float | None


def uploads(controller: Path, item_ids: np.ndarray) -> list[bytes]:
    """Return what the devices of users with histories [U, N] upload, computed by the controller's artifact."""
    computed = run(controller, {"item_ids": item_ids[:, None]}).outputs
    pairs = zip(computed["structure"][:, 0], computed["latent"][:, 0], strict=True)
    return [Upload(tuple(structure.astype(int).tolist()), latent).to_bytes() for structure, latent in pairs]


def packages(mapper: Path, received: list[bytes], pack: Pack, stored: Sequence[Weights]) -> list[bytes]:
    """Return what the cloud sends for each upload, computed by the mapper's artifact and `stored` in so many bits."""
    read = [Upload.from_bytes(data) for data in received]
    structure = np.array([one.structure for one in read], np.float32)[:, None]
    latent = np.stack([one.latent for one in read])[:, None]
    own = run(mapper, {"structure": structure, "latent": latent}).outputs["weights"]
    return [pack(*one) for one in zip(structure, own, stored, strict=True)]


def play(
    controller: Path,
    mapper: Path,
    subnets: Mapping[str, Path],
    pack: Pack,
    item_ids: np.ndarray,
    candidates: np.ndarray,
) -> list[Session]:
    """Play a session for each user with a history [U, N] and candidates [U, C], all in bytes and artifacts.

    `subnets` has an artifact of `subnet_external` for each structure, as digits of 0 and 1; packages are stored as its
    scheme says. Raises ArtifactError where one is missing or does not run.
    """
    sent = uploads(controller, item_ids)
    structures = ["".join(map(str, Upload.from_bytes(data).structure)) for data in sent]
    for structure in structures:
        if structure not in subnets:
            raise ArtifactError(f"no program for the structure {structure}; export subnet_external for it")
    stored = {structure: _external(subnets[structure]).stored for structure in set(structures)}
    received = packages(mapper, sent, pack, [stored[structure] for structure in structures])
    sessions: dict[int, Session] = {}
    for structure in sorted(set(structures)):
        users = [user for user, own in enumerate(structures) if own == structure]
        own = [open_package(subnets[structure], received[user]) for user in users]
        inputs = {"item_ids": item_ids[users][:, None], "candidate_ids": candidates[users][:, None]}
        inputs |= {name: np.stack([one[name] for one in own]) for name in own[0]}
        result = run(subnets[structure], inputs)
        swaps: tuple[float | None, ...] = result.swap_ms or (None,) * len(users)
        for at, user in enumerate(users):
            sessions[user] = Session(sent[user], received[user], result.outputs["scores"][at], swaps[at])
    return [sessions[user] for user in range(len(item_ids))]


def open_package(subnet: Path, data: bytes) -> dict[str, np.ndarray]:
    """Return the weights of a package by name, as the artifact wants them; raises PackageError for a foreign one."""
    external = _external(subnet)
    package = weights.from_bytes(data, external.shapes, external.metadata, "the package")
    return package.in_form(external.stored).tensors


def _external(subnet: Path) -> External:
    external = store.read_manifest(subnet).external
    if external is None:
        raise ArtifactError(f"{subnet}: its weights are inside; export its form subnet_external")
    return external


def run(folder: Path, inputs: Arrays) -> RunResult:
    """Run the artifact in `folder` on [cases, ...] inputs; raises RuntimeFailureError where it gives no outputs."""
    manifest = store.read_manifest(folder)
    ran = running.run(subject_of(folder, manifest), inputs, warmup=0, iterations=0)
    if ran.result is None:
        raise RuntimeFailureError(f"{folder}: {ran.reason}")
    return ran.result
