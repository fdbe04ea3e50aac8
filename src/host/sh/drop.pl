# drop.pl: forgets the cached pages of the files named on standard input (NUL-terminated), so that what is read next
# comes from the disk. They must be synced; a dirty page stays.
use strict;
use warnings;
use Fcntl qw(O_RDONLY O_NOFOLLOW O_NONBLOCK);

my ($fadvise, $dont_need) = ($ENV{nr_fadvise} + 0, 4);
$/ = "\0";
while (my $name = <STDIN>) {
    chomp $name;
    sysopen(my $file, $name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK) or die "drop: $name: $!\n";
    -f $file or die "drop: $name is no regular file\n";
    # posix_fadvise; a file system without a cache to drop refuses it.
    syscall($fadvise, fileno($file), 0, 0, $dont_need);
}
