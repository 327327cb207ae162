#!/usr/bin/env bash
# Runs the native kernels under sanitizers on random shapes and corrupt indices:
# bash scripts/sanitize_kernels.sh [cases]. Needs a C++17 compiler on x86-64; CXX is it.
set -euo pipefail

sources=$(cd "$(dirname "${BASH_SOURCE[0]}")/../kernels/sparsejax_kernels/cpu" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
compile=("${CXX:-g++}" -std=c++17 -O1 -g -Wall -Wno-psabi -Wno-maybe-uninitialized
  -DSPARSEJAX_KERNELS_X86 -DSPARSEJAX_KERNELS_WITHOUT_XLA -pthread)

run() { # run NAME FLAG...: builds with the flags and runs
  local name=$1
  shift
  local unit
  mkdir "$scratch/$name"
  for unit in fuzz:x86-64-v2 kernels_portable:x86-64-v2 kernels_avx2:x86-64-v3 \
    kernels_avx512:x86-64-v4; do
    "${compile[@]}" "$@" "-march=${unit#*:}" -c "$sources/${unit%:*}.cc" \
      -o "$scratch/$name/${unit%:*}.o"
  done
  "${compile[@]}" "$@" "$scratch/$name"/*.o -o "$scratch/$name/fuzz"
  printf '%s: ' "$name"
  "$scratch/$name/fuzz" "${cases[@]}"
}

cases=("${@:-100}")
run address_and_undefined -fsanitize=address,undefined -fno-sanitize-recover=all
run thread -fsanitize=thread
