# Looks at the open descriptors of all agents of a host again and again, until it is killed, and prints what none of
# them should have. Sent to perl by soak.rs. The numbers are those at the top of guard.sh.
use strict;
use warnings;

$| = 1;
my ($most, %told, %before) = (0);

sub journal { (readlink("/proc/$_[0]/fd/9") // '') =~ m{^(/var/lib/transfer/[^/]+)/journal$} ? $1 : '' }

while (1) {
    opendir my $proc, '/proc' or die;
    my %now;
    for my $pid (grep { /^\d+$/ } readdir $proc) {
        my $home = journal($pid) or next;
        my ($parent, $name, $flags) = (0, '', '');
        open my $status, '<', "/proc/$pid/status" or next;
        for (<$status>) { $name = $1 if /^Name:\s+(\S+)/; $parent = $1 if /^PPid:\s+(\d+)/ }
        open my $info, '<', "/proc/$pid/fdinfo/9" or next;
        for (<$info>) { $flags = $1 if /^flags:\s+(\d+)/ }
        # The agent; what it starts has its descriptors for a moment.
        next unless $name eq 'bash' && $flags =~ /1$/ && journal($parent) ne $home;
        opendir my $fds, "/proc/$pid/fd" or next;
        my %open = map { $_ => readlink("/proc/$pid/fd/$_") // 'closed' } grep { /^\d+$/ } readdir $fds;
        # One that has just begun its end is looked at no more.
        next if journal($pid) ne $home;
        for my $fd (sort keys %open) {
            # A lock has its number; what a command needs for its length takes any that is free.
            my $known = qr{^(/dev/null|/proc/.*|/proc|pipe:.*|socket:.*|\Q$home\E/[^/]*|/tmp/sh-thd\..*|closed)$};
            $known = qr{^\Q$home\E/journal$} if $fd == 9;
            $known = qr{$known|^/run/transfer/port\.\d+( \(deleted\))?$} if $fd == 7;
            $known = qr{$known|^/run/transfer/target\.[\w.]+( \(deleted\))?$} if $fd == 10;
            # The source, the inbox, the target directory and the staging directory are held open.
            $known = qr{$known|^/} if $fd == 12 || $fd == 14;
            $known = qr{$known|/\.transfer-[\w-]+/copy( \(deleted\))?$} if $fd == 13;
            $known = qr{$known|/\.transfer-[\w-]+( \(deleted\))?$} if $fd == 15;
            next if $open{$fd} =~ $known;
            # bash opens a file as any free descriptor before it moves it to its number.
            $now{"$pid $fd $open{$fd}"} = 1;
            next unless $before{"$pid $fd $open{$fd}"};
            print "bad: $home: descriptor $fd of process $pid is $open{$fd}\n" unless $told{"$home $fd $open{$fd}"}++;
        }
        my $all = join ' ', map { "$_=$open{$_}" } sort { $a <=> $b } keys %open;
        print "bad: $home: process $pid has too many: $all\n" if keys %open > 20 && !$told{"$home many"}++;
        if (keys %open > $most) { $most = keys %open; print "most: $most\n" }
    }
    %before = %now;
    select undef, undef, undef, 0.2;
}
