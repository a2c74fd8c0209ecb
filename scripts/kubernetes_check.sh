#!/usr/bin/env bash
# Validates the manifests in launch/kubernetes without a cluster: scripts/kubernetes_check.sh
#
# Against the API's schemas of Kubernetes 1.29 to the newest that PyPI's kubernetes-validate has, and for what schemas
# do not say: names that the manifests, the image and mpi-operator must agree on. The schemas (120 MB) are fetched once.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/fetch.sh

VALIDATE_VERSION=1.37.0

say() { printf 'kubernetes_check.sh: %s\n' "$*" >&2; }
die() { say "$@"; exit 2; }

once kubernetes-validate "$VALIDATE_VERSION" wheels kubernetes-validate "kubernetes-validate==$VALIDATE_VERSION"
for script in launch/local.sh launch/ranks.sh launch/kubernetes/*.sh; do bash -n "$script"; done
PYTHONPATH=$CACHE/kubernetes-validate exec python3 scripts/kubernetes_check.py
