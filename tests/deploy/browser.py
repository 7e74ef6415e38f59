"""Runs a page of the export format ``web`` in headless Chromium.

``python tests/deploy/browser.py outputs/export/<run>/web "Wo ist mein Paket?"`` installs what it
needs with ``npm`` once, serves the folder on 127.0.0.1, and prints what it measured; pictures of
the page lie beside its result.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from targets import HERE, ROOT, texts

from mlkd.deploy.exported import open_onnx
from mlkd.deploy.web.inputs import INSTALL, PACKAGES

_DRIVER = "playwright-core@1.65.1"
_FAKE = b"export default 0;\n"


def fake_runtime(folder: Path, size: int = 0, **versions: str) -> Path:
    """A folder of packages that have the names of those that a page needs, and nothing in them.

    Args:
        folder: Where it goes.
        size: Of each file, if that is more than a line.
        versions: Of packages, by the end of their name, with ``_`` for ``-``.
    """
    for package in PACKAGES:
        place = folder / "node_modules" / package.name
        place.mkdir(parents=True)
        key = package.name.rpartition("/")[2].replace("-", "_")
        about = {"name": package.name, "version": versions.get(key, package.tried)}
        (place / "package.json").write_text(json.dumps(about))
        for name in (*package.files, *filter(None, [package.licence])):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(_FAKE.ljust(size, b"\n"))
    return folder / "node_modules"


def runtime() -> Path:
    """The packages that a page needs and the one that drives the browser, from the registry."""
    folder = ROOT / "web"
    if not (folder / "done").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        command = [*INSTALL.split(), _DRIVER, *options, "--prefix", str(folder)]
        subprocess.run(command, check=True)
        (folder / "done").touch()
    return folder / "node_modules"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a folder that Python's own server serves."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=nothing, text=True) as server:
        try:
            assert server.stdout
            port = re.search(r"port (\d+)", server.stdout.readline())
            assert port
            yield f"http://127.0.0.1:{port[1]}/"
        finally:
            server.kill()


def browse(folder: Path, query: str, others: Sequence[str], out: Path) -> dict[str, Any]:
    """Load the page three times, and search.

    Args:
        folder: Of the page.
        query: Is typed.
        others: Are encoded.
        out: Result, beside which pictures go.

    Returns:
        ``version`` of the browser; ``requests`` (addresses) and ``problems``; ``first_hits_ms``
        from opening the page, of a stored vector, and ``ready_ms``, when a query has been encoded
        and answered, a number a load; ``empty``, what it says to an empty query;
        ``hits`` (text, language, cosine) and ``status``; ``in_language``, hits in ``language``;
        ``vectors`` of the query and the others; ``median_ms`` of ``encode`` and ``search``;
        ``phone_width`` (px) of the page on a screen of 360; ``as_file``, what it says where it is
        opened without a server; ``cosines`` of the vectors with those
        that the folder's ``encode.py`` gives; ``bytes`` of the folder and ``ratio`` to those of the
        model and the runtime.
    """
    place = runtime().parent
    script = place / "browser_peer.mjs"
    shutil.copy(HERE / "peers" / script.name, script)
    given = out.with_suffix(".in")
    given.write_text(
        json.dumps({"query": query, "texts": list(others), "folder": str(folder.absolute())})
    )
    chromium = shutil.which("chromium")
    assert chromium
    with serving(folder) as address:
        done = subprocess.run(
            ["node", script, address, chromium, given, out],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    found["address"] = address
    expected = open_onnx(folder)([query, *others])
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    vectors = np.array(found["vectors"])
    found["cosines"] = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1)
    found["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    (graph,) = folder.glob("onnx/*.onnx")
    loaded = (folder / "runtime").glob("*")
    found["ratio"] = found["bytes"] / sum(p.stat().st_size for p in (graph, *loaded))
    return found


if __name__ == "__main__":
    result = browse(Path(sys.argv[1]), sys.argv[2], list(texts().values()), ROOT / "browser.json")
    del result["vectors"], result["requests"]
    result["cosines"] = {
        name: float(getattr(result["cosines"], name)()) for name in ("min", "mean")
    }
    print(json.dumps(result, indent=1, ensure_ascii=False))  # noqa: T201
