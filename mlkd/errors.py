"""The errors that users see: one line that says what, where and what is allowed."""

from __future__ import annotations


class UserError(Exception):
    """A wrong input or a state that the user has to mend.

    The message is one line and complete: what is wrong, where, and what is allowed. Entry
    points print it after ``error:`` and exit with status 2; it never reaches the user as a
    traceback.
    """


class Interrupted(BaseException):
    """The user or the scheduler asked the process to stop; everything needed to go on is saved.

    Like KeyboardInterrupt no Exception, so that nothing on the way takes it for a failure.
    """
