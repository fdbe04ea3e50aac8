# shellcheck shell=bash
# holders.sh: which processes work on the data directories of servers: those that have locked ibdata1 or aria_log_control for
# writing, or have it open for writing. By inode: what a process is called, what it runs and where it works is its user's to say.
# Used by the facts, by the guard and by the journal's undos.

# data_holders [PATH]: a line for each process and each data directory that PATH is `within`, or is `around`; of all directories
# (`any`) without a PATH, which has no symbolic link. Its fields are RELATION DATADIR PLACE PID UID OWNER DIRECTORY-OWNER LOCKED HERE:
# PLACE is the directory's device and inode, PID 0 where the process cannot be seen, UID its account, OWNER that of the file, LOCKED
# `locked` where the lock is this process's, HERE `here` where it has our mounts. System accounts come first; at most 64 lines for each owner, so that no
# account can fill the reply.
data_holders() {
  find_first_account
  # shellcheck disable=SC2016 # perl's variables
  perl -e '
    use strict;
    use Fcntl;
    my ($first_account, $path) = @ARGV;
    my @names = ("ibdata1", "aria_log_control");
    my ($most_of_an_owner, $most_times) = (64, 8);
    # struct flock of 64-bit systems.
    my $flock = "s s x4 q q l x4";
    my (%above, %found, %mounts_of);

    # Process that has locked a file for writing: 0 where it has no number here.
    sub locker {
        my ($name) = @_;
        my @seen = lstat($name) or return undef;
        return undef if ($seen[2] & 0170000) != 0100000;
        sysopen(my $file, $name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW) or return undef;
        # Conflicts with the locks of writers only; anyone who can read may hold the others.
        my $lock = pack($flock, F_RDLCK, 0, 0, 0, 0);
        fcntl($file, F_GETLK, $lock) or return undef;
        my ($type, $pid) = (unpack($flock, $lock))[0, 4];
        return $type == F_UNLCK ? undef : $pid > 0 ? $pid : 0;
    }
    sub place { my @seen = stat($_[0]) or return undef; return "$seen[0]:$seen[1]" }
    sub content {
        open(my $file, "<", $_[0]) or return "";
        local $/;
        return <$file> // "";
    }
    # The real one: who starts a program with other rights is still the one who has the file open.
    sub account { return content("/proc/$_[0]/status") =~ /^Uid:\t(\d+)/m ? $1 : undef }

    sub mounts {
        my ($pid) = @_;
        return @{ $mounts_of{$pid} //= [ map {
            my ($id, undef, $device, $root, $point) = split / /;
            s/\\([0-7]{3})/chr oct $1/ge for $root, $point;
            [ $id, $device, $root, $point ];
        } split(/\n/, content("/proc/$pid/mountinfo")) ] };
    }
    # Rest of a path below another one; undefined where it is not.
    sub below {
        my ($inner, $outer) = @_;
        $outer = "" if $outer eq "/";
        return index("$inner/", "$outer/") ? undef : substr($inner, length $outer);
    }
    # Paths by which a directory of another process, on its mount of that number, is reached here.
    sub paths_here {
        my ($pid, $mount, $directory) = @_;
        my ($its) = grep { $_->[0] eq $mount } mounts($pid) or return;
        my $rest = below($directory, $its->[3]) // return;
        my $inner = ($its->[2] eq "/" ? "" : $its->[2]) . $rest;
        return map {
            my $rest = $_->[1] eq $its->[1] ? below($inner, $_->[2]) : undef;
            defined $rest ? ($_->[3] eq "/" ? "" : $_->[3]) . $rest : ();
        } mounts("self");
    }

    sub note {
        my ($relation, $directory, $pid, $name, $file) = @_;
        my @seen = stat("$directory/") or return;
        my $uid = account($pid) // $file->[4];
        my $key = "$seen[0]:$seen[1]";
        my $entry = $found{$key}{$pid} //= {
            fields => [ $relation, $directory eq "" ? "/" : $directory, $key, $pid, $uid, $file->[4], $seen[4] ],
            order => ($file->[4] >= $first_account) + ($uid >= $first_account), owner => $file->[4],
        };
        my $locker = locker("$directory/$name");
        $entry->{locked} = "locked" if defined $locker && $locker == $pid;
    }

    sub look_at {
        my ($pid, $fd, $directory, $name) = @_;
        my @file = stat("/proc/$pid/fd/$fd") or return;
        my $info = content("/proc/$pid/fdinfo/$fd");
        my ($flags) = $info =~ /^flags:\t([0-7]+)/m or return;
        return if (oct($flags) & 3) == O_RDONLY;
        my ($mount) = $info =~ /^mnt_id:\t(\d+)/m;
        # Where the file has that name: as the link says, by another mount, or as the process sees it.
        my $is_it = sub { my @seen = lstat("$_[0]/$name"); @seen && $seen[0] == $file[0] && $seen[1] == $file[1] };
        my @here = grep { $is_it->($_) } $directory, paths_here($pid, $mount // "", $directory);
        my ($any) = (@here, grep { $is_it->($_) } "/proc/$pid/root$directory");
        return if !defined $any;
        return note("any", $any, $pid, $name, \@file) if !defined $path;
        my $above = $above{place("$any/") // ""};
        return note("within", $above, $pid, $name, \@file) if defined $above;
        for my $directory (@here) {
            my $rest = below($directory, $path) // next;
            # Where copies arrive no server works.
            return note("around", $directory, $pid, $name, \@file) if $rest !~ m{/\.transfer-};
        }
    }

    if (defined $path) {
        $path = "" if $path eq "/";
        for (my $at = $path; ; $at =~ s{/[^/]*\z}{}) {
            $above{place("$at/") // place($at) // ""} //= $at;
            last if $at eq "";
        }
        delete $above{""};
    }
    opendir(my $processes, "/proc") or exit 1;
    for my $pid (grep { /^\d+\z/ } readdir $processes) {
        opendir(my $descriptors, "/proc/$pid/fd") or next;
        my %seen;
        for my $fd (readdir $descriptors) {
            my $link = readlink("/proc/$pid/fd/$fd") // next;
            next if $link !~ m{^((?:/.*)?)/(ibdata1|aria_log_control)\z}s;
            # A file may be open any number of times; a server has few of them.
            my @file = stat("/proc/$pid/fd/$fd") or next;
            next if ($seen{"$link $file[1]"} // 0) >= $most_times;
            $seen{"$link $file[1]"}++;
            last if keys %seen > $most_of_an_owner;
            look_at($pid, $fd, $1, $2) if $link =~ m{^((?:/.*)?)/(ibdata1|aria_log_control)\z}s;
        }
    }
    # Locks show also those whose descriptors we may not see.
    for my $key (keys %above) {
        for my $name (@names) {
            my $pid = locker("$above{$key}/$name") // next;
            next if $pid ? $found{$key}{$pid} : %{ $found{$key} // {} };
            my @file = lstat("$above{$key}/$name") or next;
            note("within", $above{$key}, $pid, $name, \@file);
        }
    }
    my %count;
    my $here = readlink("/proc/self/ns/mnt") // "";
    for my $entry (sort { $a->{order} <=> $b->{order} } map { values %$_ } values %found) {
        next if $count{ $entry->{owner} }++ >= $most_of_an_owner;
        my $pid = $entry->{fields}[3];
        my @fields = (@{ $entry->{fields} }, $entry->{locked} // "", (readlink("/proc/$pid/ns/mnt") // "") eq $here ? "here" : "");
        for (@fields) { s/\\/\\\\/g; s/\n/\\n/g; s/\t/\\t/g }
        print join("\t", @fields), "\n";
    }' "$first_account" "$@"
}

# find_first_account: sets `first_account` to the first number of accounts that people have.
first_account=''
find_first_account() {
  [[ -z $first_account ]] || return 0
  first_account=$(awk '$1 == "UID_MIN" && $2 ~ /^[0-9]+$/ { print $2 }' /etc/login.defs 2>/dev/null)
  first_account=${first_account:-1000}
}

# unit_of PID: sets REPLY to the unit of this host's systemd that a process is in; to nothing where it is in none, or in one of a
# container's.
declare -A unit_of_group=()
unit_of() {
  local group unit
  group=$(sed -n 's|^[^:]*:\(name=systemd\)\{0,1\}:\(/.*\.service\)$|\2|p' "/proc/$1/cgroup" 2>/dev/null | head -n 1)
  REPLY=''
  [[ $group ]] || return 0
  if [[ -z ${unit_of_group[$group]+known} ]]; then
    unit=${group##*/}
    [[ $(systemctl show -p ControlGroup --value -- "$unit" 2>/dev/null) == "$group" ]] || unit=''
    unit_of_group[$group]=$unit
  fi
  REPLY=${unit_of_group[$group]}
}

# is_ordinary UID UNIT: whether an account is neither the system's, nor ours, nor the one that the unit names.
declare -A account_of_unit=()
is_ordinary() {
  local user
  [[ $1 != "$EUID" && $1 != "${login_uid:-$EUID}" ]] || return 1
  find_first_account
  (($1 >= first_account)) || return 1
  # Those that systemd makes for services.
  (($1 < 61184 || $1 > 65519)) || return 1
  [[ $2 ]] || return 0
  if [[ -z ${account_of_unit[$2]+known} ]]; then
    user=$(systemctl show -p User --value -- "$2" 2>/dev/null)
    [[ -z $user || $user =~ ^[0-9]+$ ]] || user=$(id -u -- "$user" 2>/dev/null)
    account_of_unit[$2]=$user
  fi
  [[ ${account_of_unit[$2]} != "$1" ]]
}

# server_counts RELATION UID OWNER DIRECTORY-OWNER UNIT: whether a holder is one that a run must heed. Ordinary accounts can hold files of
# their own anywhere below a directory, and put them beside others' where anyone can write; a data directory is its server's.
server_counts() {
  if [[ $1 == within ]]; then
    [[ $3 == "$4" ]] || ! is_ordinary "$3" "$5"
  else
    ! is_ordinary "$2" "$5" && ! is_ordinary "$3" "$5"
  fi
}

# real_path PATH: sets REPLY to it without symbolic links.
real_path() {
  REPLY=$(readlink -f -- "$1" && echo .) && REPLY=${REPLY%$'\n.'}
}

# is_served DIRECTORY [UNIT]: whether a server works there; with UNIT, whether that unit's does. What an ordinary account has put into a
# directory of another one's makes no server.
is_served() {
  local line REPLY
  local -a words
  real_path "$1" && [[ -d $REPLY ]] || return
  while IFS= read -r line; do
    split "$line"
    [[ ${words[0]} == within && $1 -ef ${words[1]} ]] || continue
    unit_of "${words[3]}"
    server_counts within "${words[@]:4:3}" "$REPLY" || continue
    [[ -z ${2-} || $REPLY == "$2" ]] && return 0
  done < <(data_holders "$REPLY")
  return 1
}

# socket_of PREFERRED PID...: sets REPLY to a socket that one of these processes listens on: PREFERRED if that is one; to nothing
# where that cannot be seen.
socket_of() {
  # shellcheck disable=SC2016 # perl's variables
  REPLY=$(perl -e '
    use strict;
    use Socket;
    my ($preferred, @pids) = @ARGV;
    my (%held, %names);
    for my $pid (@pids) {
        opendir(my $descriptors, "/proc/$pid/fd") or next;
        for my $fd (readdir $descriptors) {
            $held{$1} = 1 if (readlink("/proc/$pid/fd/$fd") // "") =~ /^socket:\[(\d+)\]\z/;
        }
    }
    open(my $sockets, "<", "/proc/net/unix") or exit 0;
    while (<$sockets>) {
        my ($flags, $inode, $name) = m{^[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) 0001 [0-9A-F]{2} +(\d+) (/.*)$} or next;
        push @{ $names{$inode} }, $name if $held{$inode} && hex($flags) & 0x10000;
    }
    sub listener {
        local $SIG{ALRM} = sub { exit 0 };
        alarm 10;
        socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or return 0;
        connect($socket, pack_sockaddr_un($_[0])) or return 0;
        return (unpack("lLL", getsockopt($socket, SOL_SOCKET, SO_PEERCRED)))[0];
    }
    my @all;
    for my $inode (sort { $a <=> $b } keys %names) {
        my @listed = @{ $names{$inode} };
        # A name with a newline in it can look like a row of its own: who listens there decides. systemd does for a socket unit.
        push @all, grep { my $pid = listener($_); $pid == 1 || grep { $_ == $pid } @pids } @listed;
    }
    # Another protocol is spoken on those of the X Plugin.
    my ($chosen) = ((grep { $_ eq $preferred } @all), (grep { !/mysqlx/ } @all));
    print $chosen // "";' "$@")
}

# servers_near PATH DEFAULTS: lines `server RELATION DATADIR UNIT SOCKET ERROR` for each server whose data the path has to do
# with, ERROR being why it does not let us in; and `other_server RELATION DATADIR ACCOUNT` for those of ordinary accounts, which no run
# heeds.
servers_near() {
  local line unit socket error server_unit='' seen=' '
  local -a words others=()
  [[ -e $1 ]] && real_path "$1" || return
  while IFS= read -r line; do
    split "$line"
    unit_of "${words[3]}"
    unit=$REPLY
    [[ $seen != *" ${words[2]} "* ]] || continue
    if ! server_counts "${words[0]}" "${words[@]:4:3}" "$unit"; then
      others+=("$line")
      continue
    fi
    seen+="${words[2]} "
    socket_of '' "${words[3]}"
    socket=$REPLY
    server_unit=$unit server_uids=()
    if [[ -z $socket ]] || error=$(sql "$socket" "$2" 'SELECT 1'); then error=''; fi
    say server "${words[0]}" "${words[1]}" "$unit" "$socket" "${error##*$'\n'}"
  done < <(data_holders "$REPLY")
  server_uids=()
  for line in "${others[@]:0:20}"; do
    split "$line"
    [[ $seen != *" ${words[2]} "* ]] || continue
    seen+="${words[2]} "
    say other_server "${words[0]}" "${words[1]}" "$(id -un -- "${words[4]}" 2>/dev/null || echo "${words[4]}")"
  done
}
