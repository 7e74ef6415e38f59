"""What a file is that should have been text."""

from __future__ import annotations

from pathlib import Path

from mlkd.output.errors import UserError

_PACKED = {
    b"\x1f\x8b\x08": "packed with gzip; call it .gz",
    **{b"BZh%d1AY&SY" % level: "packed with bzip2; call it .bz2" for level in range(1, 10)},
    b"\xfd7zXZ\0": "packed with xz; call it .xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"PAR1\x15": "a Parquet file; take its text out",
    b"%PDF-": "a PDF file; take its text out",
    b"SQLite format 3\0": "a database; take its text out",
}
_AS_NAMED: dict[str, tuple[bytes, ...]] = {
    ".gz": (b"\x1f\x8b",),
    ".bz2": (b"BZh",),
    ".xz": (b"\xfd7zXZ", b"]\0\0"),
}
"""How packed files start, by the ends of their names; an .xz may be of the older kind, .lzma."""
_OFFICE = (b"[Content_Types].xml", b"docProps/", b"xl/", b"word/", b"mimetype")
"""Names of the first files in documents, which are ZIP archives."""
_FORMATS = {b"PK\x03\x04": "moses", b"PAR1\x15": "parquet"}
"""Formats of pairs in which some of these are read."""
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""Marks of the byte order; a longer one comes before a shorter one."""
START = 64
"""Bytes that say what a file is."""
_ENOUGH = 6
"""Bytes from which a pattern of zeros says something."""


class OtherFile(UserError):
    """A file is packed, or no text; a corpus of pairs may have it in another format."""

    def __init__(self, message: str, format: str | None = None) -> None:
        super().__init__(message)
        self.format = format


def refuse_packed(start: bytes, path: Path) -> None:
    """Stop at a file that is packed, or no text at all.

    Args:
        start: Its first bytes.
        path: Its name.

    Raises:
        OtherFile: It is one; the line says which.
    """
    for magic, name in _PACKED.items():
        if start.startswith(magic):
            if start[30:].startswith(_OFFICE):  # the name of the first file
                raise OtherFile(f"{path}: an office document; save its text as CSV")
            raise OtherFile(f"{path}: {name}", _FORMATS.get(magic))


def refuse_misnamed(start: bytes, path: Path) -> None:
    """Stop at a file that is packed otherwise than its name says, or not at all.

    Args:
        start: Its first bytes.
        path: Its name, which ends as packed files do.

    Raises:
        UserError: It is one; the line says which.
    """
    if start and not start.startswith(_AS_NAMED[path.suffix]):
        refuse_packed(start, path)
        raise UserError(f"{path}: not packed; leave {path.suffix} out of its name")


def refuse_wide(start: bytes, path: Path) -> None:
    """Stop at text in UTF-16 or UTF-32, where UTF-8 is read.

    UTF-16 without a mark of its byte order shows in its zeros: every other byte of Latin letters.

    Args:
        start: Its first bytes.
        path: Its name.

    Raises:
        UserError: It is one; the line says which.
    """
    found = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    few, many = sorted((start[::2].count(0), start[1::2].count(0)))
    if len(start) >= _ENOUGH and not few and 4 * many > len(start):
        found = found or "UTF-16"
    if found:
        raise UserError(f"{path}: {found} where UTF-8 is read; convert it")
