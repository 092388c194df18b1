# make demo: install cvstyle into .venv and stylise the bundled photograph into out.png
# make test: install what the tests need as well, and run them, on all processors (make test WORKERS=0: in one process)
# make test-quick: the first case of each test, without those that take long
# make smoke: try the wheel in a new environment of every Python from 3.10 on that is on this machine, in about a minute
# make wheels: for Linux, macOS and Windows, with the engine compiled, into dist/
# make bench: the benchmarks (PyTorch is used beside cvstyle where it is installed)
# make gpu-quick: on a machine with an NVIDIA GPU, in eight minutes: what is most worth knowing, into the folder that OUT
#   names or benchmarks/results/ (docs/gpu-quick.md; make gpu-quick FROM=5 goes on with part 5)
#   (GPU_PYTHON=python3 uses a Python that has CuPy and the tests' packages already, and installs nothing)
# make gpu-test: every kernel and the objective against NumPy, and a run
# make gpu-bench: the whole report, every precision and size beside PyTorch (GPU_REPORT="--sizes 4096" and more)
# The last two are made of parts, the targets named below, with no command of more than GPU_LIMIT seconds; where one
# fails, the others go on.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(shell find cvstyle kernels models -type f -not -name '*.pyc')

GPU_PYTHON ?= $(BIN)/python

GPU_INSTALLED := $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(VENV)/installed-gpu)

WORKERS ?= auto
SPREAD = -n $(WORKERS) --maxprocesses 8 --dist worksteal

GPU_LIMIT ?= 570
GPU_REPORT ?=
FROM ?= 1
GPU = timeout $(GPU_LIMIT) $(GPU_PYTHON)
PYTEST = -m pytest -p no:cacheprovider -rs
FULL = $(GPU) benchmarks/gpu full $(GPU_REPORT)
GPU_TESTS := gpu-kernels gpu-tensor gpu-run gpu-cudnn gpu-wgmma
GPU_BENCHES := gpu-bench-peers gpu-bench-fp16 gpu-bench-fp32 gpu-bench-tf32 gpu-bench-pictures gpu-bench-bf16 \
	gpu-bench-wgmma

.PHONY: demo test test-quick smoke wheels bench lint clean gpu-ready gpu-quick gpu-test gpu-bench $(GPU_TESTS) \
	$(GPU_BENCHES)

demo: $(VENV)/installed
	$(BIN)/cvstyle run --content models/demo/content.jpg --style models/demo/style.jpg --output out.png

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/pytest $(SPREAD)

test-quick: $(VENV)/installed-test
	$(BIN)/pytest $(SPREAD) --quick

smoke: $(BIN)/python
	$(BIN)/python tests/smoke.py

WHEELS := manylinux2014_x86_64 manylinux2014_aarch64 win_amd64 win_arm64 macosx_11_0_x86_64 macosx_11_0_arm64

wheels: $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check 'setuptools>=70.1' ziglang
	for platform in $(WHEELS); do rm -rf build; CVSTYLE_WHEEL=$$platform $(BIN)/pip wheel --quiet \
		--disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist . || exit 1; done

bench: $(VENV)/installed
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/iteration.py

gpu-quick: $(GPU_INSTALLED)
	$(GPU_PYTHON) benchmarks/gpu quick --from $(FROM)

gpu-test:
	$(MAKE) -k $(GPU_TESTS)

gpu-bench:
	$(MAKE) -k gpu-tensor $(GPU_BENCHES)

gpu-quick gpu-ready $(GPU_TESTS) $(GPU_BENCHES): export PYTHONPATH := .:$(PYTHONPATH)

gpu-ready: $(GPU_INSTALLED)
	$(GPU_PYTHON) -m cvstyle devices

$(GPU_TESTS) $(GPU_BENCHES): gpu-ready

gpu-kernels:
	CVSTYLE_TEST_BACKEND=cuda $(GPU) $(PYTEST) tests/test_opencl.py tests/test_gathering.py

gpu-tensor:
	CVSTYLE_TEST_BACKEND=cuda $(GPU) $(PYTEST) tests/test_tensor.py -k "not runs and not compiler and not waited"

gpu-run:
	$(GPU) -m cvstyle run --backend cuda --content models/demo/content.jpg --style models/demo/style.jpg \
		--output out-cuda.png
	$(GPU) -m cvstyle info --timings --backend cuda

gpu-cudnn:
	$(GPU_PYTHON) -c "from cvstyle.backends import cudnn; print(cudnn.Backend.unavailable_because()); exit(bool(cudnn.Backend.unavailable_because()))" || exit 0; \
		CVSTYLE_TEST_BACKEND=cudnn $(GPU) $(PYTEST) tests/test_opencl.py -k "objective or whole_net"

# Hopper's wgmma, which has never run: in a process of its own, so that what hangs or breaks the context breaks nothing
# else. On other GPUs the tests say that they are skipped.
gpu-wgmma:
	CVSTYLE_WGMMA=1 CVSTYLE_TEST_BACKEND=cuda $(GPU) $(PYTEST) tests/test_tensor.py \
		-k "exact_on_integers or two_words or largest or rounds"

gpu-bench-peers:
	$(FULL) --part peers --sections ceilings,products,peers

gpu-bench-pictures:
	$(FULL) --part pictures --sections pictures

# A precision and its like each, with cuDNN beside fp32.
gpu-bench-fp16 gpu-bench-tf32 gpu-bench-bf16: gpu-bench-%: gpu-ready
	$(FULL) --part $* --precisions $*,$*-fast --sections iterations,layers,gradients

gpu-bench-fp32: gpu-ready
	$(FULL) --part fp32 --precisions "fp32,cudnn fp32,cudnn tf32-fast" --sections iterations,layers,gradients

gpu-bench-wgmma: gpu-wgmma
	CVSTYLE_WGMMA=1 $(FULL) --part wgmma --precisions fp16,fp16-fast --sections iterations,layers,gradients

lint: $(VENV)/installed-test
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "on Debian: apt-get install python3-venv"; exit 1; }

# The wheel is what users get, so the demo and the tests use it rather than an editable install.
$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet --disable-pip-version-check .
	touch $@

$(VENV)/installed-gpu: $(VENV)/installed-test
	extra=$$($(BIN)/python -c "from cvstyle.backends import cuda, cudnn; print(cudnn.extra() or exit(cuda.Backend.unavailable_because()))") && \
		$(BIN)/pip install --quiet --disable-pip-version-check ".[$$extra]"
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check '.[test]'
	touch $@
