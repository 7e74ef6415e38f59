"""Values with braces and blanks on the command line."""

from __future__ import annotations

import shlex

import pytest
from conftest import Command
from hydra.core.override_parser.overrides_parser import OverridesParser

from mlkd.config.quoting import how_to_quote, quoted


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("x.{target}.tsv", "x.{target}.tsv"),
        ("/a/b (1)", "/a/b (1)"),
        ("it's {a}", "it's {a}"),
        ("${HOME} {a}", "${HOME} {a}"),
        ('a "b" {c}!', 'a "b" {c}!'),
        ("[a.{b}, c(d)]", ["a.{b}", "c(d)"]),
        ("Häuser (alt).tsv", "Häuser (alt).tsv"),
    ],
)
def test_the_quoting_shown_is_read_as_meant(value: str, meant: object) -> None:
    message = how_to_quote(f"data.root={value}")
    start = f"data.root={value}: braces, blanks and other marks need quotes; write "
    assert message.startswith(start)
    (word,) = shlex.split(message.removeprefix(start))  # what a shell hands over
    override = OverridesParser.create().parse_override(word)
    assert (override.key_or_group, override.value()) == ("data.root", meant)


def test_what_no_quotes_mend() -> None:
    expected = (
        "data.root: cannot be read; allowed: key=value, or key='value' with other marks in it"
    )
    assert how_to_quote("data.root") == expected


def test_quotes_within_quotes() -> None:
    for text in ("a'b", r"a\'b", r"a\\'b", "'", ""):
        assert OverridesParser.create().parse_override(f"k={quoted(text)}").value() == text


def test_a_command_says_how_to_quote(command: Command) -> None:
    result = command("mlkd.train", "data.root=my {dir}")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "error: data.root=my {dir}: braces, blanks and other marks need quotes; "
        "write \"data.root='my {dir}'\""
    )
