#!/usr/bin/env bash
# Validates the manifests in launch/kubernetes without a cluster: scripts/kubernetes_check.sh
#
# Against the API's schemas of Kubernetes 1.29 to the newest that PyPI's kubernetes-validate has, and for what schemas
# do not say: names that the manifests, the image and mpi-operator must agree on. The schemas (120 MB) are fetched once.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

VALIDATE_VERSION=1.37.0

folder=$CACHE/kubernetes-validate
if [ "$(cat "$folder/.complete" 2>/dev/null)" != "$VALIDATE_VERSION" ]; then
    rm -rf "$folder"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-cache-dir --no-warn-conflicts \
        --only-binary=:all: --target "$folder" "kubernetes-validate==$VALIDATE_VERSION" || {
        echo "kubernetes_check.sh: pip could not fetch kubernetes-validate $VALIDATE_VERSION: its message is above" >&2
        exit 2
    }
    echo "$VALIDATE_VERSION" >"$folder/.complete"
fi
for script in launch/local.sh launch/ranks.sh launch/kubernetes/*.sh; do bash -n "$script"; done
PYTHONPATH=$folder exec python3 scripts/kubernetes_check.py
