# Sourced by what builds against libtorch, after scripts/env.sh; say and die are the caller's.
#
# libtorch VERSION KIND: sets `home` to the folder of PyPI's torch of that version, and fetches it if it is not there.
# KIND is cpu or cuda.
libtorch() {
    local wheels
    case $2 in
        # The wheel links against two small CUDA libraries even without a GPU; the other 2 GB are not needed.
        cpu) wheels=(--no-deps "torch==$1" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85) ;;
        cuda) wheels=("torch==$1") ;;
        *) die "DDPM_TORCH is '$2'; it can be cpu or cuda" ;;
    esac
    home=$CACHE/libtorch-$1-$2
    if [ -e "$home/.complete" ]; then
        say "libtorch $1 ($2): already in $home"
        return
    fi
    say "fetching libtorch $1 ($2) into $home"
    rm -rf "$home"
    # Only the wheel's C++ libraries are used, so any Python works: --python-version selects one that has a wheel.
    # --target installs nothing into that Python, so "externally managed" ones allow it.
    PIP_ROOT_USER_ACTION=ignore pip3 install --quiet --no-cache-dir --no-compile --only-binary=:all: \
        --python-version 3.12 --target "$home" "${wheels[@]}" >&2 ||
        die "pip could not fetch libtorch $1: its message is above. It needs the network, 3 GB of disk (cuda: 10 GB), glibc 2.28 and pip 20.3 or newer ($(pip3 --version | cut -d' ' -f1,2) here)"
    touch "$home/.complete"
}
