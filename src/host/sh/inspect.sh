# shellcheck shell=bash
# inspect.sh JOB: what the backup in the working directory says of itself: events `fact JOB KEY VALUE`. A backup has these files
# under the names of xtrabackup, or of mariadb-backup since its version 11.
set -uo pipefail
job=$1

# part NAME: its text, or nothing. What arrived may be anything: a link is not followed, a pipe not waited for.
part() {
  # shellcheck disable=SC2016 # perl's variables
  perl -e '
    use Fcntl;
    for my $name (@ARGV) {
        sysopen(my $file, $name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW) or next;
        next if !-f $file || -s $file > 1 << 24;
        print while <$file>;
        last;
    }' "xtrabackup_$1" "mariadb_backup_$1"
}

# A line of ours has an end: who wants more finds it in the backup.
tell() { # KEY VALUE
  local value=$2
  ((${#value} <= 4000)) || value=${value:0:4000}…
  value=${value//\\/\\\\}
  value=${value//$'\n'/\\n}
  printf '!\tfact\t%s\t%s\t%s\n' "$job" "$1" "${value//$'\t'/\\t}" >&5
}

state=$(part checkpoints | sed -n 's/^backup_type = //p')
[[ $state ]] || { echo "what arrived has no checkpoints of a backup" >&2; exit 1; }
tell state "$state"
# FILE POSITION GTID, the last of which may have many lines.
IFS=$'\t' read -r -d '' file position gtid < <(part binlog_info)
[[ ${file-} ]] && tell binlog_file "$file"
[[ ${position-} ]] && tell binlog_position "${position%%$'\n'*}"
[[ ${gtid-} ]] && tell gtid "${gtid//$'\n'/}"
text=$(part slave_info)
[[ $text ]] && tell source_position "$text"
for key in tool_name tool_version server_version; do
  tell "$key" "$(part info | sed -n "s/^$key = //p")"
done
