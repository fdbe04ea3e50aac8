# sockets.pl LOCK PORT accepted ADDRESS AWAITED: what there is on ADDRESS and PORT of this host: `listening` where a process of
# the job listens, `ours PEER` for a connection of the job, `other PEER` for one that another process has accepted,
# `listener ADDRESS` for another process that listens there.
# sockets.pl LOCK PORT made: `ours OWN PEER` for each connection of the job to PORT of another host.
#
# What is awaited, `listening` or `ours`, is waited for, for a moment: that costs less than another start of perl.
#
# A socket is a process's when one of its descriptors is that socket by inode, and a process is the job's when its
# descriptor 8 is the job's lock. Names of processes are never read: their owners choose them.
use strict;
use warnings;

my ($lock, $port, $question, $address, $awaited) = @ARGV;
$awaited //= 'ours';
my @pauses = (0.01, 0.02, 0.04, 0.08);
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

# Loading Socket takes nearly half of the time of all this, so only IPv6 does.
sub parsed {
    my ($text) = @_;
    return pack('C4', split(/\./, $text)) if $text =~ /^\d+(\.\d+){3}\z/;
    require Socket;
    return unmapped(Socket::inet_pton(Socket::AF_INET6(), $text) // '');
}

sub shown {
    my ($bytes, $port) = (address_of($_[0]), hex((split(/:/, $_[0]))[1]));
    return join('.', unpack('C4', $bytes)) . ":$port" if length $bytes == 4;
    require Socket;
    return '[' . Socket::inet_ntop(Socket::AF_INET6(), $bytes) . "]:$port";
}

my $here = defined $address ? parsed($address) : '';
my %any = map { $_ => 1 } "\0" x 4, "\0" x 16;
my $wanted = sprintf(':%04X', $port);

sub row {
    my ($row, $ours) = @_;
    my (undef, $own, $peer, $state, undef, undef, undef, undef, undef, $inode) = split(' ', $row);
    return if ($question eq 'made' ? $peer : $own) !~ /$wanted\z/;
    $state = hex $state;
    my $is_ours = exists $ours->{$inode};
    if ($question eq 'made') {
        return $is_ours && $state == $established ? 'ours ' . shown($own) . ' ' . shown($peer) : ();
    }
    my $at = address_of($own);
    return if $at ne $here && !$any{$at};
    return $is_ours ? 'listening' : 'listener ' . shown($own) if $state == $listen;
    # Also one whose peer has said all that it wanted, which nobody has read yet.
    return $state == $established || $state == $close_wait ? 'ours ' . shown($peer) : () if $is_ours;
    # One that no process has accepted has no inode: nobody reads it.
    return $inode && !$over{$state} ? 'other ' . shown($peer) : ();
}

sub rows {
    my $ours = inodes_of_job();
    my @rows;
    for my $table ('/proc/net/tcp', '/proc/net/tcp6') {
        open(my $lines, '<', $table) or next;
        # Most lines are of others: they are not taken apart.
        while (my $line = <$lines>) { push @rows, row($line, $ours) if index($line, $wanted) >= 0 }
    }
    return @rows;
}

my @rows = rows();
while (@pauses && !grep { /^$awaited\b/ } @rows) {
    select(undef, undef, undef, shift @pauses);
    @rows = rows();
}
print "$_\n" for @rows;
