# A process that poses as a server. Arguments, KEY=VALUE, in the order of their effect:
#   name=NAME        its process name
#   cwd=DIRECTORY    its working directory
#   write=FILE       a POSIX write lock on that file (read=FILE: a read lock), with the file open for just that
#   open=FILE        that file open for writing, without a lock
#   record=FILE      everything that clients send, and nothing else
#   asks=WHAT        clear or dialog (plugins that send passwords as they are), infile:FILE (LOCAL INFILE), nothing
#   listen=WHERE     a path or a TCP port; any number of them
#   mode=OCTAL       of the sockets; default 0777
# It prints `ready`, and runs until it is killed.
use strict;
use warnings;
use Fcntl;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;

my (%said, @listen, $log);
for (@ARGV) {
  my ($key, $value) = split /=/, $_, 2;
  if ($key eq 'listen') { push @listen, $value } else { $said{$key} = $value }
}
$| = 1;
$SIG{PIPE} = 'IGNORE';

if (defined $said{name}) {
  open my $comm, '>', '/proc/self/comm' or die "comm: $!";
  syswrite $comm, $said{name} or die "comm: $!";
}
if (defined $said{cwd}) { chdir $said{cwd} or die "$said{cwd}: $!" }
my @locked;
for (['write', '+<', F_WRLCK], ['read', '<', F_RDLCK], ['open', '+<', F_UNLCK]) {
  my ($key, $mode, $type) = @$_;
  next unless defined $said{$key};
  open my $file, $mode, $said{$key} or die "$said{$key}: $!";
  fcntl $file, F_SETLK, pack 's s x![q] q q i x![q]', $type, 0, 0, 0, 0 or die "lock of $said{$key}: $!";
  push @locked, $file;
}
if (defined $said{record}) {
  open $log, '>>:raw', $said{record} or die "$said{record}: $!";
  $log->autoflush(1);
}

my $listeners = IO::Select->new;
for my $place (@listen) {
  my $socket;
  if ($place =~ m{^/}) {
    unlink $place;
    $socket = IO::Socket::UNIX->new(Local => $place, Listen => 8) or die "$place: $!";
    chmod oct($said{mode} // '0777'), $place;
  } else {
    $socket = IO::Socket::INET->new(LocalPort => $place, Listen => 8, ReuseAddr => 1) or die "$place: $!";
  }
  $listeners->add($socket);
}

# Bytes of a client, all of which are recorded; undef at its end, or when it has been silent for long.
sub take {
  my ($client, $count) = @_;
  my $bytes = '';
  while (length $bytes < $count) {
    IO::Select->new($client)->can_read(20) or return;
    sysread $client, my $part, $count - length $bytes or return;
    print $log $part if $log;
    $bytes .= $part;
  }
  return $bytes;
}

# A packet of MySQL's protocol; sets $sequence to its number.
my $sequence = 0;
sub packet {
  my ($client) = @_;
  my $head = take($client, 4) // return;
  my $length = unpack 'V', substr($head, 0, 3) . "\0";
  $sequence = ord substr $head, 3;
  return $length ? take($client, $length) : '';
}

sub reply {
  my ($client, $bytes) = @_;
  $sequence = ($sequence + 1) % 256;
  syswrite $client, substr(pack('V', length $bytes), 0, 3) . chr($sequence) . $bytes;
}

sub serve {
  my ($client) = @_;
  my $asks = $said{asks} // 'nothing';
  my ($file) = $asks =~ /^infile:(.*)/s;
  my $ok = "\0\0\0\2\0\0\0";
  # PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, LOCAL_FILES, CONNECT_WITH_DB, multiple statements and results.
  my $capabilities = 0x200 | 0x8000 | 0x80000 | 0x80 | 0x8 | 0x30000 | 0x1;
  $sequence = -1;
  reply($client, pack('C Z* V a8 C v C v v C x10 a12 C Z*', 10, '5.5.5-10.11.14-MariaDB', 7, 'saltsalt', 0,
    $capabilities & 0xffff, 45, 2, $capabilities >> 16, 21, 'saltsaltsalt', 0, 'mysql_native_password'));
  packet($client) // return;
  if ($asks eq 'clear') {
    reply($client, "\xfemysql_clear_password\0\0");
    packet($client) // return;
  } elsif ($asks eq 'dialog') {
    # An ordinary question, the last one, whose answer is the password.
    reply($client, "\xfedialog\0\5Password: ");
    packet($client) // return;
  }
  reply($client, $ok);
  while (defined(my $command = packet($client))) {
    last if $command =~ /^\x01/;
    if (defined $file && $command =~ /^\x03/) {
      reply($client, "\xfb$file");
      while (length(packet($client) // '')) { }
    }
    reply($client, $ok);
  }
}

print "ready\n";
if (!@listen) { sleep 3600; exit }
while (1) {
  for my $listener ($listeners->can_read(3600)) {
    my $client = $listener->accept or next;
    serve($client);
    close $client;
  }
}
