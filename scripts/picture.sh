#!/usr/bin/env bash
# Makes docs/picture.svg: a real run between two hosts of a lab, as a terminal shows it while it copies and at its end.
# Needs root, and installs tmux and python3-rich where they are missing.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

columns=104
id=picture$$
lab=tests/lab/lab.sh
pane() { tmux -L "$id" "$@"; }

scripts/setup.sh test
if ! type -P tmux >/dev/null || [[ ! -e /usr/lib/python3/dist-packages/rich ]]; then
    apt-get install -qq -y --no-install-recommends tmux python3-rich </dev/null >/dev/null
fi
scripts/build.sh
tmp=$(mktemp -d "${TMPDIR:-/tmp}/transfer-picture.XXXXXX")
trap 'pane kill-server 2>/dev/null || :; $lab down "$id" || :; rm -rf -- "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
"$lab" up "$id" --owner $$ ctl db1 db2 >/dev/null
for program in transfer transfer-agent; do
    "$lab" put "$id" ctl "${CARGO_TARGET_DIR:-target}/release/$program" "/usr/local/bin/$program"
done
# Half of it can be compressed, as of a database.
# shellcheck disable=SC2016 # of that shell
"$lab" exec "$id" db1 -- bash -c '
    mkdir -p /srv/sqldata/shop && cd /srv/sqldata
    for table in customers items orders payments; do
        { head -c 400M /dev/urandom; seq 1 60000000 | head -c 400M; } >"shop/$table.ibd"
    done
    head -c 12M /dev/urandom >ibdata1; head -c 96M /dev/zero >ib_logfile0'

pane new-session -d -x "$columns" -y 24 "env PS1='\$ ' $lab exec $id ctl -- env TERM=xterm-256color PS1='\$ ' bash --norc --noprofile"
until pane capture-pane -p | grep -q '^\$'; do sleep 0.1; done
pane send-keys 'transfer db1:/srv/sqldata db2:/srv --parallel-checksum' Enter
screen() { pane capture-pane -e -p -S - | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'; }
for ((try = 0; try < 300; try++)); do
    screen >"$tmp/during"
    # In the middle of the copy.
    grep -Eq 'copying (4|5|6)[0-9]%' "$tmp/during" && break
    ! grep -q ' verified: ' "$tmp/during" || { echo "picture: it was too fast to be seen" >&2 && exit 1; }
    sleep 0.05
done
for ((try = 0; try < 600; try++)); do
    screen >"$tmp/end"
    grep -q ' verified: ' "$tmp/end" && break
    sleep 0.1
done
grep -q ' verified: ' "$tmp/end" || { echo "picture: the run does not end" >&2 && exit 1; }
/usr/bin/python3 - "$tmp/during" "$tmp/end" "$columns" docs/picture.svg <<'PYTHON'
import re
import sys

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

during, end, columns, picture = sys.argv[1:]
console = Console(record=True, width=int(columns), file=open("/dev/null", "w"), force_terminal=True, color_system="truecolor")
lines = open(during).read().rstrip().split("\n")
console.print(Text.from_ansi("\n".join(lines)))
console.print(Text("─── at the end ───", style="dim"))
lines = open(end).read().rstrip().split("\n")
console.print(Text.from_ansi("\n".join(line for line in lines[1:] if line.strip() != "$")))
# Without the fonts that it would fetch.
form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code", "monospace")
svg = console.export_svg(title="transfer", code_format=form, unique_id="picture")
open(picture, "w").write(svg)
PYTHON
echo "docs/picture.svg is new"
