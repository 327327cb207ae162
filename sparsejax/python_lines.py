"""Which lines of a text Python's tokenizer accepts."""

from __future__ import annotations

import io
import tokenize

__all__ = ["accepted", "is_accepted"]


def is_accepted(line: str) -> bool:
    """Whether Python's `tokenize` finds nothing wrong in a line that stands alone.

    Its indentation is overlooked, and it may leave a bracket, a string of three quotes
    or a backslash open, since the lines after it may close them. Prose inside of such a
    string is read as if it was code, so that even of real source not all lines are
    accepted; releases of Python differ in a few others.

    Args:
      line: without its end.

    Example:
      >>> [is_accepted(line) for line in ("  x = f(1,", 'say("it', "It's five")]
      [True, False, False]
    """
    read = io.StringIO(line.strip() + "\n").readline
    try:
        return all(
            token.type != tokenize.ERRORTOKEN
            for token in tokenize.generate_tokens(read)
        )
    except tokenize.TokenError as error:
        return "multi-line" in str(error) or "triple-quoted" in str(error)
    except SyntaxError:
        return False


def accepted(text: str) -> tuple[int, int]:
    """How many whole lines of a text are accepted, and how many there are.

    What is before the first end of a line and behind the last one may be parts of
    lines, and is left out, as are lines of white space.

    Args:
      text: cut out of a longer one anywhere.

    Example:
      >>> accepted("rt os\\nx = 1\\n\\n?\\nde")
      (1, 2)
    """
    # Python's lines end here alone, not at form feeds.
    lines = [line for line in text.split("\n")[1:-1] if line.strip()]
    return sum(map(is_accepted, lines)), len(lines)
