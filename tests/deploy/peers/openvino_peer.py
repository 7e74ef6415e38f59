"""OpenVINO: the plain encoder converted from PyTorch, or the graph from ONNX."""

import json
import sys
from pathlib import Path

import openvino
import torch
from transformers import AutoModel, AutoTokenizer

data, weights, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
texts = list(json.loads((data / "texts.json").read_text()).values())
folder = data / "portable"
tokenizer = AutoTokenizer.from_pretrained(folder)
batch = dict(tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = AutoModel.from_pretrained(folder).eval()

    def forward(self, input_ids, attention_mask):
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)


if weights == "torch":
    converted = openvino.convert_model(Encoder(), example_input=batch)
else:
    converted = openvino.convert_model(folder / weights)
compiled = openvino.compile_model(converted, "CPU")
found = compiled({name: value.numpy() for name, value in batch.items()})
vectors = found[len(compiled.outputs) - 1]
version = openvino.__version__.split("-")[0]
out.write_text(json.dumps({"version": version, "vectors": vectors.tolist()}))
