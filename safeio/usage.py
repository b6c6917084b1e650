"""What is wrong with the words of a command line, said in one line."""

import re
from typing import Any

from safeio.errors import nearest, one_line

_NO_CHOICE = re.compile(r"'(?P<word>[^']*)' is not one of ")


def usage_message(error: Any) -> str:
    """Return what Typer says of wrong options or arguments, with the name that was probably meant."""
    message = error.format_message().replace("Value error, ", "")  # pydantic's own word
    if type(error).__name__ == "NoSuchOption":
        message = error.message + nearest(error.option_name, error.possibilities or ())
    elif (wrong := _NO_CHOICE.search(error.message)) is not None and error.param is not None:
        message += nearest(wrong["word"], map(str, error.param.type_descriptor.choices or ()))
    return f"{one_line(message).rstrip('. ')}. Try --help."
