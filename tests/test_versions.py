"""Code whose change changes what is trained declares a version, and the version follows it.

``python tests/test_versions.py`` records the present code.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path

from mlkd.config.section import Decides
from mlkd.config.versions import code_versions

RECORD = Path(__file__).with_name("versions.json")
PACKAGE = Path(__file__).parents[1] / "mlkd"
SOURCES = {
    "PairMSEConfig": ["losses/pair_mse.py"],
    "MCLConfig": ["losses/mcl.py", "losses/gather.py"],
    "SentenceSettings": ["stages/sentence.py"],
    "EmbeddingSettings": ["stages/embedding.py", "stages/sentence.py"],
    "HiddenConfig": ["losses/hidden.py"],
    "AttentionConfig": ["losses/attention.py"],
    "LayersSettings": ["stages/layers.py", "stages/layer_terms.py"],
    "GoldConfig": ["losses/gold.py"],
    "SoftConfig": ["losses/soft.py"],
    "TaskSettings": ["stages/task.py", "stages/layer_terms.py"],
    "MaskingConfig": ["stages/masking.py"],
    "SparseSettings": ["stages/sparse.py", "stages/sentence.py", "student/furthest.py"],
    "SparseTaskSettings": ["stages/sparse.py", "stages/task.py", "stages/layer_terms.py",
                           "student/furthest.py"],
    "DomainsSettings": ["stages/domains.py", "stages/virtual.py", "stages/layer_terms.py",
                        "losses/domain_sums.py"],
    "DomainsTaskSettings": ["stages/domains_task.py", "stages/domains.py", "stages/virtual.py",
                            "stages/layer_terms.py", "losses/domain_sums.py"],
    "DomainGraphConfig": ["losses/domain_graph.py"],
    "OptimConfig": ["stages/base.py", "training/fit.py", "training/trainable.py",
                    "training/best.py",
                    "training/guard.py", "student/table.py", "encoders/forward.py"],
    "StudentConfig": ["student/start.py", "student/initialise.py", "student/narrow.py",
                      "student/trim.py", "student/codes.py", "encoders/coded.py",
                      "encoders/bottleneck.py", "encoders/backbone.py"],
    "DataConfig": ["data/plan.py", "data/module.py", "data/tokens.py", "data/shares.py",
                   "training/reads.py", "encoders/frozen.py", "targets/cache.py",
                   "targets/live.py"],
}  # fmt: skip


def meaning(path: Path) -> str:
    """Hash of what a module does: comments, docstrings and layout are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [x for x in body if not (isinstance(x, ast.Expr) and _is_text(x.value))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def present() -> dict[str, object]:
    """Version and sources of each section."""
    versions = code_versions()
    return {
        name: {
            "version": versions[name],
            "sources": {source: meaning(PACKAGE / source) for source in sources},
        }
        for name, sources in SOURCES.items()
    }


def test_every_version_names_its_sources() -> None:
    assert code_versions().keys() == SOURCES.keys()


def test_a_change_of_code_raises_its_version() -> None:
    recorded, now = json.loads(RECORD.read_text()), present()
    assert now == recorded, (
        "code that decides what is trained has changed: raise `version` of the settings named here "
        "if results change, then run python tests/test_versions.py"
    )


def test_comments_and_docstrings_mean_nothing(tmp_path: Path) -> None:
    one, other, third = (tmp_path / f"{name}.py" for name in "abc")
    one.write_text('def f(x):\n    """One."""\n    return x + 1\n')
    other.write_text("def f(x):  # a comment\n    return (x + 1)\n")
    third.write_text("def f(x):\n    return x + 2\n")
    assert meaning(one) == meaning(other) != meaning(third)


def test_versions_are_part_of_what_decides() -> None:
    from mlkd.config.losses import LossConfig

    loss = LossConfig.model_validate({"mcl": {}})
    assert loss.deciding({*Decides})["mcl"]["version"] == code_versions()["MCLConfig"]


if __name__ == "__main__":
    RECORD.write_text(json.dumps(present(), indent=1) + "\n")
    sys.stdout.write(RECORD.read_text())
