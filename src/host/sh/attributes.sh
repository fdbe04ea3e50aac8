# shellcheck shell=bash
# attributes.sh: which extended attributes the files of a tree have, as lines `attributes KIND FILES EXAMPLE`: KIND is xattrs, acls
# or capabilities.

# main WHICH DIRECTORY NAME PATTERN...: WHICH is `all`, or `own` where only those count that need no privileges.
main() {
  local which=$1 directory=$2 name=$3 pattern kind files example
  local -a skip=()
  shift 3
  find_syscalls || return
  for pattern; do skip+=(-path "$pattern" -prune -o); done
  cd -- "$directory/" || return
  # shellcheck disable=SC2016 # perl's variables
  while IFS= read -r -d '' kind && IFS= read -r -d '' files && IFS= read -r -d '' example; do
    say attributes "$kind" "$files" "${example#./}"
  done < <(find "./$name" "${skip[@]}" -type s -o -print0 | perl -e '
    my ($llistxattr, $which) = @ARGV;
    # The longest list that Linux gives.
    my ($most, %files, %example) = (65536);
    my $names = "\0" x $most;
    $/ = "\0";
    while (my $path = <STDIN>) {
      chomp $path;
      my $bytes = syscall($llistxattr + 0, $path, $names, $most);
      next if $bytes <= 0;
      my %kinds;
      for my $attribute (split /\0/, substr($names, 0, $bytes)) {
        my $kind = $attribute =~ /^system\.posix_acl_/ ? "acls" : $attribute eq "security.capability" ? "capabilities" : "xattrs";
        $kinds{$kind} = 1 if $which eq "all" || $kind eq "acls" || $attribute =~ /^user\./;
      }
      for my $kind (keys %kinds) { $files{$kind}++; $example{$kind} //= $path }
    }
    print "$_\0$files{$_}\0$example{$_}\0" for sort keys %files;
  ' "$nr_llistxattr" "$which")
  say end
}
