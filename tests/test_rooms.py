"""The rooms of the package and the one direction of imports between them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mlkd"
FLOORS = (
    {"output"},
    {"config", "storage"},
    {"runs", "machine", "data"},
    {"encoders", "losses"},
    {"student", "targets", "metrics"},
    {"stages", "deploy"},
    {"training"},
    {"recipes", "reporting"},
    {"sweeps", "bench", "api"},
)
"""Each room sees those on the floors below; commands, the modules at the top, see all."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    """The folder or the module at the top that a dotted name belongs to."""
    return [*module.split("."), ""][1]


def imports() -> Iterator[tuple[str, str]]:
    """Pairs of a module and a module of mlkd that it imports anywhere."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(["mlkd", *path.relative_to(PACKAGE).with_suffix("").parts])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlkd"):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from ((name, found) for found in whole)
            elif isinstance(node, ast.Import):
                found = [alias.name for alias in node.names if alias.name.startswith("mlkd")]
                yield from ((name, module) for module in found)


def test_imports_go_one_way() -> None:
    top, found = len(FLOORS), list(imports())
    assert len(found) > 500
    wrong = []
    for module, imported in found:
        here, there = room_of(module), room_of(imported)
        if "__main__" in module or here == there:
            continue
        if FLOOR.get(there, top) >= FLOOR.get(here, top) and here != "__init__":
            wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_a_module_at_the_top_is_a_command_or_the_python_door() -> None:
    names = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "api"}
    commands = {path.stem for path in (PACKAGE.parent / "conf").glob("*.yaml")}
    assert names <= commands
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} <= {*FLOOR}


def test_every_module_fits_in_a_head() -> None:
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert long == {}
