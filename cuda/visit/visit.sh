#!/usr/bin/env bash
# Shows in one short run what a machine with a CUDA device can show. README.md in this folder says how to prepare it.
#     bash cuda/visit/visit.sh        in the root of the repository
# Everything goes to the folder $OUT as soon as it is known, the most important first. The exit status is 1 if anything
# fails, and the last lines say what.
set -u -o pipefail

all_stages="same_bits timings counters tests sanitizer package_bench"
: "${OUT:=/tmp/flatstep-gpu}"          # the folder for results
: "${WORK:=/tmp/flatstep-visit}"       # the folder for what is installed
: "${PYTHON:=python3}"                 # one that has torch, but not flatstep
: "${VISIT_SECONDS:=540}"              # for all of it
: "${VISIT_ONLY:=$all_stages}"         # the stages to run
: "${DRY:=}"                           # 1: try the script out where there is no device

# Each with the number of processes in which it runs. All files run at once.
test_files=(
  "tests/cuda/test_cuda_torch.py 1"
  "tests/cuda/test_cuda_arrays.py 2"
  "tests/cuda/test_cuda_jax.py 6"
  "tests/cuda/test_cuda_processes.py 1"
)

for stage in $VISIT_ONLY; do
  [[ " $all_stages " == *" $stage "* ]] || { echo "NO STAGE: $stage; there are: $all_stages" >&2; exit 2; }
