# shellcheck shell=bash
# admin.sh: what `transfer status` and `transfer clean` run on a host, and what a run runs to learn whether a guard that
# it lost has undone everything. Lines: `run GUARD live|dead BOOT-IS-THIS ROLE CONTROLLER STARTED PATH`, `lease GUARD
# KIND ARGUMENT...`, `undone GUARD KIND ...`, `left GUARD KIND ...`, `kept GUARD PATH`, `forgotten GUARD COMMAND`, `live GUARD`, `held GUARD`,
# `end`.

undone() { say undone "$@"; }
left() { say left "$@"; }
kept() { say kept "$1" "$2"; }
alive() { say live "$1"; }
forgotten() { say forgotten "$@"; }

list_runs() {
  local directory condition record concluded
  local -a header records words
  for directory in "$state"/*/; do
    directory=${directory%/}
    [[ -e $directory/journal ]] || continue
    condition=live
    lock_journal "$directory" -n && { condition=dead; exec 9>&-; }
    read_journal "$directory/journal"
    say run "${directory##*/}" "$condition" "$([[ ${header[2]-} == "$boot" ]] && echo same || echo other)" "${header[@]:3:4}"
    for record in "${records[@]}"; do
      split "$record"
      unset 'words[-1]'
      say lease "${directory##*/}" "${words[@]:2}"
    done
  done
}

# settle GUARD SECONDS: waits until the sentinel of a lost guard has done its work, then does what it could not.
settle() {
  local deadline=$((SECONDS + $2))
  while [[ -e $state/$1/journal ]]; do
    if lock_journal "$state/$1" -n; then
      replay "$state/$1"
      exec 9>&-
      return
    fi
    ((SECONDS < deadline)) || { say held "$1"; return; }
    sleep 0.1
  done
  forget "$1"
}

# main status | clean [start-servers] [forget-hooks] | settle GUARD SECONDS
main() {
  local word
  find_directories
  this_boot
  find_syscalls
  case $1 in
    status) list_runs ;;
    clean)
      for word in "${@:2}"; do
        case $word in
          start-servers) may_start=all ;;
          forget-hooks) forgets_hooks=yes ;;
        esac
      done
      clean_dead
      ;;
    settle)
      may_start=own
      settle "$2" "$3"
      ;;
  esac
  say end
}
