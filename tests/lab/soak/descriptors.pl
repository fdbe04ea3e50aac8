# Looks at the open descriptors of all agents of a host again and again, until it is killed, and prints what none of
# them should have. Sent to perl by soak.rs.
use strict;
use warnings;

$| = 1;
my ($most, %told, %before) = (0);

sub read_file { open(my $in, '<', $_[0]) or return ''; local $/; return <$in> // '' }

# Whether a process is an agent, not a child of one that has not become its program yet.
sub is_agent {
    my ($pid) = @_;
    my $serves = qr{/transfer-agent\0serve\0$};
    return 0 unless read_file("/proc/$pid/cmdline") =~ $serves;
    my ($parent) = read_file("/proc/$pid/status") =~ /^PPid:\s+(\d+)/m;
    return read_file('/proc/' . ($parent // 0) . '/cmdline') !~ $serves;
}

while (1) {
    opendir my $proc, '/proc' or die;
    my %now;
    for my $pid (grep { /^\d+$/ } readdir $proc) {
        next unless is_agent($pid);
        opendir my $fds, "/proc/$pid/fd" or next;
        my %open = map { $_ => readlink("/proc/$pid/fd/$_") // 'closed' } grep { /^\d+$/ } readdir $fds;
        # One that has no journal, or has just begun its end, has no run.
        my ($home) = map { m{^(/var/lib/transfer/[^/.][^/]*)/journal\.bin$} ? $1 : () } values %open or next;
        my $held = 0;
        for my $fd (sort keys %open) {
            next if $open{$fd} =~ m{
                ^(/dev/null|/proc(/.*)?|pipe:.*|socket:.*|anon_inode:.*|closed|/var/lib/transfer|\Q$home\E(/[^/]*)?
                |/run/transfer/(port|target|server)\.[\w.]+(\ \(deleted\))?|.*/transfer-agent(\ \(deleted\))?)$}x;
            # The source or the target directory, the staging directory, and what is being copied are held open.
            next if $open{$fd} =~ m{^/} && ++$held <= 4;
            $now{"$pid $fd $open{$fd}"} = 1;
            next unless $before{"$pid $fd $open{$fd}"};
            print "bad: $home: descriptor $fd of process $pid is $open{$fd}\n" unless $told{"$home $fd $open{$fd}"}++;
        }
        my $all = join ' ', map { "$_=$open{$_}" } sort { $a <=> $b } keys %open;
        print "bad: $home: process $pid has too many: $all\n" if keys %open > 40 && !$told{"$home many"}++;
        if (keys %open > $most) { $most = keys %open; print "most: $most\n" }
    }
    %before = %now;
    select undef, undef, undef, 0.2;
}
