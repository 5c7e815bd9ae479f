#!/usr/bin/env bash
# All checks and measurements that need an NVIDIA GPU, in one call of less than ten minutes:
#     benchmarks/cuda_run.sh [REPORT_FOLDER]
# It needs a Python with semel[cuda] and pytest (PYTHON, by default python3), and the demo model.
set -u -o pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
REPORTS=${1:-${TMPDIR:-/tmp}/semel-cuda}
mkdir -p "$REPORTS"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=true
failed=0

# step NAME SECONDS COMMAND…: one step must not take the time of the others.
step() {
    local name=$1 seconds=$2
    shift 2
    echo "=== $name"
    timeout "$seconds" "$@" 2>&1 | tee "$REPORTS/$name.log" || { echo "=== $name failed"; failed=1; }
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || exit 1
step tests 150 "$PYTHON" -m pytest -q -W default -p no:cacheprovider -k "cuda or gpu" \
    tests/contract/test_backends.py tests/integration/test_packed_encoder.py
step devices 90 "$PYTHON" -m semel devices --agree minilm
step speed 200 "$PYTHON" -m benchmarks.bench_cuda
step service 120 "$PYTHON" -m benchmarks.bench_service --device cuda --texts 100000 --warm 100000
exit "$failed"
