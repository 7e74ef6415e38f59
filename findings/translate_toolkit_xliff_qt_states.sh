#!/bin/bash
# translate-toolkit 3.20.4: "is it translated" does not follow the states that the files give.
#
# XLIFF 1.2: a target with state="final", "translated" or "signed-off" is not translated and is fuzzy,
# exactly as one with state="new", unless the unit also has the optional approved="yes", which few
# tools write. Qt Linguist: a message of type "vanished" (its source is gone from the program) is
# translated. TMX 1.1, whose attribute is `lang` and not `xml:lang`, gives no text at all, and says
# nothing. Whoever filters units by istranslated() loses finished ones and keeps dead ones.
#
# Output seen:
#   final       translated=False fuzzy=True
#   translated  translated=False fuzzy=True
#   signed-off  translated=False fuzzy=True
#   new         translated=False fuzzy=True
#   approved    translated=True fuzzy=False
#   vanished    translated=True
#   TMX 1.1     None None
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check translate-toolkit==3.20.4
cat > "$place/main.py" <<'PYTHON'
from io import BytesIO

from translate.storage import tmx, ts2, xliff

XLIFF = (
    '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file original="x" '
    'source-language="en" target-language="de" datatype="plaintext"><body><trans-unit id="1"{}>'
    "<source>Rain</source><target{}>Regen</target></trans-unit></body></file></xliff>"
)
found = []
for name in ("final", "translated", "signed-off", "new", "approved"):
    marks = (' approved="yes"', "") if name == "approved" else ("", f' state="{name}"')
    (unit,) = xliff.xlifffile(BytesIO(XLIFF.format(*marks).encode())).units
    print(f"{name:<11} translated={unit.istranslated()} fuzzy={unit.isfuzzy()}")
    found.append(bool(unit.istranslated()))
(message,) = ts2.tsfile(BytesIO(
    b'<TS version="2.1" language="de"><context><name>x</name><message><source>Rain</source>'
    b'<translation type="vanished">Regen</translation></message></context></TS>'
)).units
print(f"vanished    translated={message.istranslated()}")
(unit,) = tmx.tmxfile(BytesIO(
    b'<tmx version="1.1"><header srclang="EN"/><body><tu><tuv lang="EN"><seg>Rain</seg></tuv>'
    b'<tuv lang="DE"><seg>Regen</seg></tuv></tu></body></tmx>'
), "en", "de").units
print("TMX 1.1    ", unit.source, unit.target)
assert found == [False, False, False, False, True], "changed"
assert message.istranslated(), "changed"
assert unit.source is None and unit.target is None, "changed"
PYTHON
"$place/env/bin/python" "$place/main.py"
