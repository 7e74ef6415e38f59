"""Whether files are in the languages that are asked for, where they say so."""

from __future__ import annotations

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.codes import speaks, standard


class Asked:
    """Remembers the languages of a corpus until one of its parts has those asked for."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._found = False
        self._seen: dict[str, None] = {}

    def has(self, source: str | None, target: str | None) -> bool:
        """Whether a part of a file is in the two languages.

        Args:
            source: As the file says; what it does not say is taken for what is asked for.
            target: As the file says.

        Raises:
            UserError: The file does not say its target, and several are read from one path.
        """
        wanted = self._wanted
        if not target and not wanted.one_target:
            raise wanted.refuse(
                f"{wanted.corpus.path} does not say its language, so that {{target}} must be "
                "in the path",
                ".path",
            )
        fits = not source or speaks(source, wanted.source)
        fits = fits and (not target or speaks(target, wanted.target))
        self._found |= fits
        if not fits:
            self.note(source, target)
        return fits

    def note(self, *codes: str | None) -> None:
        """Remember languages that are there."""
        self._seen.update((standard(code), None) for code in codes if code)

    def found(self) -> None:
        """Remember that there is a pair of the two languages."""
        self._found = True

    def check(self) -> None:
        """At the end of a corpus.

        Raises:
            UserError: It is in other languages.
        """
        wanted = self._wanted
        if self._seen and not self._found:
            raise wanted.refuse(
                f"no {wanted.source}-{wanted.target} in {wanted.corpus.path}; its languages are "
                f"{', '.join(self._seen)}"
            )
