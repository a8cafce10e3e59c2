# Two commands: `make demo` shows the whole path on a phantom, `make test` runs what CI runs.
# Without make: the README gives the lines that these targets run.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
BUNDLE = bundles/setr_kv_segmentation
# Small enough for a laptop: 3 mm pixels on a canvas of 128 x 96.
SMALL = --network_def\#size tiny --network_def\#patch_size 8 --image_size "[128,96]" --spacing "[3.0,3.0]"
COMMON = --bundle_root $(BUNDLE) --ckpt_dir demo/models $(SMALL)

# MONAI Label, in an environment of its own. make label WEIGHTS=FILE STUDIES=DIR, or after make demo with what that made.
LABEL_VENV ?= .venv-label
LABEL_RUN = $(LABEL_VENV)/bin/python
WEIGHTS ?= demo/models/model.pt
STUDIES ?= demo/studies
LABEL_OPTIONS ?= $(if $(filter demo/%,$(WEIGHTS)),$(SMALL))
PORT ?= 8000

.PHONY: demo test check install render clean-demo label orthanc test-label
.DELETE_ON_ERROR:

install: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements.txt
	$(RUN) -m pip install --quiet --no-deps -e .
	@touch $@

demo: demo/report.html
	@echo
	@echo "Open demo/report.html: scores, learning curve, pictures, and attention maps."
	@echo "Label maps of the held-out scan: demo/label_maps. Weights: demo/models/model.pt."
	@echo "Next, with your own data (see README.md, 'Your own data'):"
	@echo "  $(RUN) -m data_prep.uw_madison --source RAW --target DATA"
	@echo "  $(RUN) -m monai.bundle run --config_file $(BUNDLE)/configs/train.json --bundle_root $(BUNDLE) --dataset_dir DATA"

demo/raw: | $(VENV)/installed
	@mkdir -p demo
	$(RUN) -m data_prep.phantom --target demo/raw --scans 24 --slices 16

demo/data/datalist.json: | demo/raw
	$(RUN) -m data_prep.uw_madison --source demo/raw --target demo/data

# Stamps, since an interrupted training leaves weights too; it goes on where it stopped.
demo/.trained: | demo/data/datalist.json
	$(RUN) -m monai.bundle run --config_file $(BUNDLE)/configs/train.json --dataset_dir demo/data $(COMMON) \
	  --output_dir demo/training --max_epochs 140 --val_interval 14 --slices_per_volume 2 --resume true
	@touch $@

demo/evaluation/metrics.json: | demo/.trained
	$(RUN) -m monai.bundle run --config_file $(BUNDLE)/configs/evaluate.json --dataset_dir demo/data $(COMMON) \
	  --output_dir demo/evaluation

demo/.segmented: | demo/.trained
	$(RUN) -m monai.bundle run --config_file $(BUNDLE)/configs/inference.json --dataset_dir demo/data $(COMMON) \
	  --output_dir demo/label_maps
	@touch $@

demo/report.html: | demo/evaluation/metrics.json demo/.segmented
	$(RUN) -m kvseg_monai.report --evaluation demo/evaluation --training demo/training --target demo/report.html \
	  --bundle $(BUNDLE) --weights demo/models/model.pt $(SMALL)

$(LABEL_VENV)/installed: requirements-label.txt pyproject.toml
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_RUN) -m pip install --quiet -c requirements-label.txt torch setuptools wheel ninja
	$(LABEL_RUN) -m pip install --quiet --no-deps -c requirements-label.txt torchvision
	SAM2_BUILD_CUDA=0 $(LABEL_RUN) -m pip install --quiet --no-build-isolation -r requirements-label.txt
	$(LABEL_RUN) -m pip install --quiet --no-deps -e .
	@touch $@

# A copy, since the server writes labels beside the volumes.
demo/studies:
	@test ! -d demo/data/images || cp -r demo/data/images $@

label: $(LABEL_VENV)/installed | demo/studies
	$(LABEL_RUN) -m kvseg_monai.label --bundle $(BUNDLE) --weights $(WEIGHTS) --studies $(STUDIES) --port $(PORT) $(LABEL_OPTIONS)

orthanc: $(LABEL_VENV)/installed
	$(LABEL_RUN) -m kvseg_monai.label.orthanc --port 8042

test-label: $(LABEL_VENV)/installed
	$(LABEL_RUN) -m pytest -m label tests/label/test_label_server.py tests/label/test_label_dicomweb.py

test: install
	$(RUN) -m pytest

check: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) bundles/render.py --check

render: install
	$(RUN) bundles/render.py

clean-demo:
	rm -rf demo
