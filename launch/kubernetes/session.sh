#!/usr/bin/env bash
# Runs what mpirun asks for by ssh in the environment of the pod's container. sshd would give it a bare one, without the
# store's credentials, the GPUs that the pod may use, and what else the manifest sets.
while IFS= read -r -d '' variable; do
    [[ $variable =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] && export "${variable?}"
done </proc/1/environ
exec /bin/bash -c "$SSH_ORIGINAL_COMMAND"
