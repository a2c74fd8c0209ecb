# Sourced: the environment in which the unpacked archive of scripts/gpu/bundle.sh runs; a checkout works too.
# Sets ROOT, DDPM_DIST, GPU_EXAMPLE, PYTHON, and py, which runs Python with the system's own libraries.
#
# PYTHON   the interpreter that has torch   (default: /opt/torch/.venv/bin/python, else python3)
# TORCH    the folder of torch, if it should not be that interpreter's
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=/opt/torch/.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=python3
fi
if [ -z "${TORCH:-}" ] && [ -d "$ROOT/bin" ]; then
    TORCH=$("$PYTHON" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])') ||
        { echo "env: $PYTHON has no torch. Set PYTHON or TORCH" >&2; exit 2; }
fi
outer=${LD_LIBRARY_PATH:-}
py() { LD_LIBRARY_PATH=$outer "$PYTHON" "$@"; }
if [ -d "$ROOT/bin" ]; then
    mpi=$ROOT/mpi/usr
    : "${DDPM_DIST:=$ROOT/bin/ddpm-dist}" "${GPU_EXAMPLE:=$ROOT/bin/gpu}"
    export LD_LIBRARY_PATH="$mpi/lib/x86_64-linux-gnu:$TORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export PATH="$mpi/bin:$PATH"
    export OPAL_PREFIX=$mpi
    # PMIx looks for its compression where Debian puts it, does without, and would say so.
    export PMIX_MCA_pcompress_base_silence_warning=1
    export OMPI_MCA_orte_launch_agent=$mpi/bin/orted
    # Packages that the peer needs and torch's environment lacks.
    export PYTHONPATH="$ROOT/python${PYTHONPATH:+:$PYTHONPATH}"
else
    target=${CARGO_TARGET_DIR:-$ROOT/target}/release
    : "${DDPM_DIST:=$target/ddpm-dist}" "${GPU_EXAMPLE:=$target/examples/gpu}"
fi
export DDPM_DIST
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# For the example, which has no libtorch: next to torch, wherever it is known.
if [ -n "${TORCH:-}" ]; then
    nvidia=${TORCH%/*}/nvidia
    [ -e "${DDPM_NCCL_LIB:=$nvidia/nccl/lib/libnccl.so.2}" ] && export DDPM_NCCL_LIB || unset DDPM_NCCL_LIB
    [ -e "${DDPM_CUDART_LIB:=$nvidia/cu13/lib/libcudart.so.13}" ] && export DDPM_CUDART_LIB || unset DDPM_CUDART_LIB
fi
