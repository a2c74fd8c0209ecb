# Sourced by the other scripts: where downloads and tools are kept, and the tools on the PATH.
#
# DDPM_CACHE   the place of both   (default: ~/.cache/ddpm-dist)
CACHE=$(realpath -m "${DDPM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ddpm-dist}")
export DDPM_CACHE=$CACHE
export PATH="$CACHE/bin:$PATH"
# The real NCCL, which a test loads; scripts/setup.sh --tests fetches it.
export DDPM_TEST_NCCL=$CACHE/nccl/nvidia/nccl/lib/libnccl.so.2
# In the environment it would replace the flags of .cargo/config.toml, and binaries would not find libtorch.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
