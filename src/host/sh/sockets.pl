# sockets.pl LOCK PORT listening: `listening` where a process of the job listens on PORT; nothing otherwise.
# sockets.pl LOCK PORT accepted ADDRESS: what there is on ADDRESS and PORT of this host: `ours PEER` for a connection of the
# job, `other PEER` for one that another process has accepted, `listener ADDRESS` for another process that listens there.
# sockets.pl LOCK PORT made: `ours OWN PEER` for each connection of the job to PORT of another host.
#
# A socket is a process's when one of its descriptors is that socket by inode, and a process is the job's when its
# descriptor 8 is the job's lock. Names of processes are never read: their owners choose them.
use strict;
use warnings;
use Socket qw(inet_ntop inet_pton AF_INET AF_INET6);

my ($lock, $port, $question, $address) = @ARGV;
my ($established, $close_wait, $listen) = (1, 8, 10);
# A connection that is over belongs to nobody any more: TIME_WAIT and CLOSE.
my %over = (6 => 1, 7 => 1);

sub inodes_of_job {
    my @lock = stat($lock) or die "$lock: $!\n";
    my %inodes;
    opendir(my $proc, '/proc') or die "/proc: $!\n";
    for my $pid (grep { /^\d+$/ } readdir $proc) {
        my @held = stat("/proc/$pid/fd/8") or next;
        next if $held[0] != $lock[0] || $held[1] != $lock[1];
        opendir(my $descriptors, "/proc/$pid/fd") or next;
        for my $descriptor (readdir $descriptors) {
            my $to = readlink("/proc/$pid/fd/$descriptor") // next;
            $inodes{$1} = 1 if $to =~ /^socket:\[(\d+)\]$/;
        }
    }
    return \%inodes;
}

# One of IPv4 may be mapped into IPv6.
sub unmapped {
    my ($bytes) = @_;
    return length $bytes == 16 && substr($bytes, 0, 12) eq "\0" x 10 . "\xff\xff" ? substr($bytes, 12) : $bytes;
}

# The address of an `ADDRESS:PORT` as the kernel lists it: words of 32 bits in the processor's order.
sub address_of {
    my ($hex) = split(/:/, $_[0]);
    return unmapped(join('', map { pack('L', hex) } $hex =~ /(.{8})/g));
}

sub shown {
    my ($bytes, $port) = (address_of($_[0]), hex((split(/:/, $_[0]))[1]));
    return inet_ntop(AF_INET, $bytes) . ":$port" if length $bytes == 4;
    return '[' . inet_ntop(AF_INET6, $bytes) . "]:$port";
}

my $here = defined $address ? unmapped(inet_pton(AF_INET, $address) // inet_pton(AF_INET6, $address) // '') : '';
my %any = map { $_ => 1 } "\0" x 4, "\0" x 16;
my $ours = inodes_of_job();
my $wanted = sprintf(':%04X', $port);
for my $table ('/proc/net/tcp', '/proc/net/tcp6') {
    open(my $rows, '<', $table) or next;
    while (my $row = <$rows>) {
        # Most rows are of others: they are not taken apart.
        next if index($row, $wanted) < 0;
        my (undef, $own, $peer, $state, undef, undef, undef, undef, undef, $inode) = split(' ', $row);
        next if ($question eq 'made' ? $peer : $own) !~ /$wanted\z/;
        $state = hex $state;
        my $is_ours = exists $ours->{$inode};
        if ($question eq 'listening') {
            if ($is_ours && $state == $listen) { print "listening\n"; exit 0 }
        } elsif ($question eq 'made') {
            print 'ours ', shown($own), ' ', shown($peer), "\n" if $is_ours && $state == $established;
        } else {
            my $at = address_of($own);
            next if $at ne $here && !$any{$at};
            if ($state == $listen) {
                print 'listener ', shown($own), "\n" if !$is_ours;
            } elsif ($is_ours) {
                # Also one whose peer has said all that it wanted, which nobody has read yet.
                print 'ours ', shown($peer), "\n" if $state == $established || $state == $close_wait;
            } elsif ($inode && !$over{$state}) {
                # One that no process has accepted has no inode: nobody reads it.
                print 'other ', shown($peer), "\n";
            }
        }
    }
}
