# Becomes a server: scripts/services starts it so, in the server's folder of state, as the leader of a session of its own.
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
source "$root/scripts/servers/common.sh"
"${1}_run" "$(installed "$1")"
