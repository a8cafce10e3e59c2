# Two commands: `make demo` shows the whole path on a phantom, `make test` runs what CI runs.
# Without make: the README gives the lines that these targets run.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
BUNDLE = bundles/setr_kv_segmentation
# What make demo trains with: small enough for a laptop, 3 mm pixels on a canvas of 128 x 96.
SMALL = --network_def\#size tiny --network_def\#patch_size 8 --image_size "[128,96]" --spacing "[3.0,3.0]"

# MONAI Label, in an environment of its own. make label WEIGHTS=FILE STUDIES=DIR, or after make demo with what that made.
LABEL_VENV ?= .venv-label
LABEL_RUN = $(LABEL_VENV)/bin/python
WEIGHTS ?= demo/models/model.pt
STUDIES ?= demo/studies
LABEL_OPTIONS ?= $(if $(filter demo/%,$(WEIGHTS)),$(SMALL))
PORT ?= 8000

.PHONY: demo test check install render clean-demo label orthanc test-label test-wheel slow
.DELETE_ON_ERROR:

install: $(VENV)/installed

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements.txt
	$(RUN) -m pip install --quiet --no-deps -e .
	@touch $@

# Prints each plain line that it runs; a second run goes on where the first stopped.
demo: $(VENV)/installed
	$(VENV)/bin/kvseg demo

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
	$(LABEL_RUN) -m pytest -m label tests/label/test_label_server.py tests/label/test_label_http.py tests/label/test_label_dicomweb.py

test: install
	$(RUN) -m pytest

# The wheel alone, in an environment and a folder of its own.
# What takes minutes each: the comparison with dcm2niix (see KVSEG_DICOM_DIR), the wheel, packed bundles elsewhere, a
# training on 274 scans in 4 GB (10 GB of disk).
slow: install
	$(RUN) -m pytest -m slow

test-wheel: install
	$(RUN) -m pytest -m slow tests/cli/test_wheel.py

check: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) bundles/render.py --check

render: install
	$(RUN) bundles/render.py

clean-demo:
	rm -rf demo
