# Shared by the scripts beside it, which source it in the root of a clone.

step() { printf '\n==> %s\n' "$*"; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Let python3 mean another command, $1, as long as the directory $2 lives.
python3_is() {
  mkdir -p "$2"
  printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v "$1")" >"$2/python3"
  chmod +x "$2/python3"
  export PATH="$2:$PATH"
}

# If python3 is older than 3.11, let it mean a newer one, as long as the directory $1 lives.
newer_python3() {
  local python
  for python in python3 python3.14 python3.13 python3.12 python3.11; do
    if is_recent python3; then return; fi
    if is_recent "$python"; then python3_is "$python" "$1"; fi
  done
  is_recent python3 || { echo "needs Python 3.11 or newer" >&2; exit 1; }
}

# Code block number $1 of the README, of those in the language $2 if that is given; fails if there
# is none.
fenced() {
  awk -v n="$1" -v language="${2:-}" '
    /^```/ {
      inside = !inside
      wanted = inside && (language == "" || $0 == "```" language) && ++i == n
      next
    }
    wanted { print; found = 1 }
    END { exit !found }' README.md
}
