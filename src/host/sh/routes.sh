# shellcheck shell=bash
# routes.sh: from which of its addresses this host reaches others: lines `route ADDRESS SOURCE`. The routing table
# knows; a resolver does not.

# main ADDRESS...
main() {
  local address source
  for address; do
    source=$(ip -o route get "$address" 2>/dev/null | sed -n 's/.* src \([^ ]*\).*/\1/p')
    say route "$address" "$source"
  done
  echo end
}
