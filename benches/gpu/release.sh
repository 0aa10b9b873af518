#!/usr/bin/env bash
# Builds the program with CUDA, strips it and packs it with what benches/gpu/run.py needs, so that it travels:
#   benches/gpu/release.sh OUT.tar.xz
# No CUDA toolkit and no GPU is needed to build; some 40 minutes of one core. CARGO_TARGET_DIR and CARGO_BUILD_JOBS are obeyed.
# Build it on a system as old as the cluster's: the programs take the newest symbols of the C library that they are linked with, and
# do not start on an older one. Built on Debian 12 they need glibc 2.35 (hypot, hypotf); RHEL 9 has 2.34, RHEL 8 has 2.28. The last
# line says what they need.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "${1:?benches/gpu/release.sh OUT.tar.xz}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
place=$work/syncytia-cuda
mkdir -p "$place/benches" "$place/shards/data"
cargo build --release --features cuda --bin syncytia
strip -o "$place/syncytia" "${CARGO_TARGET_DIR:-target}/release/syncytia"
# what PyTorch reads of ours; it needs no CUDA and is small. Cargo builds the program beside it once more, without CUDA: so it comes last
batches=$(cargo build --release --bench step_batches --message-format=json |
  python3 -c 'import json, sys; print(*(m["executable"] for m in map(json.loads, sys.stdin) if m.get("target", {}).get("name") == "step_batches"))')
strip -o "$place/step_batches" "$batches"
cp -r configs README.md LICENSE-MIT LICENSE-APACHE "$place"
cp -r benches/gpu benches/torch "$place/benches"
rm -rf "$place"/benches/*/__pycache__
cp shards/data/vis5a_cut.h5ad "$place/shards/data"
tar -C "$work" -cf - syncytia-cuda | xz -6e -T0 >"$out"
size() { stat -c %s "$1"; }
glibc() { objdump -T "$@" | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -1; }
printf 'stripped %d MB, packed %d MB (%s), needs %s\n' $(($(size "$place/syncytia") / 1000000)) $(($(size "$out") / 1000000)) \
  "$(basename "$out")" "$(glibc "$place/syncytia" "$place/step_batches")"
test "$(size "$out")" -le 35000000 || { echo "more than 35 MB: it does not travel" >&2; exit 1; }
