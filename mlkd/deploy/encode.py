"""Sentence vectors from this folder; needs onnxruntime, tokenizers and numpy, nothing else."""

from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Encoder:
    def __init__(self, folder=Path(__file__).parent, threads=0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0 = all cores
        self.session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options)
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # it cuts and pads, too

    def encode(self, sentences, batch_size=32):
        """Unit vectors, a row a sentence."""
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))  # little padding
        vectors = np.empty((len(order), self.session.get_outputs()[0].shape[1]), np.float32)
        for rows in (order[i : i + batch_size] for i in range(0, len(order), batch_size)):
            batch = self.tokenizer.encode_batch([sentences[i] for i in rows])
            ids, mask = (
                np.array([getattr(e, n) for e in batch]) for n in ("ids", "attention_mask")
            )
            vectors[rows] = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return vectors
