#!/usr/bin/env bash
# A fake rank of ddpm-dist: trains until $DDPM_STOP_FILE is emptied, then takes a moment to save, and exits.
# "slow" takes 3 s to save, "stubborn" does not stop; a number is the code with which it exits immediately.
pause=0.3
case ${1:-} in
    slow) pause=3 ;;
    [0-9]*) exit "$1" ;;
    killed) kill -KILL $$ ;;
esac
echo "training"
for _ in {1..600}; do
    if [[ ! -s $DDPM_STOP_FILE ]]; then
        [[ ${asked:-} ]] || echo "asked"
        asked=yes
        [[ ${1:-} != stubborn ]] || { sleep 0.1 && continue; }
        sleep "$pause"
        echo "saved with $OMP_NUM_THREADS threads"
        exit 75
    fi
    sleep 0.1
done
