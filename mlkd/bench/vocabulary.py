"""Case: a vocabulary as large as XLM-R's, of which a corpus uses a small part."""

from __future__ import annotations

from pathlib import Path

from mlkd.bench.contest import TableLine
from mlkd.bench.training import contest, derived, open_for_training, with_languages
from mlkd.config.bench import BenchmarkConfig
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.recipes.chain import Chain
from mlkd.storage.files import replacing_folder


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """The assistant of the first case; rows behind its own vocabulary never occur."""
    chain = open_for_training(with_languages(config, 1, "de"))
    return contest(config, chain, enlarged(chain, config.benchmark.rows))


def enlarged(chain: Chain, rows: int) -> Path:
    """The chain's assistant with so many rows in its word table."""
    folder = derived(chain, "rows", rows)
    if not folder.is_dir():
        model = load_folder(chain.given["base"])
        backbone_of(model).resize_token_embeddings(rows, mean_resizing=False)
        with replacing_folder(folder) as part:
            save_folder(model, part)
    return folder
