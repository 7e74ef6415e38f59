"""The kill test itself, with a few kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from killtest import _finish, main

from mlkd.output.errors import UserError


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1800)
@pytest.mark.enable_socket
def test_a_killed_chain_ends_with_the_same_weights(tmp_path: Path) -> None:
    main(5, seed=0, path=tmp_path / "kills.md")
    table = (tmp_path / "kills.md").read_text()
    assert "5 kills (SIGKILL)" in table
    assert "12 of 12 results" in table


def test_a_chain_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the chain ended with status 3: .*broken"):
        _finish(["python", "-c", "import sys; print('broken'); sys.exit(3)"], tmp_path)
