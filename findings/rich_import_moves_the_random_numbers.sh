#!/bin/bash
# rich 15.0.0 draws from Python's global random numbers when it is imported, once a process.
#
# A program that sets random.seed(0), and then calls something that happens to import rich for the
# first time (a progress bar, a table, an error report), goes on with other numbers than one that
# had imported it before the seed. NumPy and torch are not touched.
#
# Output seen:
#   first import after the seed   0.3852453064766108
#   second time, or before it     0.8444218515250481
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check rich==15.0.0
cat > "$place/main.py" <<'PYTHON'
import random

random.seed(0)
import rich.console

first = random.random()
random.seed(0)
import rich.console

again = random.random()
print("first import after the seed  ", first)
print("second time, or before it    ", again)
assert first != again, "changed"
assert again == 0.8444218515250481, "changed"
PYTHON
"$place/env/bin/python" "$place/main.py"
