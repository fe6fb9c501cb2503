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

# Block N of those inside ``` fences of the README; fails if there is none.
fenced() {
  awk -v n="$1" '/^```/ { inside = !inside; next } inside && ++i == n { print; found = 1 }
    END { exit !found }' README.md
}
