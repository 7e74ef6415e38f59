"""The errors that users see: one line that says what, where and what is allowed."""

from __future__ import annotations

from mlkd.output.secrets import redact

_LONGEST = 1000
"""Characters of a message; it may quote a value of any length."""


class UserError(Exception):
    """A wrong input or a state that the user has to mend.

    The message is one line and complete: what is wrong, where, and what is allowed. Entry
    points print it after ``error:`` and exit with status 2; it never reaches the user as a
    traceback.
    """

    def __init__(self, message: str) -> None:
        """Keep the message on one line, whatever was in the file or setting that it quotes."""
        message = redact(message)
        shown = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
        super().__init__("".join(escaped))


class Interrupted(BaseException):
    """The user or the scheduler asked the process to stop; everything needed to go on is saved.

    Like KeyboardInterrupt no Exception, so that nothing on the way takes it for a failure.
    """
