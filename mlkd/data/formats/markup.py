"""Markup in messages and documentation: its text stays."""

from __future__ import annotations

import html
import re

GAP, BREAK = "\0", "\1"
"""Stand for an inline element that left no text, and for where a block or a key ends;
:func:`close_gaps` makes white space of them."""

# Scripts that are written without spaces: Thai to Myanmar, Khmer, CJK.
_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)
_STARTS, _ENDS = "([{“„«", ".!?:;,…)]}”»"
_HOLE = re.compile(rf" {GAP}+(?=[ {re.escape(_ENDS)}])")

_NAME = r"[A-Za-z_][\w:.-]*"
_TAG = re.compile(
    rf"<!--.*?-->|<(?P<close>/)?(?P<name>{_NAME})"
    r"(?P<attributes>(?:\s+[\w:.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*)\s*(?P<empty>/)?>",
    re.DOTALL,
)
ENTITY = r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});"
"""A character by its name or number, as in HTML."""
_ENTITY = re.compile(ENTITY)
_AGAIN = re.compile(
    r"</(key|keycap|kbd|gui|guibutton|guilabel|guimenu|guisubmenu|guimenuitem|cell)>(?=<\1[\s>])"
)
"""Between two keys, menus or cells, which stand apart; ``<b>bold</b><b>ly</b>`` is one word."""
_BLOCKS = set(
    "p br hr li ul ol dl dt dd div table tr td th h1 h2 h3 h4 h5 h6 img para title listitem "
    "itemizedlist orderedlist simplelist member entry row note tip warning important".split()
)
_VOID = {"br", "hr", "img", "p", "li"}
_KINDS = "annotation|constant|constructor|enum|member|method|operator|param|signal|theme_item"
"""What Godot's references name."""
_DOCUMENTS = [
    (re.compile(r":[\w:+-]{1,40}:`([^`<]+?)(?:\s*<[^`>]*>)?`"), r"\1"),  # reST :ref:`text <place>`
    (re.compile(r"`([^`<>]+)`__?(?!\w)"), r"\1"),  # reST `text`_
    (re.compile(r"`([^`<]+?)\s*<[^`>]+>`__?"), r"\1"),  # reST `text <address>`_
    (re.compile(r"``([^`]+)``"), r"\1"),
    (re.compile(r"!?\[([^\[\]]+)\]\((?:https?:|[./#])[^()\s]*\)"), r"\1"),  # [text](address)
    (re.compile(r"(?<![\w*])\*\*(\S(?:[^*]*\S)?)\*\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w*])\*(\w(?:[^*\n]*\w)?)\*(?![\w*])"), r"\1"),
    (re.compile(r"\[(\w+)(?:[ =][^\[\]]*)?\]([^\[\]]*)\[/\1\]"), r"\2"),  # BBCode [b]text[/b]
    (re.compile(rf"\[(?:{_KINDS}) ([\w.@/]+)\]"), r"\1"),  # Godot's [method Node.add_child]
    # and [Node2D]
    (re.compile(r"(?<!\w)\[((?=\w{0,60}[a-z])[A-Z]\w{0,60}[A-Z\d]\w{0,60})\]"), r"\1"),
]
"""Inline markup of documentation beside tags."""


_SUBSTITUTION = re.compile(r"(?<![\w|])\|[A-Za-z][\w.-]{1,60}\|(?:__?)?(?![\w|])")
"""What reST puts something else for, mostly a picture: ``|icon|``."""


def without_markup(text: str) -> str:
    """The text without tags and inline markup of reST, Markdown and BBCode, entities decoded.

    ``<file>`` in ``open <file>`` is no tag: a tag is closed, closes itself, has attributes, or is
    one of those that HTML leaves open.
    """
    if "`" in text or "*" in text or "[" in text:
        marked = text
        for pattern, kept in _DOCUMENTS:
            text = pattern.sub(kept, text)
        if "`" in marked and text != marked:  # reST has a \\ where no white space is meant
            text = text.replace("\\ ", "")
    if "|" in text:
        text = close_gaps(_SUBSTITUTION.sub(GAP, text))
    if "<" in text:
        names = [(m["name"], bool(m["close"])) for m in _TAG.finditer(text) if m["name"]]
        closed = {name for name, close in names if close} & {n for n, close in names if not close}
        text = _AGAIN.sub(rf"\g<0>{BREAK}", text)
        text = close_gaps(_TAG.sub(lambda match: _instead(match, closed), text))
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text


def _instead(match: re.Match[str], closed: set[str]) -> str:
    name = match["name"]
    if name is None:
        return GAP
    tag = name.lower()
    is_tag = name in closed or match["empty"] or match["attributes"] or tag in _VOID
    if not is_tag:
        return match[0]
    if tag in _BLOCKS:
        return BREAK
    return GAP if match["empty"] and name not in closed else ""


def close_gaps(text: str) -> str:
    """One space for an element without text between two words, nothing before punctuation.

    Blocks and keys stand apart from whatever is beside them.
    """
    return re.sub(f"[{GAP}{BREAK}]+", _gap, _HOLE.sub("", text))


def _gap(match: re.Match[str]) -> str:
    text = match.string
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    if BREAK in match[0]:
        apart = before and after and not (before.isspace() or before in _STARTS)
        apart = apart and not (after.isspace() or after in _ENDS)
    else:
        apart = after.isalpha() and (before.isalpha() or (before and before in _ENDS))
    if not apart:
        return ""
    return "" if _NO_SPACES.match(before) and _NO_SPACES.match(after) else " "
