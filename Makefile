# Everything runs in .venv, which the first command builds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OVERLAY := .overlay
HOSTS := .hosts
# Tests of what the host libraries touch; the op itself knows none of them.
HOST_TESTS := tests/compat tests/layers tests/fusion tests/conversion tests/models tests/configs \
	tests/workbench tests/cli tests/tools tests/studies
# Each worker is one process with one thread; files are not torn apart, because their
# tests share what is slow to make. In the order of collection: the files with the fewest
# and slowest tests would otherwise come last, and one worker wait for the other.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
	--no-loadscope-reorder

.PHONY: help install quickstart test test-openmmlab lint format docs zoo bench counts gpu \
	study clean

help:
	@echo 'make quickstart      train and evaluate a small GN Mask R-CNN on shapes (CPU)'
	@echo 'make test            all tests this machine can run, by WORKERS=2 processes'
	@echo 'make test-openmmlab  the tests against the original OpenMMLab releases'
	@echo 'make lint            ruff check, ruff format --check and mypy'
	@echo 'make docs            the documentation site, in build/site'
	@echo 'make zoo             write model_zoo.md from configs/*/metafile.yml'
	@echo 'make bench           time op and detectors on a CUDA device; host cost, memory'
	@echo 'make counts          count the kernels and model their times, without a GPU'
	@echo 'make gpu             check and measure on a CUDA device, GPU_SECONDS=540 at most'
	@echo 'make study           train the small networks behind the claims in studies/'
	@echo 'make install         only build .venv'
	@echo 'make clean           remove .venv, the overlay, generated data and results'

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	touch $@

$(VENV)/.dev-installed: $(VENV)/.installed requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

$(VENV)/.docs-installed: $(VENV)/.dev-installed requirements-docs.txt
	$(BIN)/python -m pip install -r requirements-docs.txt
	touch $@

# The original releases own the import names of the OneDL ones. They lie in a folder of
# their own which PYTHONPATH puts first, so that no second torch is needed.
$(OVERLAY)/.installed: $(VENV)/.installed
	rm -rf $(OVERLAY)
	$(BIN)/python -m pip install --no-deps --target $(OVERLAY) \
		mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0 'setuptools<82'
	touch $@

# More libraries whose blocks can be fused, for the tests of that alone: mmdet would
# import mmpretrain at every start. Without what they depend on, which is there already
# or which no block needs.
$(HOSTS)/.installed: $(VENV)/.installed requirements-hosts.txt
	rm -rf $(HOSTS)
	$(BIN)/python -m pip install --no-deps --target $(HOSTS) -r requirements-hosts.txt
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python tools/quickstart.py

test: $(VENV)/.dev-installed $(HOSTS)/.installed
	$(PYTEST)

test-openmmlab: $(VENV)/.dev-installed $(OVERLAY)/.installed $(HOSTS)/.installed
	PYTHONPATH=$(CURDIR)/$(OVERLAY) $(PYTEST) $(HOST_TESTS)

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

zoo: $(VENV)/.installed
	$(BIN)/gn-det zoo page > model_zoo.md.new
	mv model_zoo.md.new model_zoo.md

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/bench_host.py
	$(BIN)/python benchmarks/memory_detector.py
	$(BIN)/python benchmarks/bench_group_norm.py
	$(BIN)/python benchmarks/bench_detector.py --model r50 r101
	$(BIN)/python benchmarks/plot.py

counts: $(VENV)/.installed
	$(BIN)/python benchmarks/count_kernels.py
	$(BIN)/python benchmarks/plot.py benchmarks/results/kernel-counts_*.csv
	$(BIN)/python benchmarks/counts_page.py

# A GPU machine may have no network: its own Python serves where there is no .venv.
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu_day.py

study: $(VENV)/.installed
	$(BIN)/python studies/run.py --work-dir work_dirs/studies
	$(BIN)/python studies/figures.py work_dirs/studies/results

clean:
	rm -rf $(VENV) $(OVERLAY) $(HOSTS) data/shapes work_dirs/quickstart work_dirs/studies
