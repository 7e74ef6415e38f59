#!/bin/bash
# onnxruntime 1.31.1: session.x64quantprecision=1 fails where two products share an int8 weight.
#
# The option is documented to make products of uint8 and int8 exact on x86 processors where they
# would saturate. It rewrites each weight of MatMulIntegerToFloat that needs more than 7 bits as
# uint8, under one name per weight: of a graph in which two nodes multiply by the same stored weight,
# as a network whose layers run several times has it, no session can be made. Without the option the
# same graph runs. Where the second node gets the weight through a Reshape of it, it runs with the
# option too, and the weight is still stored once.
#
# Output seen:
#   plain      option 0: runs      option 1: Attempt to replace the existing tensor
#   reshaped   option 0: runs      option 1: runs
set -euo pipefail
case "$(uname -m)" in x86_64) ;; *) echo "this is about x86"; exit 0 ;; esac
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check \
  onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > "$place/main.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(4)


def graph(reshaped):
    """Twice the product by one weight, with a quantisation before each."""
    nodes, x = [], "x"
    for i in range(2):
        weight = "w"
        if i and reshaped:
            nodes.append(helper.make_node("Reshape", ["w", "shape"], ["w again"]))
            weight = "w again"
        nodes.append(helper.make_node("QuantizeLinear", [x, "step", "zero"], [f"q{i}"]))
        inputs = [f"q{i}", weight, "step", "scale", "zero"]
        nodes.append(
            helper.make_node("MatMulIntegerToFloat", inputs, [f"y{i}"], domain="com.microsoft")
        )
        x = f"y{i}"
    stored = {
        "w": (np.arange(64) * 4 - 128).astype(np.int8).reshape(8, 8),
        "shape": np.array([8, 8]),
        "step": np.float32(0.01),
        "scale": np.full(8, 0.01, np.float32),
        "zero": np.uint8(128),
    }
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 8])
    result = helper.make_tensor_value_info(x, TensorProto.FLOAT, [3, 8])
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items()]
    content = helper.make_graph(nodes, "g", [shape], [result], tensors)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(content, opset_imports=opsets, ir_version=9).SerializeToString()


def outcome(reshaped, option):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", option)
    try:
        session = onnxruntime.InferenceSession(graph(reshaped), options)
        session.run(None, {"x": np.ones((3, 8), np.float32) / 10})
    except Exception as error:
        return str(error).strip()[-38:]
    return "runs"


found = [[outcome(reshaped, option) for option in "01"] for reshaped in (False, True)]
for name, (without, with_option) in zip(("plain", "reshaped"), found):
    print(f"{name:10} option 0: {without}      option 1: {with_option}")
assert found == [["runs", "Attempt to replace the existing tensor"], ["runs", "runs"]], found
PYTHON
"$place/env/bin/python" "$place/main.py"
