# shellcheck shell=bash
# job.sh: what jobs about servers have in common. `job` is the job's name; `password` what is never told.

tell() { # KEY VALUE
  local REPLY
  line '!' fact "$job" "$@"
  printf '%s\n' "$REPLY" >&5
}

# without_password TEXT: sets REPLY to its last line, as it may be shown: without the password, and without the words of a statement.
without_password() {
  REPLY=${1##*$'\n'}
  REPLY=${REPLY%% near \'*}
  [[ -z ${password-} ]] || REPLY=${REPLY//"$password"/(password)}
}

give_up() {
  without_password "$1"
  tell error "$REPLY"
  exit 1
}
