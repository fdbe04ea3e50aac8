# pump.pl JOB METER [SIDE [SECONDS]]: moves its input to its output without copying it (splice), counts the bytes, and
# gives a duplicate (tee) to the named pipe SIDE. A side with SECONDS is a sink: when it goes away or takes nothing for
# that long it is dropped and told about; a side without (a digest) must take everything.
#
# Events on descriptor 5: `bytes JOB METER N` once a second and at the end, `dropped JOB SIDE REASON`.
# Exit status: 0; 141 when the output was closed; 1 otherwise.
use strict;
use warnings;

my ($job, $meter, $side, $patience) = @ARGV;
my ($splice, $tee) = ($ENV{nr_splice} + 0, $ENV{nr_tee} + 0);
my ($most, $nonblock, $setpipe_sz, $eagain, $eintr, $epipe) = (1 << 20, 2, 1031, 11, 4, 32);
$SIG{PIPE} = 'IGNORE';
open(my $events, '>&=', 5) or die "pump: no event channel: $!\n";

sub event { syswrite($events, join("\t", '!', @_) . "\n") }

my $out;
if (defined $side) {
    open($out, '>', $side) or die "pump: $side: $!\n";
    fcntl($out, $setpipe_sz, $most);
}
fcntl(STDIN, $setpipe_sz, $most);
fcntl(STDOUT, $setpipe_sz, $most);

my ($total, $told) = (0, 0);

sub drop {
    event('dropped', $job, $side =~ s{.*/}{}r, shift);
    close $out;
    undef $out;
}

# Waits until the sink takes something; false when it was dropped.
sub sink_is_ready {
    my $set = '';
    vec($set, fileno($out), 1) = 1;
    return 1 if select(undef, $set, undef, $patience) > 0;
    drop('stalled');
    return 0;
}

# Duplicates what the input holds into the side; returns the number of bytes, 0 at the end, undef to try again.
sub duplicate {
    return undef if defined $patience && !sink_is_ready();
    my $bytes = syscall($tee, 0, fileno($out), $most, defined $patience ? $nonblock : 0);
    return $bytes if $bytes >= 0;
    my $error = $! + 0;
    if ($error == $eagain || $error == $eintr) {
        # The sink had room, so it is the input that is empty.
        my $set = '';
        vec($set, 0, 1) = 1;
        select($set, undef, undef, undef);
        return undef;
    }
    die "pump: the reader of $meter is gone\n" if !defined $patience;
    drop($error == $epipe ? 'closed' : "$!");
    return undef;
}

# Moves at most that many bytes to the output; returns how many, 0 at the end.
sub forward {
    my ($most_now) = @_;
    while (1) {
        my $bytes = syscall($splice, 0, 0, 1, 0, $most_now, 0);
        return $bytes if $bytes >= 0;
        exit 141 if $! == $epipe;
        die "pump: $meter: $!\n" if $! != $eintr;
    }
}

while (1) {
    my $ready = $most;
    my $duplicated = defined $out;
    if ($duplicated) {
        $ready = duplicate();
        next if !defined $ready;
        last if $ready == 0;
    }
    # What was duplicated is still in the input and must move exactly once.
    while ($ready > 0) {
        my $moved = forward($ready);
        $total += $moved;
        $ready = $moved == 0 ? -1 : $duplicated ? $ready - $moved : 0;
    }
    last if $ready < 0;
    if (time != $told) {
        $told = time;
        event('bytes', $job, $meter, $total);
    }
}
event('bytes', $job, $meter, $total);
