#!/usr/bin/env bash
# Runs every test. Arguments go to cargo-nextest: scripts/test.sh -p ddpm-nn, scripts/test.sh arena
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

scripts/setup.sh --tests
# nextest does not run documentation examples. They are skipped when arguments select tests.
if [ $# -eq 0 ]; then cargo test --doc --workspace --release --locked --quiet; fi
cargo nextest run --workspace --release --locked "$@"
