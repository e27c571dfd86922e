#!/usr/bin/env bash
# Builds the three nodes and puts their stripped binaries into bin/, where dataflow.yml looks for them.
# `--built` takes what an earlier build of everything has left in target/debug.
# The bundle of `dora-remote start` takes along every file that a node names, also when git ignores it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

profile=${1:-debug}
case $profile in
debug) cargo build --quiet --workspace --bins ;;
release) cargo build --quiet --workspace --bins --release ;;
--built) profile=debug ;;
*)
    echo "usage: build.sh [debug|release|--built]" >&2
    exit 2
    ;;
esac

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$here/bin"
for node in source transform sink; do
    # A new file, renamed into place: a node that runs from the old one is not disturbed.
    strip -o "$here/bin/.pipeline-$node" "$target/$profile/pipeline-$node"
    mv "$here/bin/.pipeline-$node" "$here/bin/pipeline-$node"
done
