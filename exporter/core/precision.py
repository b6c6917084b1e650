"""How numbers are stored in an artifact; the command line imports this when it starts, and nothing else of `core`."""

from typing import Literal, cast

Precision = Literal["fp32", "fp16", "int8", "int4", "fp16+fp32", "int8+fp16", "int4+fp16"]
"""A scheme: what tables of embeddings are stored in, and behind a `+` what all else is; int8 and int4 alone have it in
fp32.
"""
Asked = Literal[Precision, "auto"]
"""What a user asks for: a scheme, or the mildest one that fits the budgets."""
MILDEST_FIRST: tuple[Precision, ...] = ("fp32", "fp16+fp32", "fp16", "int8", "int8+fp16", "int4", "int4+fp16")
"""Schemes by what they change of scores, least first, as docs/precision.md has it measured."""
Tables = Literal["fp32", "fp16", "int8", "int4"]
FewerBits = Literal["fp16", "int8", "int4"]
"""What tables may be stored in beside a body that is not."""
Body = Literal["fp32", "fp16"]
Weights = Literal["fp32", "int8"]
"""What an artifact stores a weights package in: weights that lie outside a program."""
Stored = Literal["fp32", "fp16", "int8"]
"""What a weights package may be stored in as it crosses the network."""
Fold = Literal["none", "same_size", "double", "all"]
"""How far what is computed of an item's row alone goes into tables: by how much the artifact may grow for that."""


def tables_of(precision: Precision) -> Tables:
    """Return what a scheme stores tables in."""
    return cast("Tables", precision.partition("+")[0])


def body_of(precision: Precision) -> Body:
    """Return what a scheme stores all but tables in, and computes in where its target can."""
    tables, _, body = precision.partition("+")
    return cast("Body", body or ("fp16" if tables == "fp16" else "fp32"))


def weights_of(precision: Asked) -> Weights:
    """Return what a scheme stores weights packages in: in int8 beside int4 tables too, in fp32 where any may do."""
    return "int8" if precision != "auto" and tables_of(precision) in ("int8", "int4") else "fp32"


def named(tables: str, body: str) -> str:
    """Return the name of a scheme by its two parts; what is no Precision is no scheme."""
    alone = tables == body or (tables in ("int8", "int4") and body == "fp32")
    return tables if alone else f"{tables}+{body}"


def has_own_tables(precision: Precision) -> bool:
    """Say whether a scheme stores tables otherwise than all else."""
    return tables_of(precision) != body_of(precision)
