# shellcheck shell=bash
# login.sh '' SOCKET DEFAULTS PROGRAM ARGUMENT...: becomes a program that logs in to a server by itself: a backup. Right before, its
# socket and its file of options are looked at, as other logins' are.
main() {
  if ! { vouch "$1" && may_decide "$2"; }; then
    printf '%s\n' "$REPLY" >&2
    exit 1
  fi
  shift 2
  # MariaDB's takes the clients' plugins from there, and during a backup no others; MySQL's has clear text turned off.
  case ${1##*/} in
    mariadb-backup | mariabackup)
      plugin_directory any
      set -- "$@" "--plugin-dir=$REPLY"
      ;;
  esac
  exec "$@"
}
main "${@:2}"
