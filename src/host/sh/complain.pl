# complain.pl JOB: what a job's stages say on standard error, as events `stderr JOB LINE`: the first lines, each once,
# then how many more there were (`silenced JOB N`). The rest is read and thrown away: a stage must never block on it.
use strict;
use warnings;

my ($job) = @ARGV;
my ($most_lines, $most_bytes) = (40, 500);
$SIG{PIPE} = 'IGNORE';
open(my $events, '>&=', 5) or exit 1;

my (%seen, $silenced);
while (my $line = <STDIN>) {
    chomp $line;
    $line = substr($line, 0, $most_bytes);
    next if $line eq '' || $seen{$line};
    # bash's own report on the members of a pipeline that was killed; their statuses are told otherwise.
    next if $line =~ /^transfer-\w+: line \d+: +\d+ / || $line =~ /^ +\d+ +[\w|]/;
    # What a netcat says of itself when all is well.
    next if $line =~ /^Connection to \S+ \d+ port \[tcp\/.*\] succeeded!$/
        || $line =~ /^\(UNKNOWN\) \[\S+\] \d+ \(.*\) open$/
        || $line =~ /^listening on \[\S+\] \d+ \.\.\.$/
        || $line =~ /^connect to \[\S+\] from \(UNKNOWN\) \[\S+\] \d+$/;
    # By which a broken pipe of openssl is known.
    my $telling = $line =~ /error writing output file|file_ctrl:Broken pipe/;
    if (keys %seen >= $most_lines && !$telling) { $silenced++; next }
    $seen{$line} = 1;
    $line =~ s/\\/\\\\/g;
    $line =~ s/\t/\\t/g;
    syswrite($events, "!\tstderr\t$job\t$line\n");
}
syswrite($events, "!\tsilenced\t$job\t$silenced\n") if $silenced;
