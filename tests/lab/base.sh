#!/usr/bin/env bash
# Turns a fresh Debian root into the base of all lab hosts. `lab.sh base` runs it as mmdebstrap's last hook, with the
# root as argument; what differs between hosts (keys, addresses, ids) is written by `lab.sh up` instead.
set -euo pipefail
root=$1

# Nothing may start by itself in the middle of a test, or make a host look changed. logind has nothing to do here,
# because no pam_systemd is installed.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-tmpfiles-clean.timer console-getty.service systemd-logind.service; do
    ln -sfn /dev/null "$root/etc/systemd/system/$unit"
done
chroot "$root" systemctl --quiet disable mariadb.service ferm.service ufw.service firewalld.service
chroot "$root" systemctl --quiet enable ssh.service

# An account without privileges, to try what the program does without root. `*` is "no password", `!` would be
# "locked", which sshd refuses.
chroot "$root" useradd --create-home --shell /bin/bash --password '*' dba

# Or the first start of each server is followed by an upgrade check in the background, which tests would meet.
version=$(chroot "$root" mariadbd --version | sed -n 's/.*Ver \([0-9.]*-MariaDB\).*/\1/p')
printf '%s' "$version" >"$root/var/lib/mysql/mysql_upgrade_info"
chroot "$root" chown mysql:mysql /var/lib/mysql/mysql_upgrade_info

# No resolver: an unknown name fails at once.
rm -f "$root/etc/resolv.conf"
: >"$root/etc/resolv.conf"
: >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_*

# Lists mysql's files, for `up`, which gives the user another id on every host.
chroot "$root" find / -xdev \( -path /proc -o -path /sys -o -path /run \) -prune -o \( -user mysql -o -group mysql \) -print0 \
    >"$(dirname "$root")/mysql-files"
