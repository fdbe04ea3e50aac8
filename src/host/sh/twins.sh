# shellcheck shell=bash
# twins.sh: a name that differs from another one only in case (of ASCII letters), if there is any: a line `twin PATH`.

# main DIRECTORY NAME PATTERN...
main() {
  local directory=$1 name=$2 pattern twin
  local -a skip=()
  shift 2
  for pattern; do skip+=(-path "$pattern" -prune -o); done
  cd -- "$directory/" || return
  IFS= read -r -d '' twin < <(find "./$name" "${skip[@]}" -print0 | tr '[:upper:]' '[:lower:]' | sort -z | uniq -zd) &&
    say twin "${twin#./}"
  say end
}
