#!/bin/bash
# translate-toolkit 3.20.4: text of mobile applications that is lost or glued without a word.
#
# Android: <string-array> is valid in strings.xml, but its items are no units; <plurals> are.
# Apple .strings: a value may go on in the next line, and the line end is part of it; here it is
# dropped, so that the words around it become one. Of two messages in one line the second becomes
# part of the text of the first.
#
# Output seen:
#   android  ['title', 'files']
#   strings  [('two lines', 'firstsecond'), ('one', 'Eins";"two"="Zwei')]
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check translate-toolkit==3.20.4
cat > "$place/main.py" <<'PYTHON'
from io import BytesIO

from translate.storage import aresource, properties

android = aresource.AndroidResourceFile(BytesIO(
    b'<resources><string name="title">Title</string><string-array name="days"><item>Monday</item>'
    b'<item>Tuesday</item></string-array><plurals name="files"><item quantity="other">%d files'
    b"</item></plurals></resources>"
))
names = [unit.getid() for unit in android.units]
print("android ", names)
strings = properties.stringsutf8file(BytesIO(
    b'"two lines" = "first\nsecond";\n"one"="Eins";"two"="Zwei";\n'
))
found = [(unit.name, unit.source) for unit in strings.units]
print("strings ", found)
assert names == ["title", "files"], "changed"
assert found == [("two lines", "firstsecond"), ("one", 'Eins";"two"="Zwei')], "changed"
PYTHON
"$place/env/bin/python" "$place/main.py"
