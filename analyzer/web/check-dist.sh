#!/bin/sh
# Fails when the committed page is not what its sources build.
set -eu
cd "$(dirname "$0")"
npm run build
if [ -n "$(git status --porcelain -- dist)" ]; then
    git status --short -- dist
    echo "analyzer/web/dist is not what the sources build: commit what 'npm run build' made." >&2
    exit 1
fi
