#!/bin/sh
# Builds the fuzzers and shares so many seconds (default 60) among them, each on its kept corpus. What they find anew stays in build-fuzz/found, a crash ends with its input there.
set -eu
cd "$(dirname "$0")/.."
cmake --preset fuzz > /dev/null
cmake --build build-fuzz -j 2 > build-fuzz/build.log 2>&1 || { cat build-fuzz/build.log; exit 1; }
count=$(ls fuzz/fuzz_*.cc | wc -l)
seconds=$(( ${1:-60} / count + 1 ))
for source in fuzz/fuzz_*.cc; do
  name=$(basename "$source" .cc)
  found=build-fuzz/found/$name
  mkdir -p "$found" "fuzz/corpus/$name"
  echo "$name, $seconds s"
  build-fuzz/"$name" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -print_final_stats=0 -verbosity=0 -artifact_prefix="$found/" "$found" "fuzz/corpus/$name" ||
    { echo "$name failed; its input is in native/$found"; exit 1; }
done
