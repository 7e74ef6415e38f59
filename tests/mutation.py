"""Change the mathematics one expression at a time and see that a test notices; by hand.

    python tests/mutation.py                          # all rooms: some hours on one processor
    python tests/mutation.py mlkd/losses/mcl.py       # some files
    python tests/mutation.py --every 3 mlkd/data/plan.py    # every third mutant
    python tests/mutation.py --line 'rows is None' mlkd/stages/sparse.py    # of some lines alone

Each mutant is a copy of the tree with one expression changed; a forked process, which has the heavy
libraries already, runs the tests of its file there. A row of the table is printed after each file,
and every mutant that lives; `EQUIVALENT` says which may, and why. What has been run so far is in
`tests/README.md`.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
TIMES = 10
"""A mutant whose tests take so many times as long, and a minute, has been noticed."""
MEMORY = 8 << 30
"""Bytes; one that takes more as well."""
TESTS: dict[str, list[str]] = {
    "mlkd/losses/*.py": ["tests/losses/test_losses.py"],
    "mlkd/losses/attention.py": ["tests/losses/test_layer_terms.py"],
    "mlkd/losses/hidden.py": ["tests/losses/test_layer_terms.py"],
    "mlkd/losses/domain_graph.py": ["tests/losses/test_domain_graph.py"],
    "mlkd/losses/domain_sums.py": ["tests/losses/test_domain_sums.py"],
    "mlkd/losses/gold.py": ["tests/stages/test_task.py", "-k", "by_hand or terms_and"],
    "mlkd/losses/soft.py": ["tests/stages/test_task.py", "-k", "by_hand or terms_and"],
    "mlkd/losses/gather.py": ["tests/machine/test_ranks.py", "-k", "joined_batch"],
    "mlkd/data/plan*.py": ["tests/data/test_plan.py"],
    "mlkd/encoders/forward.py": ["tests/encoders/test_forward.py"],
    "mlkd/student/initialise.py": [
        "tests/student/test_student.py",
        "tests/student/test_codes.py::test_positions_that_no_input_reaches_are_left_out",
    ],
    "mlkd/student/furthest.py": ["tests/student/test_furthest.py"],
    "mlkd/student/codes.py": [
        "tests/student/test_codes.py",
        "-k",
        "different or nearest or rounds",
    ],
    "mlkd/student/narrow.py": ["tests/student/test_narrow.py"],
    "mlkd/student/start.py": ["tests/student", "tests/stages"],
    "mlkd/stages/*.py": ["tests/encoders/test_fast_paths.py", "tests/stages"],
    "mlkd/stages/base.py": [
        "tests/stages/test_base.py",
        "tests/stages/test_stages.py",
        "tests/stages/test_outside.py",
        "tests/machine/test_ranks.py::test_each_process_goes_on_with_its_own_random_numbers",
        "tests/machine/test_ranks.py::test_two_processes_end_with_the_weights_of_one",
    ],
    "mlkd/stages/domains.py": ["tests/stages/test_domains.py", "tests/stages/test_domains_task.py"],
    "mlkd/stages/domains_task.py": ["tests/stages/test_domains_task.py"],
    "mlkd/stages/embedding.py": ["tests/stages/test_sentence.py"],
    "mlkd/stages/layers.py": ["tests/stages/test_layers.py"],
    "mlkd/stages/sentence.py": ["tests/stages/test_sentence.py", "tests/stages/test_stages.py"],
    "mlkd/stages/sparse.py": ["tests/stages/test_sparse.py"],
    "mlkd/stages/task.py": ["tests/stages/test_task.py"],
    "mlkd/stages/masking.py": ["tests/stages/test_layers.py", "-k", "shares_of_masked"],
    "mlkd/stages/layer_terms.py": [
        "tests/stages/test_layers.py",
        "-k",
        "loop_over or padding or left_out or no_match",
    ],
    "mlkd/stages/virtual.py": [
        "tests/stages/test_domains.py",
        "-k",
        "derivative or halves or mixed",
    ],
}
"""Files and the tests that are to notice; a later line goes before an earlier one."""
EQUIVALENT: dict[str, dict[str, str]] = {
    "mlkd/data/plan.py": {
        "self._epoch = lru_cache(maxsize=2)(self._make_epoch)": "memory alone",
        "used = np.zeros(int(self._pairs.max()) + 2, bool)": "the last is never set",
        "if not TYPE_CHECKING:": "an import for types",
        "zip(names, self._members, strict=False)": "as many",
        "zip(self._members, self._quota, strict=False)": "as many",
    },
    "mlkd/encoders/forward.py": {
        "layer: int = 1": "set before each layer",
        "torch.where(self.read, 1.0, least)": "a softmax forgets what is added to all",
        "packing.added(key.dtype)": "one type",
        "index_select(0, packing.places).unsqueeze(1)": "reshaped at once",
    },
    "mlkd/losses/domain_graph.py": {"6 / (shape[2] + shape[-1])": "4-d"},
    "mlkd/losses/mcl.py": {
        "own = torch.arange(len(translation), device=source.device)": "as many",
        "own = torch.arange(len(source), device=translation.device)": "one device",
        "F.normalize(left, dim=1) @ F.normalize(right, dim=-1).T": "2-d",
        "F.normalize(left, dim=-1) @ F.normalize(right, dim=1).T": "2-d",
    },
    "mlkd/stages/base.py": {
        "fused=False": "speed alone",
        "torch.cuda.": "needs a GPU",
        "checkpoint['cuda_rng'] = ": "needs a GPU",
    },
    "mlkd/stages/domains.py": {
        "_asks_target = True": "computes more",
        "twice: bool=True": "computes the same, slower",
        "weights.hidden is not None or self.graph is None": "computes more",
        "param_groups[1]": "matrices and vectors have one rate",
        "randint(3 ** 31, ())": "any seed",
        "randint(2 ** 32, ())": "any seed",
        "self._dropout_seed - self.global_step": "any seed of a step",
        "if self.graph is not None or self.settings.graph is not None": "both are there or none",
        "if self.graph is None and self.settings.graph is None": "both are there or none",
        "strict=False": "as many",
        "layers = weights.hidden.weight / self._states": "zero before it",
        "rows = weight * means[name]": "a stage has one term of rows",
        "clamp_min(2.0)": "a sentence has special tokens and others",
        "self.graph(prototypes, count > 1)": "a sentence has special tokens and others",
    },
    "mlkd/stages/domains_task.py": {
        "get_embedding_dimension() or 1": "there is one",
        "vectors[batch.translation]": "a text to classify is both sides",
        "torch.stack(known)[batch.domain, batch.translation]": "a text to classify is both sides",
        "self.heads is not None or self.task is not None": "there is a task",
    },
    "mlkd/stages/layers.py": {
        "persistent=True": "in checkpoints as well",
        "manual_seed(1)": "any seed",
        "module.position > 0": "the first row is a special token's",
        "module.position >= 1": "the first row is a special token's",
    },
    "mlkd/stages/masking.py": {
        "draw <= 0.8 * share": "no draw is an edge",
        "draw > 0.8 * share": "no draw is an edge",
        "draw <= 0.9 * share": "no draw is an edge",
    },
    "mlkd/stages/virtual.py": {
        "zip(parameters, found, strict=False)": "as many",
        "zip(gradients, after, strict=False)": "as many",
        "zip(parameters, by, strict=False)": "as many",
        "zip(parameters, before, strict=False)": "as many",
    },
    "mlkd/stages/sparse.py": {
        "zip(start, masks, strict=False)": "as many",
        "persistent=True": "in checkpoints as well",
        "pass  # super().on_after_backward()": "no group of these stages waits for its turn",
    },
    "mlkd/stages/task.py": {
        "get_embedding_dimension() or 1": "there is one",
        "loss.soft is not None or self.soft is not None": "both are there or none",
        "vectors[batch.translation]": "a text to classify is both sides",
        "self.head is None and self.task is None": "there is a task",
        "pass  # vectors = vectors.to(self.device)": "one device",
    },
    "mlkd/student/codes.py": {
        "pass  # bar.update()": "shown alone",
        "pass  # bar.close()": "shown alone",
        "which.reshape(-2)": "to numpy that is -1",
    },
    "mlkd/student/narrow.py": {
        "_BATCH = 33": "as many at once as fit",
        "lengths = tokens.offsets[": "each sentence by itself, slower",
        "bar.update": "shown alone",
        "bar.close()": "shown alone",
        "_ROUNDS = 65": "so many rounds find the same",
        "step = math.ceil(": "so many rounds find the same",
        "max(step, len(alive) - width)": "so many rounds find the same",
        "argsort(stable=False)": "on a processor it is stable",
        "[:5 * count]": "so many candidates find the same",
    },
    "mlkd/student/initialise.py": {
        "zip(layers(new), chosen, strict=False)": "as many",
        "nn.Embedding | nn.Linear | CodedEmbedding": "a new LayerNorm is reset already",
        "nn.Embedding | nn.LayerNorm | CodedEmbedding": "a new projection is drawn alike",
    },
}
"""What may live: by file, a part of the mutated line and why nothing can notice it."""
HEAVY = ("torch", "lightning", "sentence_transformers", "torchmetrics", "pytest", "hypothesis",
         "langcodes", "mlkd.config.compose", "mlkd.config.schema",
         "transformers.models.bert.modeling_bert", "transformers.models.roberta.modeling_roberta",
         "transformers.models.xlm_roberta.modeling_xlm_roberta")  # fmt: skip
NAMES = [("source", "translation"), ("source_target", "translation_target"), ("min", "max"),
         ("source_id", "translation_id"), ("rank", "world"), ("floor", "ceil"), ("zeros", "ones"),
         ("query", "key"), ("teacher", "assistant")]  # fmt: skip
SWAPS = {a: b for pair in NAMES for a, b in (pair, pair[::-1])}
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node; sub-nodes are shared with it."""
    match node:
        case ast.BinOp(left=left, right=right):
            yield from (left, right)
            if type(node.op) in OPERATORS:
                yield ast.BinOp(left, OPERATORS[type(node.op)](), right)
        case ast.Compare(ops=[op]) if type(op) in OPERATORS:
            yield ast.Compare(node.left, [OPERATORS[type(op)]()], node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(OPERATORS[type(node.op)](), node.values)
        case ast.UnaryOp(operand=operand) | ast.Attribute(attr="T", value=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.If(test=test) | ast.IfExp(test=test):
            yield type(node)(ast.UnaryOp(ast.Not(), test), node.body, node.orelse)
        case ast.Constant(value=str(name)) if name in SWAPS:
            yield ast.Constant(SWAPS[name])
        case ast.Name(id=name, ctx=ast.Load()) if name in SWAPS:
            yield ast.Name(SWAPS[name], ast.Load())
        case ast.Attribute(attr=name, ctx=ast.Load()) if name in SWAPS:
            yield ast.Attribute(node.value, SWAPS[name], ast.Load())
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Name(id=name)]) if any(
            isinstance(part, ast.Name) and part.id == name for part in ast.walk(node.value)
        ):
            yield ast.Pass()  # a value that is refined


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Parent, field and index of every node that runs and says nothing."""
    for field, value in ast.iter_fields(tree):
        if isinstance(tree, ast.Raise) or field in {"annotation", "returns", "decorator_list"}:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield tree, field, index
                yield from places(child)


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """The line that has changed, and the whole mutated source."""
    tree = ast.parse(source)
    before = ast.unparse(tree).splitlines()
    for parent, field, index in list(places(tree)):
        holder = getattr(parent, field)
        node = holder if index is None else holder[index]
        for other in list(replacements(node)):
            _put(parent, field, index, other)
            after = ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, field, index, node)
            lines = zip(before, after.splitlines(), strict=False)
            line = next((new for old, new in lines if old != new), "?").strip()
            gone = f"  # {ast.unparse(node)}" if isinstance(other, ast.Pass) else ""
            yield line + gone, after


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def passes(tree: Path, tests: list[str], seconds: float = 0) -> bool:
    """Whether tests pass in a copy of the tree, and within some seconds if there is a limit."""
    child = os.fork()
    if not child:
        signal.alarm(math.ceil(seconds))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        os.chdir(tree)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        import pytest

        options = ["-q", "-x", "-pno:cacheprovider", f"--basetemp={tree / 'tmp'}"]
        options += ["-oaddopts=", "-mnot slow and not slurm"]
        os._exit(int(pytest.main([*options, *tests])))
    return os.waitpid(child, 0)[1] == 0


def main(chosen: list[str], every: int = 1, part: str = "") -> int:
    """Print a line for each mutant that lives and the table; 1 if one should not."""
    tests = {path.relative_to(ROOT): t for glob, t in TESTS.items() for path in ROOT.glob(glob)}
    files = sorted(path for path in tests if not chosen or str(path) in chosen)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "outputs"))
        os.environ |= {"PYTHONPATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        elsewhere = {ROOT, ROOT / "tests"}
        others = [entry for entry in sys.path if Path(entry).resolve() not in elsewhere]
        sys.path[:] = [str(tree), str(tree / "tests"), *others]
        for name in HEAVY:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # or each process would copy what it looks at
        tqdm.write(
            "| file | mutants | run | noticed | equivalent | living |\n|---|---|---|---|---|---|"
        )
        for path in files:
            source, counts = (ROOT / path).read_text(), [0, 0, 0]
            every_one = list(mutants(source))
            start = time.monotonic()
            if not passes(tree, tests[path]):
                raise SystemExit(f"{path}: its tests fail as it is")
            limit = 60 + TIMES * (time.monotonic() - start)
            some = [mutant for mutant in every_one if part in mutant[0]][::every]
            for number, (line, code) in enumerate(tqdm(some, desc=str(path))):
                (tree / path).write_text(code)
                os.utime(tree / path, (number, number))  # bytecode is known by its time and size
                lives = passes(tree, tests[path], limit)
                known = any(part in line for part in EQUIVALENT.get(str(path), {}))
                known |= line.startswith("assert ")  # said for types
                counts[2 if lives and known else 1 if lives else 0] += 1
                if lives and not known:
                    tqdm.write(f"lives: {path}: {line}")
            (tree / path).write_text(source)
            wrong += counts[1]
            noticed, living, equivalent = counts
            sizes = (len(every_one), sum(counts), noticed, equivalent, living)
            tqdm.write(f"| `{path}` | {' | '.join(map(str, sizes))} |")
    return int(wrong > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="run every n-th mutant")
    parser.add_argument("--line", default="", help="run those whose changed line has this part")
    parser.add_argument("files", nargs="*")
    given = parser.parse_args()
    sys.exit(main(given.files, given.every, given.line))
