#!/usr/bin/env bash
# Fails where a document names a path of this repository that does not exist.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck disable=SC2016 # the backquotes are Markdown's
named='`(crates|docs|scripts|bench|examples|fuzz|\.ci)/[A-Za-z0-9_./-]*`'

status=0
for document in README.md ARCHITECTURE.md CONTRIBUTING.md docs/*.md; do
    while read -r path; do
        if [ ! -e "$path" ]; then
            echo "$document names $path, which does not exist" >&2
            status=1
        fi
    done < <({ grep -oE "$named" "$document" || true; } | tr -d '`' | sort -u)
done
exit "$status"
