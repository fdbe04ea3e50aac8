# log.pl JOB: what a program of a job logs on standard error, line by line. Events on descriptor 5: `bytes JOB log N`, at most
# once a second, so that a program which works and says so is not taken for one that stands still; `waits JOB LINE` when its
# last line says that it waits, and `waits JOB` when it goes on; `stuck JOB LINE`, and no word more of its bytes, when it says
# over and over that it fails; and at the end `log JOB LINE` for each of the last lines.
use strict;
use warnings;

my ($job) = @ARGV;
my ($most_lines, $most_bytes, $most_repeats, $second) = (100, 500, 100, 1);
# What mariadb-backup and xtrabackup write before a text.
my $stamp = qr/^(?:\[\d+\]\s)?[-\d]+[T ][\d:.]+(?:[-+][\d:]+)?\s(?:\d+\s(?:\[[^\]]*\]\s)+)?/;
# They say so at once, and nothing while they do.
my $waits = qr/^(?:Acquiring|Waiting|Starting BACKUP STAGE|Executing (?:LOCK|FLUSH|BACKUP STAGE))\b/;
# What they say meanwhile of the server's redo log.
my $beside = qr/^(?:DDL tracking|>> log scanned up to|Retrying read of log)/;
# There are two for each file.
my $of_file = qr/\.\.\.done$| to <STDOUT>$/;
# InnoDB tries for ever to write to a full disk.
my $fails = qr/\b(?:error|failed|cannot)\b/i;
$SIG{PIPE} = 'IGNORE';
open(my $events, '>&=', 5) or exit 1;

sub event {
    my ($event, @fields) = @_;
    for (@fields) {
        s/\\/\\\\/g;
        s/\t/\\t/g;
    }
    syswrite($events, join("\t", '!', $event, $job, @fields) . "\n");
}

my ($total, $told, $waiting, $stuck, $repeats, $text, $doing, @last) = (0, 0, 0, 0, 0, '', '');

sub finish {
    event('log', $_) for @last;
    exit 0;
}

# Who ends the job ends us, too.
$SIG{TERM} = \&finish;

# Of lines that say the same, the last one is kept.
sub keep {
    my ($line) = @_;
    my $before = $text;
    ($text = $line) =~ s/$stamp//;
    $repeats = $text eq $before ? $repeats + 1 : 0;
    $doing = $text if $text !~ $beside;
    pop @last if @last && ($repeats || $last[-1] =~ $of_file && $line =~ $of_file);
    push @last, substr($line, 0, $most_bytes);
    shift @last if @last > $most_lines;
    if (!$stuck && $repeats >= $most_repeats && $text =~ $fails) {
        $stuck = 1;
        event('stuck', $last[-1]);
    }
}

my ($rest, $end) = ('', 0);
until ($end) {
    vec(my $ready = '', fileno(STDIN), 1) = 1;
    if (select($ready, undef, undef, $second)) {
        $end = !sysread(STDIN, $rest, 65536, length $rest);
        while ($rest =~ s/^(.*)\n// || ($end || length $rest > 65536) && $rest =~ s/^(.+)//) {
            $total += length($1) + 1;
            keep($1);
        }
        if ($waiting && $doing !~ $waits) {
            event('waits');
            $waiting = 0;
        }
        if (time != $told && !$stuck) {
            $told = time;
            event('bytes', 'log', $total);
        }
    }
    # After a second without a word.
    elsif (!$waiting && $doing =~ $waits) {
        event('waits', $doing);
        $waiting = 1;
    }
}
finish();
