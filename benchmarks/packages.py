"""The pace of weights packages for many users beside the floor, and what they are kept in.

    python benchmarks/packages.py [--checkpoint DIR] [--users N] [--rounds R] [--folder DIR]

The floor is one product of the mapper, all its blocks, in torch with the same batch of users and on the same thread;
beside it stands the product of the chosen blocks alone. What is measured computes the packages of the golden users,
repeated, by their structures, and writes them with their hashes as the fleet does. Ways take turns; the median counts.
Seconds are those of the processor (user and system), so that what else runs on a shared machine is not in them.
The second table has a shard kept in three ways: written, and one user's package taken out, with that file alone open.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
import xxhash

from exporter.fleet import packages, packages_archive
from exporter.pipeline.source import PRETRAINED
from models import checkpoint as checkpoints
from models.forward_ofa.generating import BATCH, Generator
from models.forward_ofa.programs import SPEC

STORED = ("fp32", "fp16", "int8")


def main() -> None:
    """Print two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=PRETRAINED / "ofa")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        pace = measure_pace(arguments.checkpoint, arguments.users, arguments.rounds, Path(folder))
        print("| way | users a second and core | times the floor | bytes a user | MB/s |")
        print("|---|---|---|---|---|")
        for way, (seconds, times, size) in pace.items():
            rate = f"{size / seconds / 1e6:,.0f}" if size else ""
            print(f"| {way} | {1 / seconds:,.0f} | {times:.2f} | {size:,.0f} | {rate} |")
        print()
        print("| kept in | written, MB/s | one taken out, ms |")
        print("|---|---|---|")
        for way, (rate, taken) in measure_places(arguments.checkpoint, arguments.users, Path(folder)).items():
            print(f"| {way} | {rate / 1e6:,.0f} | {1e3 * taken:.1f} |")


def measure_pace(checkpoint: Path, users: int, rounds: int, folder: Path) -> Mapping[str, tuple[float, float, float]]:
    """Return by way the seconds for a user, how many times the floor of the same turn that is, and the bytes."""
    cloud, structures, latents = uploads(checkpoint, users)
    batches = [torch.from_numpy(latents[start : start + BATCH]) for start in range(0, users - BATCH + 1, BATCH)]
    mapper, numbers = cloud.mapper, cloud.mapper.linear.weight.shape[0] // cloud.mapper.blocks
    blocks = round(float(structures.sum(axis=1).mean()))
    part = mapper.linear.weight[: blocks * numbers], mapper.linear.bias[: blocks * numbers]

    def product(weight: torch.Tensor, bias: torch.Tensor) -> None:
        with torch.no_grad():
            for batch in batches:
                torch.nn.functional.linear(batch, weight, bias)

    def written(stored: str) -> Callable[[], None]:
        return lambda: write(folder / "shard.tar", cloud, structures, latents, stored)

    whole, sizes = len(batches) * BATCH, {}
    ways: dict[str, tuple[Callable[[], None], int]] = {
        "floor": (lambda: product(mapper.linear.weight, mapper.linear.bias), whole),
        f"product of {blocks} blocks": (lambda: product(*part), whole),
    }
    for stored in STORED:
        ways[f"packages, {stored}"] = (written(stored), users)
        sizes[f"packages, {stored}"] = np.mean([cloud.package_bytes(tuple(row), stored) for row in structures.tolist()])
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, (call, count) in ways.items():
            seconds = timed(call) / count
            if turn:  # the first warms up
                taken[way].append(seconds)
    return {
        way: (
            statistics.median(seconds),
            statistics.median(own / floor for own, floor in zip(seconds, taken["floor"], strict=True)),
            float(sizes.get(way, 0)),
        )
        for way, seconds in taken.items()
    }


def uploads(checkpoint: Path, users: int) -> tuple[Generator, np.ndarray, np.ndarray]:
    """Return the cloud and what the golden users upload, repeated to so many."""
    torch.set_num_threads(1)
    held = checkpoints.read(checkpoint)
    cloud = Generator(checkpoints.build(held, SPEC), held.sha256)
    item_ids = np.resize(held.golden["item_ids"], (users, held.history_length))
    return cloud, *cloud.requests(item_ids)


def made(cloud: Generator, structures: np.ndarray, latents: np.ndarray, stored: str) -> Iterator:
    """Yield packages as the archive takes them."""
    for some in cloud.packages(structures, latents, stored):
        yield some.users.tolist(), some.files


def write(path: Path, cloud: Generator, structures: np.ndarray, latents: np.ndarray, stored: str) -> None:
    """Write the archive of a shard."""
    packages_archive.write(path, made(cloud, structures, latents, stored), len(latents))


def measure_places(checkpoint: Path, users: int, folder: Path) -> Mapping[str, tuple[float, float]]:
    """Return bytes a second written, and seconds for one package taken out, of packages in fp32 that are there."""
    cloud, structures, latents = uploads(checkpoint, users)
    held = [(own, rows.copy()) for own, rows in made(cloud, structures, latents, "fp32")]
    total = sum(rows.nbytes for _, rows in held)
    files = [row.data for _, rows in held for row in rows]
    names = [f"{user:06}" for user in range(users)]
    found: dict[str, tuple[float, float]] = {}

    plan = {"format": packages.FORMAT, "shards": 1, "order": "text"}
    own = packages.Folder(folder / "packages", plan)
    with packages.opened(own, force=False):

        def tar() -> None:
            where = packages_archive.write(packages.archive(own.place, 0), held, users)
            digests = [row.tobytes().hex() for row in where.pop("xxh3_128")]
            blocks = ["".join(map(str, row)) for row in structures.tolist()]
            table = {"user": names, "status": ["ranked"] * users, "structure": blocks, "xxh3_128": digests}
            own.write_index(0, pa.table({**table, **where}))

        seconds = statistics.median(timed(tar) for _ in range(3))
    found["tar, index in Parquet"] = total / seconds, timed(lambda: packages.read(own.place).take(names[users // 2]))
    for way, rows in (("Parquet, all in one row group", users), ("Parquet, a row group for each user", 1)):
        path = folder / f"{rows}.parquet"

        def parquet(path: Path = path, rows: int = rows) -> None:
            digests = [xxhash.xxh3_128_hexdigest(file) for file in files]
            table = pa.table({"user": names, "xxh3_128": digests, "package": pa.array(files, pa.large_binary())})
            pyarrow.parquet.write_table(table, path, compression="none", row_group_size=rows, use_dictionary=False)

        def take(path: Path = path) -> None:
            asked = [("user", "==", names[users // 2])]
            (data,) = pyarrow.parquet.read_table(path, filters=asked)["package"].to_pylist()
            assert len(data) == len(files[users // 2])

        seconds = statistics.median(timed(parquet) for _ in range(3))
        found[way] = total / seconds, statistics.median(timed(take) for _ in range(3))
    return found


def timed(call: Callable[[], object]) -> float:
    """Return what a call takes in seconds of the processor."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
