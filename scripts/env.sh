# Sourced by the other scripts: where build output and tools live (outside the checkout), and what must be there.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ALLUVIUM_CACHE="${ALLUVIUM_CACHE:-$HOME/.cache/alluvium}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$ALLUVIUM_CACHE/target}"
export PATH="$HOME/.cargo/bin:$PATH"
mkdir -p "$ALLUVIUM_CACHE"

need() { # need COMMAND REMEDY
  command -v "$1" >/dev/null || { echo "$1 is missing: $2" >&2; exit 2; }
}
need cargo "install Rust 1.95 or later with rustup"
need cc "install a C toolchain (Debian: apt-get install build-essential)"
