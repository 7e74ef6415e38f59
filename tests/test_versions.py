"""Code whose change changes what is trained declares a version, and the version follows it.

``python tests/test_versions.py`` records the present code.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from pathlib import Path

from mlkd.config.section import Decides
from mlkd.config.versions import code_versions

RECORD = Path(__file__).with_name("versions.json")
PACKAGE = Path(__file__).parents[1] / "mlkd"
_FORMAT = re.compile(r"^_FORMAT = (\d+)$", re.MULTILINE)
SOURCES = {
    "PairMSEConfig": ["losses/pair_mse.py"],
    "MCLConfig": ["losses/mcl.py", "losses/gather.py"],
    "SentenceSettings": ["stages/sentence.py", "losses/__init__.py", "losses/vectors.py"],
    "EmbeddingSettings": ["stages/embedding.py", "stages/sentence.py", "losses/__init__.py"],
    "HiddenConfig": ["losses/hidden.py"],
    "AttentionConfig": ["losses/attention.py"],
    "LayersSettings": ["stages/layers.py", "stages/layer_terms.py"],
    "GoldConfig": ["losses/gold.py"],
    "SoftConfig": ["losses/soft.py"],
    "TaskSettings": ["stages/task.py", "stages/layer_terms.py", "encoders/head.py"],
    "MaskingConfig": ["stages/masking.py"],
    "SparseSettings": ["stages/sparse.py", "stages/sentence.py", "student/furthest.py"],
    "SparseTaskSettings": ["stages/sparse.py", "stages/task.py", "stages/layer_terms.py",
                           "encoders/head.py", "student/furthest.py"],
    "DomainsSettings": ["stages/domains.py", "stages/virtual.py", "stages/layer_terms.py",
                        "losses/domain_sums.py"],
    "DomainsTaskSettings": ["stages/domains_task.py", "stages/domains.py", "stages/virtual.py",
                            "stages/layer_terms.py", "encoders/head.py",
                            "losses/domain_sums.py"],
    "DomainGraphConfig": ["losses/domain_graph.py"],
    "OptimConfig": ["stages/base.py", "training/fit.py", "training/trainable.py",
                    "training/best.py",
                    "training/guard.py", "student/table.py", "encoders/forward.py"],
    "StudentConfig": ["student/start.py", "student/initialise.py", "student/narrow.py",
                      "student/trim.py", "student/codes.py", "encoders/coded.py",
                      "encoders/bottleneck.py", "encoders/backbone.py", "encoders/compact.py",
                      "encoders/words.py", "encoders/tokenizer.py"],
    "DataConfig": ["data/plan.py", "data/module.py", "data/tokens.py",
                   "training/reads.py", "encoders/frozen.py", "targets/cache.py",
                   "targets/live.py"],
}  # fmt: skip
STORES = {
    "data/pairs.py": ["data/pairs.py", "data/cleaning.py", "data/collect.py", "data/compact.py",
                      "data/distinct.py", "data/labelled.py", "data/readers.py", "data/rows.py",
                      "data/formats/*.py"],
    "data/tokens.py": ["data/tokens.py"],
    "data/shares.py": ["data/shares.py", "data/cleaning.py"],
    "encoders/frozen.py": ["encoders/frozen.py", "encoders/forward.py", "encoders/compact.py",
                           "targets/cache.py"],
    "recipes/inputs.py": ["recipes/inputs.py", "student/vocabulary.py", "student/wordpiece.py",
                          "student/word_alignment.py", "encoders/tokenizer.py"],
    "metrics/evaluation.py": ["metrics/evaluation.py", "metrics/scoring.py", "metrics/bitext.py",
                              "metrics/classification.py", "metrics/similarity.py",
                              "metrics/set_files.py", "metrics/sets.py", "metrics/sides.py",
                              "encoders/head.py"],
}  # fmt: skip
"""Modules whose ``_FORMAT`` is part of what a cache is found by, and what makes its content."""


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
    """Version and sources of each section and each store."""
    formats = {name: _FORMAT.search((PACKAGE / name).read_text()) for name in STORES}
    versions = code_versions() | {name: int(x[1]) for name, x in formats.items() if x}
    return {
        name: {
            "version": versions[name],
            "sources": {
                str(path.relative_to(PACKAGE)): meaning(path)
                for source in sources
                for path in sorted(PACKAGE.glob(source))
            },
        }
        for name, sources in (SOURCES | STORES).items()
    }


def test_every_version_names_its_sources() -> None:
    assert code_versions().keys() == SOURCES.keys()


def test_a_change_of_code_raises_its_version() -> None:
    recorded, now = json.loads(RECORD.read_text()), present()
    assert now == recorded, (
        "code that decides what is trained or cached has changed: raise `version` of the settings, "
        "or `_FORMAT` of the module, named here if results change, then run "
        "python tests/test_versions.py"
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
