# shellcheck shell=bash
# trust.sh: which accounts a path of this host depends on. Used by the facts and by the guard.

# trusted_uids: sets the array `trusted` to root and the account that logged in; behind sudo, the one that called it.
trusted_uids() {
  trusted=(0 "$EUID" ${login_uid:+"$login_uid"})
}

# shared_component PATH [UID...]: sets REPLY to the first component of PATH that an account other than root, the login or
# one of the UIDs can replace, as `COMPONENT<TAB>OWNER<TAB>MODE`; to nothing where there is none. Symbolic links are
# resolved, and every directory on the way counts. A directory that others can write to is safe when it is sticky and the
# next component belongs to a trusted account. The last component may be missing. False where that cannot be told.
#
# With `data` as the first UID the others are trusted only with a data directory: the last component, or a directory that
# holds the files of a server.
shared_component() {
  local path=$1
  local -a trusted
  shift
  trusted_uids
  # shellcheck disable=SC2016 # perl's variables
  REPLY=$(perl -e '
    use strict;
    my ($path, $getxattr, $trusted, @servers) = @ARGV;
    my $only_data = @servers && $servers[0] eq "data" && shift @servers;
    my %always = map { $_ => 1 } split(/ /, $trusted);
    my %server = map { $_ => 1 } @servers;
    my @data_files = ("ibdata1", "aria_log_control");

    sub is_trusted {
        my ($uid, $name, $is_last) = @_;
        return 1 if $always{$uid};
        return 0 if !$server{$uid};
        return 1 if !$only_data || $is_last;
        return scalar grep { lstat("$name/$_") } @data_files;
    }
    sub refuse {
        my ($name, $uid, $mode) = @_;
        print join("\t", $name, getpwuid($uid) // $uid, sprintf("%04o", $mode & 07777));
        exit 0;
    }
    # Whether others than trusted accounts may be in a group. It must be the own group of one, by its name, too: members of others
    # by their primary group are not listed where a directory service knows them.
    sub has_others {
        my ($gid) = @_;
        my ($group, $members) = (getgrgid($gid))[0, 3];
        my ($uid, $primary) = (getpwnam($group // ""))[2, 3];
        return 1 if !defined $uid || $primary != $gid || !($always{$uid} || $server{$uid});
        return scalar grep { my $uid = getpwnam($_); defined $uid && !$always{$uid} && !$server{$uid} } split(/ /, $members // "");
    }
    # With an access list the bits of the group are its mask, and say nothing of who is in it.
    sub has_list {
        my ($name) = @_;
        return 1 if !$getxattr;
        # What syscall is given must be variables.
        my ($attribute, $buffer) = ("system.posix_acl_access", "\0" x 4096);
        return syscall($getxattr + 0, $name, $attribute, $buffer, 4096) > 0;
    }
    sub others_write {
        my ($name, $mode, $gid) = @_;
        return 1 if $mode & 0002;
        return $mode & 0020 && (has_list($name) || has_others($gid));
    }

    my ($at, $links, @rest) = ("", 0, grep { $_ ne "" && $_ ne "." } split(m{/}, $path));
    my @seen = lstat("/") or exit 1;
    my ($mode, $uid, $gid) = @seen[2, 4, 5];
    while (1) {
        my $here = $at eq "" ? "/" : $at;
        # Directories only: a link is left at once, and nothing is behind a file.
        if (($mode & 0170000) != 0040000) { refuse($here, $uid, $mode) if !is_trusted($uid, $here, !@rest); last }
        refuse($here, $uid, $mode) if !is_trusted($uid, $here, !@rest);
        my $writable = others_write($here, $mode, $gid);
        refuse($here, $uid, $mode) if $writable && !($mode & 01000);
        last if !@rest;
        my $next = shift @rest;
        if ($next eq "..") { $at =~ s{/[^/]*\z}{}; @seen = lstat($at eq "" ? "/" : $at) or exit 1; ($mode, $uid, $gid) = @seen[2, 4, 5]; next }
        my @stat = lstat("$at/$next");
        if (!@stat) {
            # What is missing in a directory of everybody is for anybody to make.
            refuse($here, $uid, $mode) if $writable && @rest;
            last;
        }
        refuse("$at/$next", $stat[4], $stat[2]) if $writable && !is_trusted($stat[4], "$at/$next", !@rest);
        if (($stat[2] & 0170000) == 0120000) {
            refuse("$at/$next", $stat[4], $stat[2]) if !is_trusted($stat[4], "$at/$next", 0);
            # The text of a link in there is not where it leads.
            exit 1 if ++$links > 40 || "$at/" =~ m{^/proc/};
            my $to = readlink("$at/$next") // exit 1;
            unshift @rest, grep { $_ ne "" && $_ ne "." } split(m{/}, $to);
            if ($to =~ m{^/}) { $at = ""; @seen = lstat("/") or exit 1; ($mode, $uid, $gid) = @seen[2, 4, 5] }
            next;
        }
        $at .= "/$next";
        ($mode, $uid, $gid) = @stat[2, 4, 5];
    }' "$path" "${nr_getxattr-}" "${trusted[*]}" "$@" && echo .) || return
  REPLY=${REPLY%$'\n'.}
  REPLY=${REPLY%.}
}
