#!/bin/bash
# hydra-core 1.3.8 with omegaconf 2.3.1: the same `no` is false in a file and text on the command line.
#
# Languages are often listed in configurations: [sv, no, fi]. In a YAML file that Hydra composes,
# `no` is the boolean false, as YAML 1.1 has it (so are `off` and `on`, but not `y`). Hydra's
# override grammar knows only `true` and `false`: the same list on the command line keeps the text
# "no". An override that repeats the file's value thus changes it, and a check of one of the two
# ways says nothing about the other.
#
# Output seen:
#   file          ['sv', False, 'fi', True, 'y']
#   command line  ['sv', 'no', 'fi', 'on', 'y']
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check hydra-core==1.3.8 omegaconf==2.3.1
mkdir "$place/conf"
echo 'languages: [sv, no, fi, on, y]' > "$place/conf/main.yaml"
cat > "$place/main.py" <<'PYTHON'
import sys

from hydra import compose, initialize_config_dir

with initialize_config_dir(sys.argv[1], version_base="1.3"):
    file = compose("main").languages
    line = compose("main", ["languages=[sv,no,fi,on,y]"]).languages
print("file         ", list(file))
print("command line ", list(line))
assert list(file) == ["sv", False, "fi", True, "y"], "changed"
assert list(line) == ["sv", "no", "fi", "on", "y"], "changed"
PYTHON
"$place/env/bin/python" "$place/main.py" "$place/conf"
