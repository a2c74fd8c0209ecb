#!/usr/bin/env bash
# The half hour on a machine with a GPU: is training correct there, how fast is it, and where does the time go?
# Prints a table, and writes each line of it as JSON. Runs from a checkout or from the archive of scripts/gpu/bundle.sh.
#
#   scripts/gpu/check.sh 1       correctness
#   scripts/gpu/check.sh 2       speed, in turn with the peer
#   scripts/gpu/check.sh 3       a profile
#
# OUT           where the results go: partN.jsonl, partN.log                       (default: gpu-check)
# BUDGET        seconds for a part; what does not fit is SKIPPED                   (default: 540)
# DEVICE        cuda | cpu; on cpu each comparison is between two runs there       (default: cuda)
# TINY=1        the smallest sizes, to try the script itself
# PEER          the peer's command                                                 (default: scripts/gpu/peer.py)
# WRONG_ON_PURPOSE   the name of a check whose run is altered: only that one may then be WRONG
# PYTHON, TORCH      see scripts/gpu/env.sh
#
# The exit code is 1 if a line is WRONG or FAILED.
set -uo pipefail
OUT=$(realpath -m "${OUT:-gpu-check}")
cd "$(dirname "$0")/../.."
. scripts/gpu/env.sh
. scripts/gpu/lines.sh

DEVICE=${DEVICE:-cuda}
part=${1:-}
case $part in
    [123]) ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    *) echo "check: give the part: 1, 2 or 3; --help explains them" >&2; exit 2 ;;
esac
mkdir -p "$OUT"
lines=$OUT/part$part.jsonl
log=$OUT/part$part.log
: >"$lines"
: >"$log"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '%-34s %10s %-9s %12s  %-8s %s\n' line found '' allowed verdict reason
. "scripts/gpu/part$part.sh"
py scripts/gpu/compare.py verdict "$lines"
