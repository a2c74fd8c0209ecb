#!/usr/bin/env bash
# Stands in for a rank of ddpm-dist: trains until SIGUSR1, then takes a moment to save, and stops.
# "stubborn" ignores the request; "CODE" ends by itself with that code.
trap 'sleep 0.3; echo "saved with $OMP_NUM_THREADS threads"; exit 75' USR1
case ${1:-} in
    stubborn) trap 'echo "busy"' USR1 ;;
    [0-9]*) exit "$1" ;;
    killed) kill -KILL $$ ;;
esac
echo "training"
for _ in {1..600}; do sleep 0.1; done
