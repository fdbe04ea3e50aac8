# complain.pl JOB [NAME]: what a job's stages say on standard error, as events `stderr JOB LINE`: the first lines, each once,
# then how many more there were (`silenced JOB N`). The rest is read and thrown away: a stage must never block on it. NAME is
# that of the directory that tar calls `.`.
#
# Some programs lose something, say so, and end well. Such words are counted, however many lines there are: events
# `fault JOB CLASS FILES TEXT` for the first few files, `fault JOB CLASS FILES` at the end. CLASS is `read` (something could not
# be read), `skipped` (a stream's file was not written), or a kind of attributes that a file did not get: `xattrs`, `acls`
# or `capabilities`.
use strict;
use warnings;

my ($job, $called) = @ARGV;
my ($most_lines, $most_bytes, $most_files) = (40, 500, 3);
# What went away while it was read, and what has no attributes to be read, is no fault.
my $harmless = qr/(?:No such file or directory|Operation not supported)$/;
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

# The class of a line, and its file with the system's words. What users name comes behind what programs begin with, and
# before what they end with.
sub fault {
    my ($line) = @_;
    if ($line =~ /^tar: \w+: Cannot set '(.*)' extended attribute for file '(.*)': ([^:]*)$/) {
        my ($attribute, $file, $why) = ($1, $2, $3);
        my $kind = $attribute =~ /^system\.posix_acl_/ ? 'acls' : $attribute eq 'security.capability' ? 'capabilities' : 'xattrs';
        return ($kind, "$file: $why");
    }
    return ('acls', "$1: $2") if $line =~ /^tar: \w+: Cannot (?:set|drop default) POSIX ACLs for file '(.*)': ([^:]*)$/;
    return ('xattrs', "$1: $2") if $line =~ /^tar: \w+: Cannot set SELinux context for file '(.*)': ([^:]*)$/;
    # tar writes a colon of a name as `\:`.
    return ('read', $1)
        if $line =~ /^tar: ((?:[^\\:]|\\.)*: (?:Warning: )?(?:Read error at byte \d+|Cannot \w+)[^:]*: [^:]*)$/ && $line !~ $harmless;
    return ('read', $1) if $line =~ /^find: (.*: .*)$/ && $line !~ $harmless;
    return ('skipped', $1) if $line =~ m{^(?:\[\d+\] )?(?:[-\d]+[ T][\d:.]+ )?(?:\S*/)?(?:mb|xb)stream: (.*(?:invalid|fail|error|cannot|can't).*)$}i;
    return;
}

my (%seen, %files, %last, $silenced);
while (my $line = <STDIN>) {
    chomp $line;
    # tar names what it copies from within.
    $line =~ s{^(\S*tar: )\.(?=/|: )}{$1./$called} if defined $called;
    my ($class, $text) = fault($line);
    # A file that lacks several attributes of a kind counts once: its lines come one after the other.
    if (defined $class && $text ne ($last{$class} // '')) {
        $last{$class} = $text;
        $files{$class}++;
        event('fault', $class, $files{$class}, substr($text, 0, $most_bytes)) if $files{$class} <= $most_files;
    }
    next if ($class // '') =~ /^(?:xattrs|acls|capabilities)$/;
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
    event('stderr', $line);
}
event('silenced', $silenced) if $silenced;
event('fault', $_, $files{$_}) for grep { $files{$_} > $most_files } keys %files;
