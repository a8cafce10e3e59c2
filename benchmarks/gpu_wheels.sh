#!/bin/bash
# benchmarks/gpu_wheels.sh [FOLDER [PYTHON [NAME...]]]: download what benchmarks/gpu.sh needs on a machine without network.
#
# Wheels for the bundles' training, evaluation and inference and for the tests of the GPU, but torch and NumPy, which
# that machine has; and a dozen small volumes. Defaults: .gpu, which git ignores, and Python 3.12. Each NAME is a package
# that the machine has as well, and is left out. At most 60 MB in all.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.gpu} python=${2:-3.12}
there=" ${*:3} "
ours=$folder/wheels/.kvseg_monai
if [ -e "$folder/wheels" ] && [ ! -f "$ours" ]; then
    echo "error: $folder/wheels is there and was not made by this script; name another FOLDER" >&2
    exit 2
fi
mkdir -p "$folder/wheels"
touch "$ours"
rm -f "$folder"/wheels/*.whl
names="monai nibabel scipy pytorch-ignite fire pyyaml tensorboard pillow tqdm filelock pydicom lazy_loader click"
names="$names safetensors einops pytest"
# What these import comes in its newest version.
names="$names termcolor protobuf absl-py packaging iniconfig pluggy pygments typing-extensions"
# A study needs pandas, for which there is no room.
case $there in *" pandas "*) names="$names pydantic annotated-types typing-inspection" ;; esac
wanted=()
for name in $names; do
    case $there in *" $name "*) continue ;; esac
    pin=$(sed -n "/python_version </d; s/^\($name==[^ ;]*\).*/\1/p" requirements.txt)
    wanted+=("${pin:-$name}")
done
platforms=$(printf -- '--platform manylinux%s_x86_64 ' _2_28 _2_27 _2_24 _2_17 2014 _2_12 2010 _2_5 1)
get() {
    python3 -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "$python" \
        $platforms -d "$folder/wheels" "$@"
}
get "${wanted[@]}"
for wheel in "$folder"/wheels/pydantic-[0-9]*.whl; do  # takes one version of its core alone
    [ ! -f "$wheel" ] || get "$(unzip -p "$wheel" '*/METADATA' | sed -n 's/^Requires-Dist: *\(pydantic-core==[0-9.]*\).*/\1/p')"
done

data=${KVSEG_DATA:-../shared/data}/hippocampus
if [ -f "$data/datalist.json" ] && [ ! -d "$folder/data" ]; then
    python3 - "$data" "$folder/data" <<'PYTHON'
import json, shutil, sys
from pathlib import Path

source, target = map(Path, sys.argv[1:])
listed = json.loads((source / "datalist.json").read_text())
kept = {"training": 8, "validation": 2, "test": 2}
pool = {name: iter(listed.get(name) or listed["training"]) for name in kept}
seen, chosen = set(), {"labels": listed["labels"]}
for name, count in kept.items():
    chosen[name] = []
    for entry in pool[name]:
        if len(chosen[name]) < count and entry["patient"] not in seen:
            seen.add(entry["patient"])
            chosen[name].append(entry)
            for key in ("image", "label"):
                (target / entry[key]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / entry[key], target / entry[key])
(target / "datalist.json").write_text(json.dumps(chosen, indent=1))
PYTHON
fi
size=$(du -sm "$folder" | cut -f1)
echo "$folder: $(ls "$folder/wheels" | wc -l) wheels for Python $python, $size MB with the data"
[ "$size" -le 60 ] || { echo "error: $folder has $size MB and 60 is the limit; take wheels out" >&2; exit 1; }
