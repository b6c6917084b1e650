"""The ids of a catalogue come back as they were, whatever text they are; nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeio import catalogue

IDS = (
    "01",
    "1",
    "001",
    "1_0",
    " a, b ",
    'say "x"',
    "a\tb\nc\rd",
    "\\t",
    "\\",
    "Käse\u2028🧀",
    "\u200b",
    "x" * 2**14,
)
CONTROLS = ("\0", "a\0b", "\x1b[2J", "a\x7f", "a\x85b")
HEADER = "row\tid\tclicks\n"


SIGNS = st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from("\t\n\r")


@given(st.lists(st.text(SIGNS, min_size=1).filter(lambda t: not t.isspace()), unique=True))
def test_any_ids_come_back(ids: list[str]) -> None:
    for names in (ids, IDS):
        data = catalogue.to_bytes(("", *names), range(len(names) + 1))
        assert catalogue.parse(data, len(names) + 1) == ("", *names)


def test_the_file_is_as_it_is_described() -> None:
    data = catalogue.to_bytes(("", "01", "a\tb", "ü\\"), [0, 5, 0, 2])
    assert data.decode() == "row\tid\tclicks\n1\t01\t5\n2\ta\\tb\t0\n3\tü\\\\\t2\n"


@pytest.mark.parametrize("strange", CONTROLS)
def test_control_characters_are_neither_written_nor_read(strange: str) -> None:
    with pytest.raises(catalogue.CatalogueError, match="a control character in the id"):
        catalogue.to_bytes(("", "a", strange), [0, 1, 1])
    with pytest.raises(catalogue.CatalogueError, match=r"a control character in the id .* of line 3"):
        catalogue.parse(f"{HEADER}1\ta\t1\n2\t{strange}\t1\n".encode(), 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no catalogue"),
        ("\0" * 64, "is no catalogue"),
        ("id\n1\n", "is no catalogue"),
        (HEADER + "1\ta\t1\n2\tb\t1", "is no catalogue"),
        (HEADER + "1\ta\t1\n", "lists 1 items, and the model has 2"),
        (HEADER + "1\ta\t1\n2\tb\t1\n3\tc\t1\n", "lists 3 items, and the model has 2"),
        (HEADER + "1\ta\t1\n2\ta\t1\n", "gives the id 'a' to two items, in lines 2 and 3"),
        (HEADER + "1\ta\\tb\t1\n2\ta\tb\t1\n", "in line 3, not row 2"),
        (HEADER + "2\ta\t1\n1\tb\t1\n", "in line 2, not row 1"),
        (HEADER + "01\ta\t1\n2\tb\t1\n", "in line 2, not row 1"),
        (HEADER + "1\ta\t-1\n2\tb\t1\n", "in line 2"),
        (HEADER + "1\ta\t1\r\n2\tb\t1\r\n", "in line 2"),
        (HEADER + "1\ta\t1\n2\t\t1\n", "an id that is empty"),
        (HEADER + "1\ta\t1\n2\t  \t1\n", "an id that is empty"),
        (HEADER + "1\ta\t1\n2\t" + "b" * 20_000 + "\t1\n", "longer than 16384"),
        (HEADER + "1\ta\\x\t1\n2\tb\t1\n", "a backslash other than"),
        (HEADER + "1\ta\\\t1\n2\tb\t1\n", "a backslash other than"),
        (HEADER + "1\ta\rb\t1\n2\tb\t1\n", "a carriage return"),
    ],
)
def test_what_is_no_catalogue_is_refused(text: str, words: str) -> None:
    with pytest.raises(catalogue.CatalogueError, match=words):
        catalogue.parse(text.encode(), 3)
    with pytest.raises(catalogue.CatalogueError, match="not UTF-8 in line 3"):
        catalogue.parse(f"{HEADER}1\ta\t1\n2\t".encode() + b"\xff\t1\n", 3)
