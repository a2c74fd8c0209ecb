#!/usr/bin/env bash
# Runs every test. Arguments go to cargo-nextest: scripts/test.sh -p ddpm-nn, scripts/test.sh arena
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

scripts/setup.sh --tests
# nextest leaves out the examples in the documentation. They have no part in a run narrowed by arguments.
if [ $# -eq 0 ]; then cargo test --doc --workspace --release --locked --quiet; fi
cargo nextest run --workspace --release --locked "$@"
