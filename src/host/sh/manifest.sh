# shellcheck shell=bash
# manifest.sh JOB DIRECTORY NAME HASH WORKERS BATCH OWNERS SYNC CHANGES PATTERN...: what is in DIRECTORY/NAME, as sorted lists in
# the guard's directory, to be compared with the other host's. HASH is a program of coreutils, or `none`. What matches a
# PATTERN (of find's -path) is left out.
#
# $home/entries: `PATH//TYPE//SIZE` of every file, `PATH//TYPE//TARGET` of a symbolic link, `PATH//TYPE//` of all
# else; sockets are not copied and not listed. With OWNERS `owners` each is followed by `//MODE UID GID`, and by the
# seconds of a file's mtime. $home/digests (unless HASH is `none`): `PATH//DIGEST` of every file.
# Records end with NUL. No path contains two slashes in a row, so the order of the records is that of the paths.
# WORKERS processes take up to BATCH files each (hash.pl). SYNC `sync`: written just now; sync, and read from the disk, not from the cache.
#
# CHANGES `lenient`: a file may go or be replaced while it is listed, and has no digest then; so may a directory, of which
# find complains. What is missing in the list for another reason is one more difference. A file that cannot be read is an
# error all the same.
#
# Events: `bytes JOB digests N` and `waits` as of log.pl; `manifest JOB LIST RECORDS BYTES SHA256`, BYTES being the sizes of all files added up (entries) or 0.
set -uo pipefail
export LC_ALL=C
job=$1 directory=$2 name=$3 hash=$4 workers=$5 batch=$6 owners=$7 sync=$8 changes=$9
shift 9
# find goes on behind the patterns with what is not left out.
skip=()
for pattern; do skip+=(-path "$pattern" -prune -o); done
# On the source NAME is a link of the guard's to what it holds; everywhere else a link is what it is.
held=(-P) held_path=''
[[ $directory == "$home/source" ]] && held=(-H) held_path=./$name

report() { # LIST
  # shellcheck disable=SC2016 # perl's variables
  perl -e '
    my ($job, $list, $home, $changes) = @ARGV;
    my ($records, $files, $bytes) = (0, 0, 0);
    $/ = "\0";
    while (<STDIN>) {
      $records++;
      if ($list eq "entries" && m{\A(?:(?!//).)*//f//(\d+)}s) { $files++; $bytes += $1 }
    }
    if ($list eq "entries") {
      open(my $count, ">", "$home/files") or die "$home/files: $!";
      print $count $files;
    } else {
      open(my $count, "<", "$home/files") or die "$home/files: $!";
      my $expected = <$count>;
      die "$records of $expected files have a digest\n" if $records != $expected && $changes ne "lenient";
    }
    print join("\t", "!", "manifest", $job, $list, $records, $bytes), "\t";
  ' "$job" "$1" "$home" "$changes" <"$home/$1" >"$home/$1.count" &&
    sha256sum <"$home/$1" | cut -c1-64 >>"$home/$1.count" &&
    cat "$home/$1.count" >&5
}

# What shows no movement while it works is not taken for standing still.
waits() { # WORDS
  printf '!\twaits\t%s\t%s\n' "$job" "$1" >&5
}

goes_on() {
  printf '!\twaits\t%s\n' "$job" >&5
}

list_files() { # FORMAT
  find "${held[@]}" "./$name" "${skip[@]}" -type f -printf "$1"
}

cd -- "$directory" || exit
# Where that is the name of a descriptor, programs see the directory's own.
PWD=$(pwd -P)
waits 'listing the files'
if [[ $sync == sync ]]; then
  sync -f -- . || exit
  if [[ $hash != none ]]; then list_files '%p\0' | perl "$home/drop.pl" || exit; fi
fi

attributes='' times=''
[[ $owners == owners ]] && attributes=//'%m %U %G' times=' %Ts'
# In whole seconds: not every file system has finer ones.
find "${held[@]}" "./$name" "${skip[@]}" -type s -o -type f -printf "%p//f//%s$attributes$times\0" -o -type l -printf "%p//l//%l$attributes\0" \
  -o -printf "%p//%y//$attributes\0" |
  sort -z -S 64M -T "$home" >"$home/entries"
statuses=("${PIPESTATUS[@]}")
((statuses[0] == 0)) || [[ $changes == lenient ]] || exit "${statuses[0]}"
((statuses[1] == 0)) && report entries || exit
[[ $hash == none ]] && exit

goes_on
# Files may go under find's eyes; hash.pl says whether that matters.
list_files '%D:%i\0%p\0' | perl "$home/hash.pl" "$job" "$hash" "$changes" "$workers" "$batch" \
  "$held_path" >"$home/digests.part"
statuses=("${PIPESTATUS[@]}")
((statuses[1] == 0)) || exit "${statuses[1]}"
((statuses[0] == 0)) || [[ $changes == lenient ]] || exit "${statuses[0]}"
waits 'sorting the digests'
sort -z -S 64M -T "$home" <"$home/digests.part" >"$home/digests" && rm -f -- "$home/digests.part" && report digests
