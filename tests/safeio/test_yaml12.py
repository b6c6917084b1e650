"""YAML as profiles are written in it: the core schema of YAML 1.2, and a line for everything else."""

import math
import os
import random
from pathlib import Path
from typing import Any

import pytest

from exporter import profiles
from safeio import yaml12

# Plain words and what section 10.3.2 of YAML 1.2 makes of them; YAML 1.1 reads most of them differently.
STRINGS = (
    *("on", "Off", "yes", "n", "tRue", "nUll", "None", "inf", "nan", ".iNf", "0b11", "0O17", "0o8", "-0x1F", "1_000"),
    *("12:30:45", "190:20:30", "e3", ".", "=", "<<", "2020-01-01", "2020-13-99", "2001-12-14t21:59:43-05:00", "\u0661"),
)
NUMBERS = {
    "0o17": 15,
    "017": 17,
    "0x1F": 31,
    "+12": 12,
    "-0": 0,
    "08": 8,
    "1e3": 1e3,
    "1E+3": 1e3,
    ".5": 0.5,
    "1.": 1.0,
    "+.5e-1": 0.05,
    "1e400": math.inf,
    ".inf": math.inf,
    "+.Inf": math.inf,
    "-.INF": -math.inf,
}
OTHERS = {"true": True, "FALSE": False, "null": None, "~": None, "": None, "'1'": "1", '"on"': "on", '"\\x41"': "A"}
WORDS: dict[str, Any] = {**{word: word for word in STRINGS}, **NUMBERS, **OTHERS}


def read(text: str) -> yaml12.Document:
    return yaml12.read(text.encode())


@pytest.mark.parametrize("word", WORDS)
def test_a_word_has_one_meaning(word: str) -> None:
    assert [*read(f"- {word}").data, read(f"a: {word}").data["a"]] == [WORDS[word]] * 2
    assert type(read(f"- {word}").data[0]) is type(WORDS[word])


