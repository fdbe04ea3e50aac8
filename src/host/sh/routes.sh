# shellcheck shell=bash
# routes.sh: from which of its addresses this host reaches others: lines `route ADDRESS SOURCE`, and `own ADDRESS` for
# one that is its own. The routing table knows; a resolver does not.

# main ADDRESS...
main() {
  local address route source
  for address; do
    route=$(ip -o route get "$address" 2>/dev/null)
    [[ $route == local\ * ]] && say own "$address"
    source=$(printf '%s\n' "$route" | sed -n 's/.* src \([^ ]*\).*/\1/p')
    say route "$address" "$source"
  done
  echo end
}
