#!/usr/bin/env bash
# Checks everything that is written in shell or perl.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
status=0

# joined EXCLUDE PART...: checks files of src/host/sh as src/host/scripts.rs sends them, one behind the other, and names
# the files in what it finds.
joined() {
    local exclude=$1
    shift
    # The agent is sent with its tools in front.
    { echo 'tools=()'; cat "${@/#/src/host/sh/}"; } | shellcheck --shell=bash --exclude="$exclude" --format=gcc - |
        awk -F: -v parts="$*" '
            BEGIN {
                names = split(parts, name, " ")
                where[++lines] = "tools"
                for (i = 1; i <= names; i++)
                    for (at = 1; (getline line < ("src/host/sh/" name[i])) > 0; at++)
                        where[++lines] = "src/host/sh/" name[i] ":" at
            }
            { sub(/^-:[0-9]+/, where[$2]); print }' || status=1
}

mapfile -d '' -t scripts < <(find . \( -name target -o -path ./.git -o -path ./src \) -prune -o -name '*.sh' -print0)
shellcheck .ci/run debian/tests/local debian/tests/hosts debian/transfer.postrm "${scripts[@]}" || status=1
# SC2317: the agent gives functions of the journal's a new meaning in subshells, and never calls them itself. SC2034: not all that
# common.sh sets is for the agent.
joined SC2317,SC2034 common.sh trust.sh holders.sh logins.sh server.sh journal.sh publish.sh rest.sh guard.sh
# SC2034: what common.sh sets is for the agent, and nobody uses the tools. SC2154: the agent exports $home.
joined SC2034 common.sh trust.sh holders.sh logins.sh server.sh installed.sh facts.sh
joined SC2034,SC2154 common.sh trust.sh holders.sh logins.sh server.sh job.sh follow.sh
joined SC2034,SC2154 common.sh trust.sh holders.sh logins.sh server.sh job.sh tables.sh
joined SC2034 common.sh trust.sh holders.sh logins.sh server.sh journal.sh admin.sh
joined SC2034 common.sh routes.sh
joined SC2034 common.sh twins.sh
joined SC2034 common.sh attributes.sh
joined SC2034,SC2154 manifest.sh
joined SC2034 common.sh trust.sh logins.sh login.sh
# In one line, as it is sent.
shellcheck src/host/bootstrap.sh || status=1
for file in src/host/sh/*.pl; do perl -wc "$file" || status=1; done
# What is longer than a pipe would need space in /tmp.
if grep -n '<<<' src/host/sh/*; then
    echo 'lint: use < <(printf …) instead of a here-string' >&2
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
    ':!docs/guard-protocol.md' ':!docs/glossary.md' | xargs -0 grep -nEi "$phrases"; then
    echo 'lint: say this in the terms of docs/glossary.md' >&2
    status=1
fi
# lintian refuses lines of more than 512 bytes in a source package.
if LC_ALL=C grep -rnIE --exclude-dir=target --exclude-dir=.git --exclude='*.snap' '.{513}' . | cut -c 1-120 | grep .; then
    echo 'lint: break these lines' >&2
    status=1
fi
exit "$status"
