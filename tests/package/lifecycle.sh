#!/usr/bin/env bash
# lifecycle.sh [DEB]: the life of the package in a fresh Debian 12 host of a lab: installed with apt, used between two hosts,
# tested by its own tests, upgraded, removed, purged. Nothing is left then, but what another machine's run needs.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
deb=${1-$(printf '%s\n' target/debian/*.deb)}
[[ -f $deb ]] || { echo "lifecycle: there is no package $deb; make deb" >&2 && exit 1; }
lab=tests/lab/lab.sh id=pkg$$

say() { printf '\n* %s\n' "$*"; }
on() { "$lab" exec "$id" "$@"; }
ctl() { on ctl env DEBIAN_FRONTEND=noninteractive bash -euo pipefail -c "$1"; }

# Lists the host's disk and /run, without the package manager's own records.
everything() {
    ctl 'find / /run -xdev \( -path /srv -o -path /tmp -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o \
            -path /run/systemd -o -path /run/user -o -path /run/log -o -path /run/udev -o -name "*-old" \) -prune -o -print |
        LC_ALL=C sort -u'
}

trap '"$lab" down "$id"' EXIT
trap 'exit 130' HUP INT TERM
"$lab" up "$id" --owner $$ ctl db1 db2 >/dev/null
# The lab's hosts leave out documents to be small.
ctl 'rm -f /etc/dpkg/dpkg.cfg.d/* && ! grep -r path-exclude /etc/dpkg'
before=$(everything)
"$lab" put "$id" ctl "$deb" /tmp/transfer.deb 0644

say "install"
install='apt-get install -y --no-install-recommends /tmp/transfer.deb'
ctl "$install"
ctl 'transfer --version'
# All that is in the package is on the host, and nothing of it was changed.
ctl 'dpkg --verify transfer'
ctl 'dpkg -L transfer | sed "/^\/\.$/d" | xargs -d "\n" ls -d >/dev/null'

say "manual pages, documents, completions"
# shellcheck disable=SC2016 # for the host's shell
ctl 'for page in man1/transfer.1 man1/transfer-replica.1 man1/transfer-status.1 man1/transfer-clean.1 \
        man1/transfer-history.1 man1/transfer-show.1 man5/transfer.conf.5; do
        MANROFFSEQ="" man --warnings -E UTF-8 -l /usr/share/man/$page.gz >/dev/null 2>/tmp/man || exit
        [[ ! -s /tmp/man ]] || { echo "$page:" >&2 && cat /tmp/man >&2 && exit 1; }
    done
    test -e /usr/share/doc/transfer/README.md
    test -e /usr/share/doc/transfer/docs/index.md
    test -e /usr/share/doc/transfer/docs/tutorial.md
    test -e /usr/share/doc/transfer/docs/runbooks/replica.md
    test -e /usr/share/doc/transfer/docs/design/rollback.md
    test -e /usr/share/doc/transfer/CRATES.gz
    bash -c "source /usr/share/bash-completion/completions/transfer && complete -p transfer &&
        COMP_WORDS=(transfer --parallel) COMP_CWORD=1 && _transfer transfer --parallel transfer &&
        printf \"%s\n\" \"\${COMPREPLY[@]}\"" | grep -x -e --parallel-checksum
    HOME=/tmp fish -c "complete -C \"transfer --parallel\"" | grep -e --parallel-checksum
    grep -x "#compdef transfer" /usr/share/zsh/vendor-completions/_transfer'

say "documents lead to each other, and so do the manual pages"
# shellcheck disable=SC2016 # for the host's shell
ctl 'cd /usr/share/doc/transfer
    mapfile -t links < <(grep -roP --include="*.md" "\]\(\K[^)#: ]+(?=[)#])" .)
    ((${#links[@]} > 50))
    for link in "${links[@]}"; do
        file=${link%%:*} target=${link#*:}
        [[ $target == /* ]] || target=${file%/*}/$target
        [[ -e $target ]] || { echo "$link leads nowhere" >&2; exit 1; }
    done
    mapfile -t paths < <(zcat /usr/share/man/man?/transfer* | grep -oE "/usr/share/doc/transfer/[a-z./-]*[a-z/]" | sort -u)
    ((${#paths[@]} > 1))
    ls -d "${paths[@]}"'

say "the package's own test"
"$lab" put "$id" ctl debian/tests/local /tmp/local
ctl 'AUTOPKGTEST_TMP=/tmp /tmp/local && rm /tmp/local'

say "a transfer between two hosts"
tests/package/between.sh "$id"

say "an upgrade, to a version with other defaults, keeps the configuration that was changed"
ctl 'dpkg-deb -R /tmp/transfer.deb /tmp/next && sed -i "s/^Version: .*/&+next/" /tmp/next/DEBIAN/control &&
    echo "# new" >>/tmp/next/etc/transfer/transfer.conf && dpkg-deb -b /tmp/next /tmp/next.deb >/dev/null'
ctl "apt-get install -y -o Dpkg::Options::=--force-confold --no-install-recommends /tmp/next.deb"
ctl 'grep -x "port = 4477" /etc/transfer/transfer.conf && grep -x "# new" /etc/transfer/transfer.conf.dpkg-dist'

say "remove: the configuration and the history stay"
ctl 'apt-get remove -y transfer'
ctl '! type -P transfer && grep -x "port = 4477" /etc/transfer/transfer.conf && ls /var/lib/transfer-history | grep -q json'

say "installed again it has the configuration that was changed"
ctl "$install -o Dpkg::Options::=--force-confold >/dev/null 2>&1"
ctl 'grep -x "port = 4477" /etc/transfer/transfer.conf && transfer --version'

say "purge: nothing stays"
ctl 'apt-get purge -y transfer'
diff <(printf '%s\n' "$before") <(everything)

say "purge with the journal of another controller's run and a file of the administrator: these stay"
ctl "$install >/dev/null 2>&1"
ctl 'mkdir -p /var/lib/transfer/20260102-030405-abcdef && echo x >/var/lib/transfer/20260102-030405-abcdef/journal &&
    echo "[client]" >/etc/transfer/replicas.cnf'
ctl 'apt-get purge -y transfer 2>&1' | grep 'transfer clean ctl'
kept=$(LC_ALL=C comm -13 <(printf '%s\n' "$before") <(everything))
diff <(printf '%s\n' /etc/transfer /etc/transfer/replicas.cnf /var/lib/transfer /var/lib/transfer/20260102-030405-abcdef \
    /var/lib/transfer/20260102-030405-abcdef/journal) <(printf '%s\n' "$kept")

say "Ansible's role installs and configures it, and finds nothing to do then"
tar -C contrib/ansible -cf target/debian/ansible.tar library roles
"$lab" put "$id" ctl target/debian/ansible.tar /tmp/ansible.tar 0644
"$lab" put "$id" ctl /dev/stdin /tmp/play.yml 0644 <<'PLAY'
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: transfer
      vars:
        transfer_deb: /tmp/transfer.deb
        transfer_config: {port: 4478}
        transfer_runs: [{source: "db1:/srv/sqldata", targets: "db2:/srv"}]
PLAY
ctl 'mkdir -p /tmp/ansible && tar -C /tmp/ansible -xf /tmp/ansible.tar'
role() {
    ctl 'cd /tmp && ANSIBLE_LIBRARY=/tmp/ansible/library ANSIBLE_ROLES_PATH=/tmp/ansible/roles \
        ansible-playbook -i localhost, /tmp/play.yml'
}
role | grep -E 'ok=[0-9]+ +changed=2 .* failed=0'
ctl 'grep -x "port = 4478" /etc/transfer/transfer.conf'
role | grep -E 'ok=[0-9]+ +changed=0 .* failed=0'

say "the life of the package is as it should be"
