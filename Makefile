# make demo: install cvstyle into .venv and stylise the bundled photograph into out.png
# make test: install what the tests need as well, and run them
# make wheels: for Linux, macOS and Windows, with the engine compiled, into dist/
# make bench: the benchmarks (PyTorch is used beside cvstyle where it is installed)
# make gpu-test: on a machine with an NVIDIA GPU: every kernel and the objective against NumPy, a run, time and memory
#   (make gpu-test GPU_PYTHON=python3 uses a Python that has CuPy and the tests' packages already, and installs nothing)
# make gpu-bench: there, the whole report: tensor cores checked, then every precision and size beside PyTorch, into
#   benchmarks/results/ (GPU_PYTHON as above; PyTorch is used where it is installed; GPU_REPORT="--output DIR" and more)
# Both are made of parts, the targets named below, with no command of more than GPU_LIMIT seconds; where one fails, the
# others go on.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(shell find cvstyle kernels models -type f -not -name '*.pyc')

GPU_PYTHON ?= $(BIN)/python

GPU_LIMIT ?= 570
GPU_REPORT ?=
GPU = timeout $(GPU_LIMIT) $(GPU_PYTHON)
PYTEST = -m pytest -p no:cacheprovider -rs
GPU_TESTS := gpu-kernels gpu-tensor gpu-run gpu-cudnn gpu-wgmma
GPU_BENCHES := gpu-bench-peers gpu-bench-fp16 gpu-bench-fp32 gpu-bench-tf32 gpu-bench-pictures gpu-bench-bf16 \
	gpu-bench-wgmma

.PHONY: demo test wheels bench lint clean gpu-ready gpu-test gpu-bench $(GPU_TESTS) $(GPU_BENCHES)

demo: $(VENV)/installed
	$(BIN)/cvstyle run --content models/demo/content.jpg --style models/demo/style.jpg --output out.png

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/pytest

WHEELS := manylinux2014_x86_64 manylinux2014_aarch64 win_amd64 win_arm64 macosx_11_0_x86_64 macosx_11_0_arm64

wheels: $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check 'setuptools>=70.1' ziglang
	for platform in $(WHEELS); do rm -rf build; CVSTYLE_WHEEL=$$platform $(BIN)/pip wheel --quiet \
		--disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist . || exit 1; done

bench: $(VENV)/installed
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/iteration.py

gpu-test:
	$(MAKE) -k $(GPU_TESTS)

gpu-bench:
	$(MAKE) -k gpu-tensor $(GPU_BENCHES)

gpu-ready $(GPU_TESTS) $(GPU_BENCHES): export PYTHONPATH := .:$(PYTHONPATH)

gpu-ready: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(VENV)/installed-gpu)
	$(GPU_PYTHON) -m cvstyle devices

$(GPU_TESTS) $(GPU_BENCHES): gpu-ready

gpu-kernels:
	CVSTYLE_TEST_BACKEND=cuda $(GPU) $(PYTEST) tests/test_opencl.py

gpu-tensor:
	CVSTYLE_TEST_BACKEND=cuda $(GPU) $(PYTEST) tests/test_tensor.py -k "not runs and not compiler and not waited"

gpu-run:
	$(GPU) -m cvstyle run --backend cuda --content models/demo/content.jpg --style models/demo/style.jpg \
		--output out-cuda.png
	$(GPU) benchmarks/gpu.py --backend cuda --sizes 256,512
	$(GPU) -m cvstyle info --timings --backend cuda

gpu-cudnn:
	$(GPU_PYTHON) -c "from cvstyle.backends import cudnn; exit(cudnn.problem())"
	CVSTYLE_TEST_BACKEND=cudnn $(GPU) $(PYTEST) tests/test_opencl.py -k "objective or whole_net"

# Hopper's wgmma, which has never run: in a process of its own, so that what hangs or breaks the context breaks nothing
# else. On other GPUs the tests say that they are skipped.
gpu-wgmma:
	CVSTYLE_WGMMA=1 CVSTYLE_TEST_BACKEND=cuda $(GPU) $(PYTEST) tests/test_tensor.py \
		-k "exact_on_integers or two_words or largest or rounds"

gpu-bench-peers:
	$(GPU) benchmarks/gpu_report.py --part peers --sections ceilings,peers $(GPU_REPORT)

gpu-bench-pictures:
	$(GPU) benchmarks/gpu_report.py --part pictures --sections pictures $(GPU_REPORT)

# A precision and its like each, with cuDNN beside fp32.
gpu-bench-fp16 gpu-bench-tf32 gpu-bench-bf16: gpu-bench-%: gpu-ready
	$(GPU) benchmarks/gpu_report.py --part $* --precisions $*,$*-fast --sections iterations,layers,gradients \
		$(GPU_REPORT)

gpu-bench-fp32: gpu-ready
	$(GPU) benchmarks/gpu_report.py --part fp32 --precisions fp32,cudnn --sections iterations,layers,gradients \
		$(GPU_REPORT)

gpu-bench-wgmma: gpu-wgmma
	CVSTYLE_WGMMA=1 $(GPU) benchmarks/gpu_report.py --precisions fp16,fp16-fast $(GPU_REPORT)

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
	extra=$$($(BIN)/python -c "from cvstyle.backends import cuda, cudnn; print(cudnn.extra() or exit(cuda.problem()))") && \
		$(BIN)/pip install --quiet --disable-pip-version-check ".[$$extra]"
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check '.[test]'
	touch $@
