#!/usr/bin/env bash
# Disturbs one supervised job on three hosts, in network namespaces of this machine, by random events: a host dies or
# comes back, its link fails for seconds, a rank is killed, the store refuses everything for seconds. The job must
# finish. Its losses must be those of an undisturbed run: bit for bit as long as the number of ranks is the same, and
# within 1e-5 afterwards. Losses and final weights must also be, bit for bit, those of a run without hosts, store and
# failures that changes its number of ranks at the same steps. Prints the events, the goodput and the verdicts; exit
# code 1 if a promise is broken.
#
#   scripts/elastic_soak.sh [SEED=1] [EVENTS=20] [TIMEOUT=12]
#
# About 40 s per event on two cores. TIMEOUT is comm.timeout_s: raise it if the machine is busy with other work. Needs
# root and what scripts/setup.sh --tests installs. $DDPM_DIST is the program, beside whose examples/ the store is; by
# default both are built. Events are also kept in runs/.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

fail() {
    echo "elastic_soak.sh: $1" >&2
    exit 2
}

seed=${1:-1} events=${2:-20} timeout=${3:-12}
for number in "$seed" "$events" "$timeout"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || fail "'$number' is not a whole number above 0. Give SEED EVENTS TIMEOUT"
done
if [[ -z ${DDPM_DIST:-} ]]; then
    scripts/setup.sh --tests
    cargo build --release --locked --quiet --workspace --bins --examples
    DDPM_DIST=${CARGO_TARGET_DIR:-target}/release/ddpm-dist
fi
DDPM_DIST=$(realpath "$DDPM_DIST")
export DDPM_DIST
for program in "$DDPM_DIST" "${DDPM_DIST%/*}/examples/fault_rig"; do
    [[ -x $program ]] || fail "$program cannot be run. Run cargo build --release --workspace --bins --examples"
done
mkdir -p runs
exec python3 -B scripts/elastic_soak.py "$seed" "$events" "$timeout"
