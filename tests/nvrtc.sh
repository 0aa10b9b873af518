#!/bin/bash
# Every kernel that the models ask for on an NVIDIA GPU, through NVIDIA's compiler, on a machine without one: nvrtc.sh [PROGRAM]
#
# PROGRAM is a build with the feature `cuda`; without one it is built (some 20 minutes of four cores). The compiler (NVRTC) and CUDA's
# headers are NVIDIA's packages on PyPI, fetched once per version; the driver is tests/nvrtc/fake_driver.c. Nothing is computed:
# what is asked is whether the kernels compile down to a GPU's machine code (NVRTC assembles, too), and whether a driver would take
# the sizes they are launched with. It says nothing of their numbers.
# CUDA="12.9 13.0" chooses versions, GPUS="H100" what is compiled for (A100, L40S, V100), CONFIGS="SpaCKLE generator" those of
# benches/gpu/run.py by the start of their names.
# Needs cc, python3 with venv, and PyPI at the first time. Exit: 0 all compile, 1 not.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
place=$target/nvrtc
mkdir -p "$place"

packages() { # VERSION: of one CUDA, NVRTC and all headers that kernels include; CCCL of CUDA 13 has numbers of its own
    case $1 in
    12.*) echo "nvidia-cuda-nvrtc-cu12==$1.*" "nvidia-cuda-runtime-cu12==$1.*" "nvidia-cuda-nvcc-cu12==$1.*" "nvidia-cuda-cccl-cu12==$1.*" ;;
    *) echo "nvidia-cuda-nvrtc==$1.*" "nvidia-cuda-runtime==$1.*" "nvidia-cuda-crt==$1.*" "nvidia-cuda-cccl==13.*" ;;
    esac
}

fetch() { # VERSION: its include and lib, as a toolkit has them
    local toolkit=$place/cuda-$1 fetched=$place/fetched-$1
    [ -e "$toolkit" ] && return
    [ -x "$place/venv/bin/pip" ] || python3 -m venv "$place/venv"
    rm -rf "$fetched"
    # shellcheck disable=SC2046 # several words
    "$place/venv/bin/pip" --disable-pip-version-check install -q --no-deps --target "$fetched" $(packages "$1")
    mkdir -p "$fetched/toolkit/lib"
    find "$fetched/nvidia" -type d -name include -exec cp -r {} "$fetched/toolkit" \;
    find "$fetched/nvidia" -name 'libnvrtc*.so*' ! -name '*.alt.*' -exec cp {} "$fetched/toolkit/lib" \;
    mv "$fetched/toolkit" "$toolkit"
    rm -rf "$fetched"
}

fake() { # the driver and what stands before the compiler, by names that a loader tries first
    mkdir -p "$place/fake"
    cc -Wall -Wextra -O1 -shared -fPIC tests/nvrtc/fake_driver.c -o "$place/fake/libcuda.so"
    cc -Wall -Wextra -O1 -shared -fPIC tests/nvrtc/watched_nvrtc.c -ldl -o "$place/fake/libnvrtc.so"
}

program=${1:-$target/release/syncytia}
[ $# -gt 0 ] || cargo build --release --features cuda --bin syncytia
fake
rm -rf "$place/work" # data of another program
failed=0
for version in ${CUDA:-12.9 13.0}; do
    fetch "$version"
    for gpu in ${GPUS:-H100}; do
        # shellcheck disable=SC2086 # several names
        python3 tests/nvrtc/run.py --gpu "$gpu" "$program" "$place/cuda-$version" "$place/fake" "$place/work" ${CONFIGS:-} || failed=1
    done
done
exit $failed
