# Sourced by the other scripts: sets the folder of downloads and tools, and puts the tools on the PATH.
#
# DDPM_CACHE   that folder   (default: ~/.cache/ddpm-dist)
CACHE=$(realpath -m "${DDPM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ddpm-dist}")
export DDPM_CACHE=$CACHE
export PATH="$CACHE/bin:$PATH"
# The real NCCL, loaded by one test; scripts/setup.sh --tests fetches it.
export DDPM_TEST_NCCL=$CACHE/nccl/nvidia/nccl/lib/libnccl.so.2
# The real NVRTC, which compiles for a GPU without one; likewise.
export DDPM_TEST_NVRTC=$CACHE/nvrtc/nvidia/cu13/lib/libnvrtc.so.13
# Set in the environment, these would replace the flags of .cargo/config.toml, and binaries would not find libtorch.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