done
[ -d tests/cuda ] || { echo "NO REPOSITORY: run this in its root" >&2; exit 2; }
mkdir -p "$OUT" "$WORK"
OUT=$(cd "$OUT" && pwd)
WORK=$(cd "$WORK" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
log=$OUT/log.txt
failures=$WORK/failures
site=$WORK/site
: > "$failures"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 \
       XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=1 CUDA_MODULE_LOADING=LAZY
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
export PATH=/usr/local/cuda/bin:$PATH
exec 3>&1  # where say writes to, also while the output of a stage goes into a file

left() { echo $((VISIT_SECONDS - SECONDS)); }
say() { echo "[$SECONDS s] $*" | tee -a "$log" >&3; }
fail() { say "FAILED: $*"; echo "$*" >> "$failures"; }
is_there() { command -v "$1" > /dev/null || { say "$2 is left out: there is no $1"; return 1; }; }
has_module() { "$PYTHON" -c "import $1" 2> /dev/null; }

# within SECONDS NAME COMMAND...: runs a command for at most that long, and not beyond the end of the visit.
within() {
  local most=$1 name=$2 rest status
  shift 2
  rest=$(($(left) - 5))
  ((most > rest)) && most=$rest
  ((most < 5)) && { say "$name is left out: there is no time"; return; }
  say "$name begins, for at most $most s"
  timeout --kill-after=5 "$most" "$@"
  status=$?
  say "$name ended with $status"
  ((status == 0)) || fail "$name"
}

show_environment() {
  uname -r
  nproc
  grep -E 'MemTotal|MemAvailable' /proc/meminfo
  ldd --version | head -1
  command -v nvcc gcc g++ cmake ninja compute-sanitizer ncu "$PYTHON"
  nvcc --version | tail -2
  local asked=name,compute_cap,driver_version,memory.total,clocks.sm,clocks.max.sm,compute_mode,mig.mode.current
  nvidia-smi --query-gpu="$asked" --format=csv
  local packages='torch|jax|cupy|optax|flax|numpy|nanobind|scikit.build|cmake|ninja|pytest|safetensors|ml.dtypes'
  "$PYTHON" -m pip list | grep -iE "^($packages|hypothesis|rich|matplotlib|apex)"
}

# --- installing: a wheel that was built elsewhere saves minutes, if it loads here -------------------------------------

loads() {
  "$PYTHON" -c 'import flatstep._core, flatstep._xla, flatstep._cuda as cuda; print(cuda.__file__, cuda.architectures)'
}

install_into() {
  local folder=$1
  shift
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$folder" "$@"
}

install_wheel() {
  say "trying $1"
  rm -rf "$site"
  { install_into "$site" "$1" && loads; } >> "$log" 2>&1
}

install_any() {
  local wheel
  for wheel in "$@"; do
    [ -e "$wheel" ] && install_wheel "$wheel" && { say "installed $wheel"; return 0; }
  done
  return 1
}

# What a build needs and this machine lacks may lie as wheels in build-tools, beside this script.
build_wheel() {
  local tools=("$here"/build-tools/*.whl)
  if [ -e "${tools[0]}" ]; then
    install_into "$WORK/tools" "${tools[@]}" >> "$log" 2>&1
    export PYTHONPATH=$WORK/tools:$PYTHONPATH PATH=$WORK/tools/bin:$PATH
  fi
  rm -rf "$WORK/wheel"
  local capability  # 90, for example
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -1 | tr -d .)
  CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) within 200 build \
    "$PYTHON" -m pip wheel -q --no-index --no-build-isolation --no-deps -w "$WORK/wheel" \
    -C cmake.define.FLATSTEP_CUDA=ON -C cmake.define.FLATSTEP_CUDA_ARCHITECTURES="${capability:-90}-real" \
    -C build-dir="$WORK/build" . >> "$log" 2>&1
}

install_flatstep() {
  if ! install_any "$here"/flatstep-*.whl dist/flatstep-*.whl; then
    say "no wheel loads here"
    build_wheel
    install_any "$WORK"/wheel/flatstep-*.whl || { tail -40 "$log"; say "NO BUILD: see above"; exit 1; }
  fi
  # An editable install comes before everything else.
  local used differing
  used=$("$PYTHON" -c 'import flatstep; print(flatstep.__file__)')
  [[ "$used" == "$site"/* ]] || { say "NOT THE WHEEL: $PYTHON has a flatstep of its own, $used"; exit 1; }
  differing=$(LC_ALL=C diff -rq python/flatstep "$site/flatstep" | grep -c ' differ$')
  ((differing == 0)) || say "AN OLDER WHEEL? $differing of its Python files differ from those here"
}

# --- stages -----------------------------------------------------------------------------------------------------------

same_bits() {
  within 60 same_bits "$PYTHON" "$here/same_bits.py" ${DRY:+--dry} 2>&1 | tee -a "$log"
}

timings() {
  local most=$(($(left) - 15))
  ((most > 120)) && most=120
  within $((most + 10)) timings \
    "$PYTHON" "$here/timings.py" "$OUT/timings.jsonl" "$most" ${DRY:+--dry} 2>&1 | tee -a "$log"
}

# The hardware's counters of one sweep each.
counters() {
  is_there ncu counters || return
  local metrics optimizer
  metrics=dram__throughput.avg.pct_of_peak_sustained_elapsed,dram__bytes_read.sum,dram__bytes_write.sum
  metrics+=,gpu__time_duration.sum,sm__cycles_elapsed.avg.per_second,l1tex__t_sector_hit_rate.pct
  metrics+=,sm__inst_issued.avg.pct_of_peak_sustained_active,sm__warps_active.avg.pct_of_peak_sustained_active
  metrics+=,sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_active
  metrics+=,sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active
  for optimizer in "AMSGrad float32" "AMSGrad bfloat16" "AMSGrad float16" "OptimisticAdam bfloat16"; do
    (($(left) < 330)) && { say "counters of $optimizer are left out: tests need the time"; break; }
    # shellcheck disable=SC2086  # two words
    within 25 "counters of $optimizer" \
      ncu --clock-control none --kernel-name regex:sweep --launch-skip 2 --launch-count 1 --metrics "$metrics" \
      "$PYTHON" "$here/few_steps.py" $optimizer $((2 ** 26)) >> "$OUT/counters.txt" 2>&1
  done
  [ -e "$OUT/counters.txt" ] && tail -60 "$OUT/counters.txt"
}

# Warnings are no errors here: they depend on the versions of libraries.
run_tests() {
  local file=$1 workers=$2 most=$3
  local options=(-q -m cuda -o addopts= -o filterwarnings=default --import-mode=importlib --strict-markers -rfE
                 --tb=short -p no:cacheprovider --durations=5)
  ((workers > 1)) && has_module xdist && options+=(-p xdist.plugin -n "$workers")
  has_module pytest_timeout && options+=(-p pytest_timeout --timeout 150)
  timeout --kill-after=5 "$most" "$PYTHON" -m pytest "${options[@]}" "$file"
}

tests() {
  local row file workers most
  local -A running=()
  most=$(($(left) - 45))
  ((most > 300)) && most=300
  ((most < 5)) && { say "tests are left out: there is no time"; return; }
  say "tests begin, for at most $most s"
  for row in "${test_files[@]}"; do
    read -r file workers <<< "$row"
    [ -e "$file" ] || { fail "NO TEST FILE: $file"; continue; }
    run_tests "$file" "$workers" "$most" > "$OUT/$(basename "$file" .py).txt" 2>&1 &
    running[$file]=$!
  done
  for row in "${test_files[@]}"; do
    file=${row% *}
    [ -n "${running[$file]:-}" ] || continue
    wait "${running[$file]}"
    report_tests "$file" $?
  done
}

report_tests() {
  local file=$1 status=$2 output
  output=$OUT/$(basename "$file" .py).txt
  say "$file ended with $status: $(tail -1 "$output")"
  grep -E '^(FAILED|ERROR)' "$output" | cut -c1-300 | head -40 | tee -a "$log"
  if ((status != 0)); then
    fail "$file"
  elif [ -z "$DRY" ] && ! tail -1 "$output" | grep -q passed; then
    fail "$file: all tests were skipped"
  fi
}

# A tool of compute-sanitizer that takes too long for tests; memcheck and racecheck are among them.
sanitizer() {
  is_there compute-sanitizer sanitizer || return
  (($(left) > 60)) || { say "sanitizer is left out: there is no time"; return; }
  within 50 sanitizer env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool initcheck --kernel-regex kns=sweep \
    --error-exitcode 9 "$PYTHON" "$here/few_steps.py" AMSGrad float32 1 1025 70001 > "$OUT/sanitizer.txt" 2>&1
  tail -5 "$OUT/sanitizer.txt" | tee -a "$log"
}

# The package's own bench, with the time that is left.
package_bench() {
  [ -z "$DRY" ] || { say "package_bench is left out: there is no device"; return; }
  (($(left) > 45)) || { say "package_bench is left out: there is no time"; return; }
  local minutes
  minutes=$(awk "BEGIN { print ($(left) - 25) / 60 }")
  within $(($(left) - 10)) package_bench \
    "$PYTHON" -m flatstep bench --only cuda amsgrad --rounds 5 --minutes "$minutes" --output "$OUT/bench" \
    > "$WORK/bench.txt" 2>&1
  grep -v '^$' "$WORK/bench.txt" | tail -60 | tee -a "$log"
}

show_environment >> "$log" 2>&1
install_flatstep
if [ -z "$DRY" ] && ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  say "NO DEVICE: torch finds none. DRY=1 tries this script out without one"
  exit 1
fi
[ -z "$DRY" ] || export OMP_NUM_THREADS=1  # a dry run is not about speed
for stage in $all_stages; do
  [[ " $VISIT_ONLY " == *" $stage "* ]] && $stage
done
if [ -s "$failures" ]; then
  say "done; what failed: $(paste -sd ';' "$failures")"
  exit 1
fi
say "done; nothing failed"
