"""Makes reStructuredText of the library's docstrings: indented formulas and text stay as they are written.

The docstrings are plain text for `help` with sections in Google's style. Their formulas are indented by four
spaces, with signs that have a meaning in reStructuredText, such as `|x|`, `w_k` and `x * w`. This puts
formulas into literal blocks and takes the meaning from the signs, before napoleon reads the sections.
"""

import re

_SECTION = re.compile(r"(Args|Returns|Raises|References|Example|Examples|Attributes|Yields|Note):$")
_CODE = re.compile(r"(`[^`]*`|\*[a-z][a-z ,:]*\*)")  # what keeps its meaning: `code` and *emphasis*
_LETTER = re.compile(r"(?<=: )([A-Za-z0-9])\.$")  # "C." alone would be an item of a list
_SIGNS = re.compile(r"([|\\]|(?<=\w)_(?!\w)|(?<!\S)\*+(?=\S))")


def converted(lines: list[str]) -> list[str]:
    """Returns the lines of a docstring as reStructuredText, sections left for napoleon.

    Args:
        lines: without common indentation.

    Example:
        >>> converted(["Returns |x|.", "", "    y = x_ * w", "", "Args:", "    x: any."])
        ['Returns \\\\|x\\\\|.', '', '::', '', '    y = x_ * w', '', 'Args:', '    x: any.']
    """
    result: list[str] = []
    is_section = is_literal = is_example = is_code = False
    for number, line in enumerate(lines):
        if _SECTION.match(line):
            is_section, is_literal, is_example = True, False, line.startswith("Example")
        elif line and not line.startswith(" "):
            is_section = is_literal = is_example = False
        is_after_blank = number > 0 and not lines[number - 1]
        if not is_section and line.startswith("    ") and is_after_blank and not is_literal:
            result += ["::", ""]
            is_literal = True
        if is_literal or is_example:
            result.append(line)
            continue
        # `code` may begin on one line and end on the next
        opened = "`" + line if is_code else line
        escaped = _LETTER.sub(r"\1\\.", _escaped(opened))
        result.append(escaped[1:] if is_code else escaped)
        is_code = opened.count("`") % 2 == 1
    return result


def _escaped(line: str) -> str:
    head, tick, tail = line.rpartition("`") if line.count("`") % 2 else (line, "", "")
    parts = _CODE.split(head)
    for number, part in enumerate(parts):
        if number % 2 == 0:
            parts[number] = _SIGNS.sub(r"\\\1", part)
        elif part.startswith("`."):
            parts[number] = f"`{part}`"  # `.shape` is no name to look for
        if number % 2 and parts[number + 1][:1].isalnum():
            parts[number] += "\\ "  # the s of `Layer`s
    return "".join(parts) + tick + tail


def _process(app, what, name, value, options, lines) -> None:
    lines[:] = converted(lines)


def setup(app) -> dict:
    """Converts every docstring that autodoc reads, before napoleon does."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True}
