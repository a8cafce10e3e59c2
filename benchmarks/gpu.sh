#!/bin/bash
# benchmarks/gpu.sh [--device cuda|cpu] [--quick] [--carried FOLDER] [--out FOLDER]: check and measure on a GPU, in 10 minutes.
#
# For a machine with Python, torch, NumPy and no network, and a FOLDER (.gpu) that benchmarks/gpu_wheels.sh has filled.
# It installs the wheels into a folder of its own, runs the tests of the GPU and the three workflows of a bundle, and
# writes tables of times. Each stage has its time; what it prints is in OUT/STAGE.log, and OUT/gpu.md grows as stages
# end, so that an early end leaves what was done.
set -uo pipefail
cd "$(dirname "$0")/.."
device=cuda quick= carried=.gpu out=${OUT:-gpu-results} failed=0
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --carried) carried=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --quick) quick=--quick; shift ;;
        *) echo "error: $1 is no option; there is --device, --quick, --carried and --out" >&2; exit 2 ;;
    esac
done
python=${PYTHON:-python3}
if [ -e "$out" ] && [ ! -f "$out/gpu.md" ] && [ -n "$(ls -A "$out")" ]; then
    echo "error: $out holds something, and no results of this script; name another folder by --out" >&2
    exit 2
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
report=$out/gpu.md
: > "$report"

say() { echo "$@" | tee -a "$report"; }

# stage NAME SECONDS COMMAND...: run it within its time, keep what it prints, and say how it ended.
stage() {
    local name=$1 seconds=$2 start=$SECONDS code=0 ended="ended well"
    shift 2
    timeout --kill-after=10 "$seconds" "$@" > "$out/$name.log" 2>&1 || code=$?
    [ $code -eq 0 ] || { ended="ended with $code"; failed=1; }
    [ $code -ne 124 ] || ended="was ended, its $seconds s were over,"
    say "- $name $ended after $((SECONDS - start)) s"
    [ $code -eq 0 ] || tail -n 15 "$out/$name.log"
    return $code
}

site=$work/site
stage install 90 "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" \
    "$carried"/wheels/*.whl
export PYTHONPATH=$PWD:$site${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# scikit-image needs more than fits: for the one function of it that is used there is a stand-in.
"$python" -c "import skimage.filters" 2> /dev/null || export PYTHONPATH=$PYTHONPATH:$PWD/benchmarks/stand_in
stage machine 60 "$python" -c "
import torch, monai
from kvseg_monai.utils import use_device
from kvseg_monai.utils.provenance import machine, versions
use_device('$device')
print(machine('$device'), versions())" || exit 1
say
say "$(cat "$out/machine.log")"
say

tests=(tests/gpu/test_on_a_gpu.py tests/handlers/test_stop_on_nan.py)
stage tests 170 "$python" -m pytest -v -p no:cacheprovider "${tests[@]}"
say "$(grep -c PASSED "$out/tests.log") passed, $(grep -c "SKIPPED.*%]" "$out/tests.log") skipped," \
    "$(grep -cE "^(FAILED|ERROR)" "$out/tests.log") failed"

data=$carried/data
if [ ! -f "$data/datalist.json" ]; then
    stage phantom 60 "$python" -m data_prep.phantom --target "$work/raw" --scans 6 --slices 24
    stage prepare 60 "$python" -m data_prep.uw_madison --source "$work/raw" --target "$work/data"
    data=$work/data
fi
data=$(cd "$data" && pwd)
classes=$("$python" -c "import json; print(len(json.load(open('$data/datalist.json'))['labels']))")
steps=200 epoch=50 size=base canvas=[192,192]
[ -z "$quick" ] || steps=3 epoch=3 size=tiny canvas=[64,64]
options=(--bundle_root "$work/run" --dataset_dir "$data" --device "$device" --network_def#size $size
    --network_def#out_channels "$classes" --image_size "$canvas" --spacing "[1.0,1.0]")

workflow() { # NAME SECONDS OPTIONS...
    stage "$1" "$2" "$python" -m monai.bundle run \
        --config_file "bundles/transunet_kv_segmentation/configs/$1.json" "${options[@]}" "${@:3}"
}
workflow train 60 --max_steps $steps --steps_per_epoch $epoch --precision auto
workflow evaluate 40
say "$(grep -E "^(class|mean)" "$out/evaluate.log")"
workflow inference 40 --output_dir "$work/label_maps"

table() { # NAME SECONDS: one of benchmarks/gpu.py, as far as it comes
    stage "$1" "$2" "$python" benchmarks/gpu.py --device "$device" --out "$out" --tables "$1" $quick
    say
    say "$(cat "$out/$1.md")"
    say
}
table steps 100
table volumes 60
table processes 90
say "all of it took $SECONDS s"
exit $failed
