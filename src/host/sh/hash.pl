# hash.pl JOB PROGRAM CHANGES WORKERS BATCH HELD: digests of the files that standard input lists, `DEVICE:INODE NUL PATH NUL` each,
# as `PATH//DIGEST NUL` on standard output, in any order. PROGRAM is one of coreutils.
#
# A path is only a way to an inode, and another user may lay it elsewhere at any moment. Each file is pinned without being
# opened (O_PATH: not even a device or a FIFO notices), must be the regular file that was listed, and goes to PROGRAM as a
# descriptor. WORKERS processes take up to BATCH files each. HELD is the one path that may be a link, or empty: the guard's own,
# to what it holds.
#
# One that was replaced or has gone: CHANGES `strict`: an error; `lenient`: it has no digest. One that cannot be read is
# always an error.
#
# Event on descriptor 5: `bytes JOB digests N` at most once a second, N growing as long as anything is read.
use strict;
use warnings;
use Fcntl qw(O_NOFOLLOW);

@ARGV == 6 or die "hash: expected 6 arguments\n";
my ($job, $program, $changes, $workers, $batch, $held) = @ARGV;
# The same on all of Linux's architectures that have find_syscalls.
my $o_path = 0x200000;
my ($enoent, $enotdir, $eloop, $estale, $eintr) = (2, 20, 40, 116, 4);
my $second = 1;
$SIG{PIPE} = 'IGNORE';
open(my $events, '>&=', 5) or die "hash: no event channel: $!\n";
$/ = "\0";

# The list goes on; what of it is not taken apart yet; its files that no program has yet.
my ($listed, $list, @waiting) = (1, '');
my ($failed, %running, %reading) = (0);
# Of processes that have ended: what they read, and one for each digest.
my ($done, $told, $said) = (0, 0, -1);

sub complain {
    print STDERR map { s/\n/\\n/gr } @_;
    print STDERR "\n";
    $failed = 1;
}

# Pins the file; undef where there is none any more that was listed.
sub pin {
    my ($inode, $path) = @_;
    if (!sysopen(my $file, $path, $o_path | ($path eq $held ? 0 : O_NOFOLLOW))) {
        my $error = $! + 0;
        my $gone = grep { $error == $_ } $enoent, $enotdir, $eloop, $estale;
        complain("$path: $!") if !$gone || $changes ne 'lenient';
    } else {
        my @found = stat $file;
        return $file if @found && -f _ && "$found[0]:$found[1]" eq $inode;
        complain("$path was replaced while its digest was taken") if $changes ne 'lenient';
    }
    return undef;
}

# Takes in what the list has grown by. Files wait in @waiting; what is listed is movement, too.
sub take_in {
    my $bytes = sysread(STDIN, $list, 65536, length $list);
    return if !defined $bytes && $! == $eintr;
    $listed = 0 if !$bytes;
    $done += $bytes // 0;
    push @waiting, [$1, $2] while $list =~ s/\A([^\0]*)\0([^\0]*)\0//;
}

# Starts PROGRAM on files that wait: on a batch, or on fewer where no more come for now.
sub start {
    my (@files, %path);
    # Its descriptors outlive exec.
    local $^F = 1 << 30;
    while (@files < $batch && @waiting) {
        my ($inode, $path) = @{ shift @waiting };
        my $file = pin($inode, $path) // next;
        push @files, $file;
        $path{'/proc/self/fd/' . fileno $file} = $path;
    }
    return if !@files;
    my @names = map { '/proc/self/fd/' . fileno $_ } @files;
    local $^F = 2;
    pipe(my $out, my $into) && pipe(my $errors, my $says) or die "hash: $!\n";
    my $child = fork() // die "hash: $!\n";
    if ($child == 0) {
        $SIG{PIPE} = 'DEFAULT';
        open(STDIN, '<', '/dev/null') && open(STDOUT, '>&', $into) && open(STDERR, '>&', $says) or die "hash: $!\n";
        exec { $program } $program, '-z', '--', @names or die "hash: $program: $!\n";
    }
    my $worker = { child => $child, path => \%path, read => 0, open => 2, digests => '', words => '' };
    $running{$child} = $worker;
    $reading{fileno $out} = [$out, $worker, 'digests'];
    $reading{fileno $errors} = [$errors, $worker, 'words'];
}

# What a process has read so far: bytes, or where the kernel counts none, its processor time.
sub consumed {
    my ($child) = @_;
    local $/;
    if (open(my $io, '<', "/proc/$child/io")) {
        return $1 if (readline($io) // '') =~ /^rchar: (\d+)/m;
    }
    if (open(my $stat, '<', "/proc/$child/stat")) {
        my @fields = split ' ', (readline($stat) // '') =~ s/^.*\) //sr;
        return $fields[11] + $fields[12] if @fields > 12;
    }
    return 0;
}

sub report {
    return if time == $told;
    $told = time;
    my $total = $done;
    for my $worker (values %running) {
        my $now = consumed($worker->{child});
        # One that has ended just now has nothing to tell.
        $worker->{read} = $now if $now > $worker->{read};
        $total += $worker->{read};
    }
    return if $total == $said;
    $said = $total;
    syswrite($events, "!\tbytes\t$job\tdigests\t$total\n");
}

# Each file of a batch has a digest, or words that say why not.
sub finish {
    my ($worker) = @_;
    waitpid($worker->{child}, 0);
    my $status = $?;
    delete $running{$worker->{child}};
    my $path = $worker->{path};
    for my $record (split /\0/, $worker->{digests}) {
        my ($digest, $name) = $record =~ m{\A([0-9a-f]+) [ *](.+)\z}s or next;
        my $its = delete $path->{$name} // next;
        print "$its//$digest\0" or die "hash: $!\n";
        $done++;
    }
    $done += $worker->{read};
    for my $line (split /\n/, $worker->{words}) {
        my ($name, $why) = $line =~ m{(/proc/self/fd/\d+): (.+)\z} or next;
        my $its = delete $path->{$name} // next;
        complain("$its: $why");
    }
    my ($one) = values %$path;
    complain("$one: $program ended with status " . ($status >> 8 || $status & 127) . " and took no digest of it") if defined $one;
    complain("$program ended with status " . ($status >> 8 || $status & 127)) if $status && !$failed;
}

# Waits until something can be read, for a second at most; false where nothing could.
sub read_some {
    my $set = '';
    vec($set, $_, 1) = 1 for keys %reading;
    # No more of the list than two batches ahead.
    vec($set, 0, 1) = 1 if $listed && @waiting < 2 * $batch;
    return 0 if select(my $ready = $set, undef, undef, $second) <= 0;
    take_in() if vec($ready, 0, 1);
    for my $number (grep { vec($ready, $_, 1) } keys %reading) {
        my ($pipe, $worker, $part) = @{ $reading{$number} };
        my $bytes = sysread($pipe, $worker->{$part}, 65536, length $worker->{$part});
        next if $bytes || !defined $bytes && $! == $eintr;
        delete $reading{$number};
        finish($worker) if --$worker->{open} == 0;
    }
    return 1;
}

# After the first that failed nothing more is begun.
my $came = 1;
while (($listed || @waiting) && !$failed || %running) {
    while (!$failed && keys %running < $workers && @waiting && (@waiting >= $batch || !$listed || !$came)) {
        start();
    }
    $came = read_some();
    report();
}
close(STDOUT) or die "hash: $!\n";
exit $failed;
