#!/usr/bin/env bash
# Checks everything that is written in shell, and the language of comments and documents.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
status=0

mapfile -d '' -t scripts < <(find . \( -name target -o -path ./.git -o -path ./src \) -prune -o -name '*.sh' -print0)
shellcheck .ci/run debian/tests/local debian/tests/hosts debian/transfer.postrm "${scripts[@]}" || status=1
# In one line, as it is sent.
shellcheck src/host/bootstrap.sh || status=1
# The agent is linked statically: there is no name service switch in it. docs/design/agent.md says what it does instead.
if grep -rnE 'ToSocketAddrs|lookup_host|(User|Group)::from_|getgrouplist|home_dir\(' src/agent src/proto; then
    echo 'lint: the agent cannot use name services; ask getent' >&2
    status=1
fi
# A doc comment begins with a verb or a noun: it must make sense alone.
if grep -rnE --include='*.rs' --exclude-dir=target \
    '^\s*//[/!] (What|Who|Whom|Whose|Which|It|Its|So|That|This|Those|These|All of)\b' src tests; then
    echo 'lint: begin these doc comments with a verb or a noun' >&2
    status=1
fi
# Phrases that need a second reading; docs/glossary.md has the terms. Words with an ordinary use are not in this list.
phrases='on trial|could not be undone|what is told|(is|are) told|stands against|\ball the same\b|need not|somebody|\bmeanwhile'
phrases+='|stranger|dead runs?\b|left behind|sentinel|\brested\b|who comes from|what becomes of'
if git ls-files -z -- '*.md' debian contrib transfer.conf.example 'tests/cli/snapshots/*' \
    ':!docs/glossary.md' | xargs -0 grep -nEi "$phrases"; then
    echo 'lint: say this in the terms of docs/glossary.md' >&2
    status=1
fi
# lintian refuses lines of more than 512 bytes in a source package.
if LC_ALL=C grep -rnIE --exclude-dir=target --exclude-dir=.git --exclude='*.snap' '.{513}' . | cut -c 1-120 | grep .; then
    echo 'lint: break these lines' >&2
    status=1
fi
exit "$status"
