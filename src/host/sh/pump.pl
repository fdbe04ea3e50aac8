# pump.pl JOB METER [DIGEST-PIPE]
# pump.pl JOB METER --sink SECONDS PROGRAM ARGUMENT...
#
# Moves its input to its output without copying it (splice), counts the bytes, and gives a duplicate (tee) to a side:
# to a named pipe, whose reader must take everything, or to a sink, a program that is started here. A sink that goes
# away, or takes nothing for SECONDS, is ended and dropped, and the rest goes on.
#
# Events on descriptor 5: `bytes JOB METER N` once a second and at the end, `dropped JOB METER REASON`.
# Exit status: 0; 141 when the output was closed; 1 otherwise.
use strict;
use warnings;

my ($job, $meter, $side, $patience, @program) = @ARGV;
my ($splice, $tee) = ($ENV{nr_splice} + 0, $ENV{nr_tee} + 0);
my ($most, $nonblock, $setpipe_sz, $eagain, $eintr, $epipe, $wnohang) = (1 << 20, 2, 1031, 11, 4, 32, 1);
# Seconds between two looks at a sink while there is nothing for it.
my $look = 0.2;
$SIG{PIPE} = 'IGNORE';
open(my $events, '>&=', 5) or die "pump: no event channel: $!\n";

sub event { syswrite($events, join("\t", '!', @_) . "\n") }

my ($out, $sink);
if (@program) {
    pipe(my $in, $out) or die "pump: $!\n";
    $sink = fork() // die "pump: $!\n";
    if ($sink == 0) {
        $SIG{PIPE} = 'DEFAULT';
        open(STDIN, '<&', $in) or die "pump: $!\n";
        # A netcat says a line in pieces, between which those of its siblings would come.
        pipe(my $said, my $says) or die "pump: $!\n";
        if ((fork() // die "pump: $!\n") == 0) {
            close $_ for $says, $in, $out, \*STDIN, \*STDOUT;
            while (my $line = <$said>) { syswrite(STDERR, $line) }
            exit;
        }
        open(STDERR, '>&', $says) or die "pump: $!\n";
        exec { $program[0] } @program or die "pump: $program[0]: $!\n";
    }
    close $in;
} elsif (defined $side) {
    open($out, '>', $side) or die "pump: $side: $!\n";
}
fcntl($_, $setpipe_sz, $most) for grep { defined } $out, \*STDIN, \*STDOUT;

my ($total, $told) = (0, 0);

sub drop {
    my ($reason, $has_ended) = @_;
    event('dropped', $job, $meter, $reason);
    close $out;
    undef $out;
    return if $has_ended;
    # Ours and not waited for yet, so the number cannot be another's.
    kill 'KILL', $sink;
    waitpid $sink, 0;
}

# Duplicates what the input holds into the side; returns the number of bytes, 0 at the end, undef to try again.
sub duplicate {
    if (defined $sink) {
        my $set = '';
        vec($set, fileno($out), 1) = 1;
        if (select(undef, $set, undef, $patience) == 0) { drop('stalled'); return undef }
    }
    my $bytes = syscall($tee, 0, fileno($out), $most, defined $sink ? $nonblock : 0);
    return $bytes if $bytes >= 0;
    my $error = $! + 0;
    if ($error == $eagain || $error == $eintr) {
        # The sink had room, so it is the input that is empty. A netcat that was refused is not to wait for it.
        my $set = '';
        vec($set, 0, 1) = 1;
        select($set, undef, undef, $look);
        drop('closed', 1) if waitpid($sink, $wnohang) == $sink;
        return undef;
    }
    die "pump: the reader of $meter is gone\n" if !defined $sink;
    drop($error == $epipe ? 'closed' : "$!");
    return undef;
}

# Moves at most that many bytes to the output; returns how many, 0 at the end.
sub forward {
    my ($bytes) = @_;
    while (1) {
        my $moved = syscall($splice, 0, 0, 1, 0, $bytes, 0);
        return $moved if $moved >= 0;
        if ($! == $epipe) {
            # A reader may end with the last byte, and the kernel tells it before the input has ended.
            return 0 if sysread(STDIN, my $more, 1) == 0;
            event('bytes', $job, $meter, $total);
            exit 141;
        }
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

# The sink still has to send what its pipe and its socket hold.
if (defined $sink && defined $out) {
    close $out;
    my $end = time + $patience;
    while (waitpid($sink, $wnohang) == 0) {
        if (time > $end) {
            event('dropped', $job, $meter, 'stalled');
            kill 'KILL', $sink;
            waitpid $sink, 0;
            last;
        }
        select(undef, undef, undef, 0.02);
    }
}