def test_nan_is_a_number() -> None:
    assert all(math.isnan(value) for value in read("[.nan, .NaN, .NAN]").data)


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "an anchor": (b"a: 1\nb: &x 2", 2, "anchors"),
    "an alias": (b"a: 1\nb: *x", 2, "aliases"),
    "an anchor of a key": (b"a: 1\n&x b: 2", 2, "anchors"),
    "a merge": (b"a: &x {b: 1}\nc:\n  <<: *x", 1, "anchors"),
    "a tag": (b"a: 1\nb: !!int 2", 2, "tags"),
    "a tag of a list": (b"a: 1\nb: !x [1]", 2, "tags"),
    "the tag of no word": (b"a: ! 1", 1, "tags"),
    "a directive": (b"%YAML 1.2\n---\na: 1", 1, "directives"),
    "an unknown directive": (b"%X\n---\na: 1", 1, "directives"),
    "a second document": (b"a: 1\n---\nb: 2", 2, "second document"),
    "a second document after dots": (b"a: 1\n...\nb: 2", 3, "document start"),
    "a key twice": (b"a: 1\nb: 2\na: 3", 3, "already in line 1"),
    "a key twice in a line": (b"x: 0\ny: {a: 1, b: 2, a: 3}", 2, "y.a: this key stands already in line 2"),
    "a key twice, quoted": (b'a: 1\n"a": 2', 2, "already in line 1"),
    "a key twice, escaped": (b'a: 1\n"\\x61": 2', 2, "already in line 1"),
    "a key twice in a list": (b"- a: 1\n  a: 2", 2, "0.a: this key stands already in line 1"),
    "a number for a key": (b"a: 1\n2: 3", 2, "no string"),
    "a truth for a key": (b"true: 3", 1, "no string"),
    "nothing for a key": (b"a: 1\n?\n: 3", 2, "no string"),
    "a list for a key": (b"? [a]\n: 1", 1, "a key must be a word"),
    "a mapping for a key": (b"a: 1\n{b: 2}: 1", 2, "a key must be a word"),
    "a NUL": (b"a: 1\nb: \0", 2, "U+0000"),
    "a control character": (b"a: 1\r\nb: 1\rc: \x1b[2J", 3, "U+001B"),
    "a line break of YAML 1.1": ("a: b\u2028c: d".encode(), 1, "U+2028"),
    "no UTF-8": (b"a: 1\n\nb: \xff", 3, "0xFF"),
    "half a character": (b"a: 1\nb: \xc3", 2, "0xC3"),
    "UTF-16": ("a: 1".encode("utf-16"), 1, "UTF-16"),
    "half of a pair": (b'a: "\\ud83d"', 1, "half a character"),
    "an escape beyond Unicode": (b'a: "\\UFFFFFFFF"', 1, "not YAML"),
    "lists in lists": (b"[" * 60_000, 1, "deep"),
    "lists in lists, in lines": (b"[\n" * 30_000, 34, "deep"),
    "items of items": (b"- " * 30_000, 1, "deep"),
    "mappings in mappings": (b"{a: " * 15_000, 1, "deep"),
    "too many digits": (b"a: " + b"9" * 5_000, 1, "5000 characters"),
    "too many hexadecimal digits": (b"a: 0x" + b"f" * 50_000, 1, "50002 characters"),
    "no end": (b"a: [1,\n 2", 2, "not YAML"),
    "a tab for an indent": (b"a:\n\tb: 1", 2, "not YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_everything_else_is_refused_with_its_line(case: str) -> None:
    data, line, part = REFUSED[case]
    with pytest.raises(yaml12.YamlError) as caught:
        yaml12.read(data)
    assert (caught.value.line, part in str(caught.value)) == (line, True), str(caught.value)


def test_a_document_knows_its_lines() -> None:
    document = read("\ufeff---\na:\n  - b: 1\n    c: [x,\n      y]\n# no more\n...\n")
    assert document.data == {"a": [{"b": 1, "c": ["x", "y"]}]}
    assert document.lines[("a", "0", "c", "1")] == 5
    assert [read(text).data for text in ("", "# nothing", "---", "---\n...")] == [None] * 4


def test_whatever_a_file_holds_it_is_read_or_refused() -> None:
    """Mutations of the shipped profiles with all that YAML gives a meaning to."""
    parts = [
        b"&a ",
        b"*a",
        b"!!int ",
        b"---\n",
        b"%TAG ! x\n",
        b"? ",
        b": ",
        b"- ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"|9\n",
        b">\n",
    ]
    parts += [
        b"\0",
        b"\xff",
        b"\t",
        b'"\\',
        b"'",
        b"#",
        b"@",
        b"\r",
        b"\xef\xbb\xbf",
        b"<<: ",
        b"%YAML 1." + b"9" * 5000,
    ]
    random_ = random.Random(13)
    shipped = [path.read_bytes() for path in profiles.shipped().values()]
    refused = 0
    for _ in range(1500):
        data = bytearray(random_.choice(shipped))
        for _ in range(random_.randint(1, 5)):
            place = random_.randrange(len(data) + 1)
            if random_.random() < 0.7:
                data[place:place] = random_.choice(parts)
            else:
                del data[place : place + random_.randint(1, 20)]
        try:
            yaml12.read(bytes(data))
        except yaml12.YamlError as error:
            refused += 1
            assert 1 <= error.line <= data.count(b"\n") + data.count(b"\r") + 1
    assert 500 < refused < 1500


def test_only_whole_files_of_a_profiles_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "real.yml").write_text("name: a\ntargets: {onnx: }")
    (tmp_path / "link.yaml").symlink_to("real.yml")
    assert profiles.load(str(tmp_path / "link.yaml")).name == "a"  # the user's own place
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "large.yaml").write_bytes(b"[" * (1 << 20))
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("loop.yaml", "folder.yaml", "large.yaml", "pipe.yaml", "gone.yaml"):
        with pytest.raises(profiles.loader.ProfileError, match=name):
            profiles.load(str(tmp_path / name))
    with pytest.raises(profiles.loader.ProfileError, match="/dev/zero"):
        profiles.load("/dev/zero")
