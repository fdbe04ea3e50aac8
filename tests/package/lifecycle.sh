#!/usr/bin/env bash
# lifecycle.sh [TRANSFER AGENT]: the life of the packages in a fresh Debian 12 host of a lab: installed with apt, used between
# two hosts, tested by their own tests, upgraded, removed, purged. Nothing is left then, but what another machine's run needs.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
debs=(target/debian/transfer_*.deb target/debian/transfer-agent_*.deb)
(($# == 0)) || debs=("$@")
for deb in "${debs[@]}"; do [[ -f $deb ]] || { echo "lifecycle: there is no package $deb; make deb" >&2 && exit 1; }; done
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
"$lab" put "$id" ctl "${debs[0]}" /tmp/transfer.deb 0644
"$lab" put "$id" ctl "${debs[1]}" /tmp/transfer-agent.deb 0644

say "install"
install='apt-get install -y --no-install-recommends /tmp/transfer.deb /tmp/transfer-agent.deb'
ctl "$install"
ctl 'transfer --version'
# All that is in the packages is on the host, and nothing of it was changed.
ctl 'dpkg --verify transfer transfer-agent'
ctl 'dpkg -L transfer transfer-agent | sed "/^\/\.$/d; /^$/d" | xargs -d "\n" ls -d >/dev/null'

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
    test -e /usr/share/doc/transfer/NEWS.Debian.gz
    test -e /usr/share/doc/transfer-agent/CRATES.gz
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

say "the agent of another architecture is installed beside"
ctl 'dpkg-deb -R /tmp/transfer-agent.deb /tmp/other
    mv /tmp/other/usr/lib/x86_64-linux-gnu /tmp/other/usr/lib/aarch64-linux-gnu
    sed -i "s/^Architecture: .*/Architecture: arm64/" /tmp/other/DEBIAN/control
    sed -i s/x86_64-linux-gnu/aarch64-linux-gnu/ /tmp/other/DEBIAN/md5sums
    dpkg-deb -b /tmp/other /tmp/other.deb >/dev/null
    dpkg --add-architecture arm64
    apt-get install -y --no-install-recommends /tmp/other.deb
    ls -l /usr/lib/{x86_64,aarch64}-linux-gnu/transfer/transfer-agent
    transfer status localhost
    apt-get purge -y transfer-agent:arm64
    dpkg --remove-architecture arm64
    dpkg --verify transfer transfer-agent'

say "an upgrade, to a version with other defaults, keeps the configuration that was changed"
# shellcheck disable=SC2016 # for the host's shell
ctl 'for package in transfer transfer-agent; do
        dpkg-deb -R /tmp/$package.deb /tmp/next
        sed -i "s/^Version: .*/&+next/; s/transfer-agent (= [^)]*/&+next/" /tmp/next/DEBIAN/control
        [[ $package != transfer ]] || echo "# new" >>/tmp/next/etc/transfer/transfer.conf
        dpkg-deb -b /tmp/next /tmp/next-$package.deb >/dev/null
        rm -r /tmp/next
    done
    if apt-get install -y --no-install-recommends /tmp/next-transfer.deb; then
        echo "installed with another version of the agent" >&2
        exit 1
    fi
    apt-get install -y -o Dpkg::Options::=--force-confold --no-install-recommends /tmp/next-{transfer,transfer-agent}.deb'
ctl 'grep -x "port = 4477" /etc/transfer/transfer.conf && grep -x "# new" /etc/transfer/transfer.conf.dpkg-dist'

say "remove: the configuration and the history stay"
ctl 'apt-get remove -y transfer transfer-agent'
ctl '! type -P transfer && grep -x "port = 4477" /etc/transfer/transfer.conf && ls /var/lib/transfer-history | grep -q json'

say "installed again it has the configuration that was changed"
ctl "$install -o Dpkg::Options::=--force-confold >/dev/null 2>&1"
ctl 'grep -x "port = 4477" /etc/transfer/transfer.conf && transfer --version'

say "purge: nothing stays"
ctl 'apt-get purge -y transfer transfer-agent'
diff <(printf '%s\n' "$before") <(everything)

say "purge with the journal of another controller's run and a file of the administrator: these stay"
ctl "$install >/dev/null 2>&1"
ctl 'mkdir -p /var/lib/transfer/20260102-030405-abcdef && echo x >/var/lib/transfer/20260102-030405-abcdef/journal &&
    echo "[client]" >/etc/transfer/replicas.cnf'
ctl 'apt-get purge -y transfer transfer-agent 2>&1' | grep 'transfer clean ctl'
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
        transfer_debs: [/tmp/transfer.deb, /tmp/transfer-agent.deb]
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
