#!/usr/bin/env bash
# Builds the fuzz targets and runs them one after the other: [SEED=NUMBER] fuzz/run.sh [SECONDS [TARGET…]]
# Starts from the kept corpus and from what earlier runs found; writes to target/fuzz and fuzz/artifacts only.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
targets=("${@:2}")
if [ ${#targets[@]} = 0 ]; then
    for file in fuzz/targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# Coverage and comparisons for libFuzzer, by the LLVM that stable Rust brings. Flags of their own need a folder of their
# own; with --target they are kept from build scripts and macros, which nobody feeds.
out=${CARGO_TARGET_DIR:-target}/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --quiet --locked --manifest-path fuzz/Cargo.toml --bins --target "$triple" --target-dir "$out"

failed=0
for target in "${targets[@]}"; do
    found=$out/found/$target log=$out/$target.log crashes=fuzz/artifacts/$target
    mkdir -p "$found" "$crashes"
    status=0
    "$out/$triple/debug/$target" "$found" "fuzz/corpus/$target" \
        -dict="fuzz/dictionaries/$target.dict" -artifact_prefix="$crashes/" \
        -seed="${SEED:-0}" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        >"$log" 2>&1 || status=$?
    if [ $status = 0 ]; then
        awk -v target="$target" '
            $2 == "DONE" || $2 == "INITED" { edges = $4; inputs = $8 }
            /^stat::number_of_executed_units/ { runs = $2 }
            /^stat::peak_rss_mb/ { memory = $2 }
            END {
                sub("/.*", "", inputs)
                printf "%-8s %9d executions  %6d edges  %5d inputs  %4d MiB\n", target, runs, edges, inputs, memory
            }' "$log"
    else
        failed=1
        crash=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
        printf '%-8s FAILED, all of it in %s\n' "$target" "$log"
        grep -m1 -A3 -E 'panicked at|ERROR: libFuzzer' "$log" | sed 's/^/    /' || tail -5 "$log"
        echo "    replay: $out/$triple/debug/$target ${crash:-}"
    fi
done
exit $failed
