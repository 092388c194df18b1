# make demo: install cvstyle into .venv and stylise the bundled photograph into out.png
# make test: install what the tests need as well, and run them
# make wheels: for Linux, macOS and Windows, with the engine compiled, into dist/
# make bench: the benchmarks (PyTorch is used beside cvstyle where it is installed)
# make gpu-test: on a machine with an NVIDIA GPU: every kernel and the objective against NumPy, a run, time and memory
#   (make gpu-test GPU_PYTHON=python3 uses a Python that has CuPy and the tests' packages already, and installs nothing)

# make gpu-bench: there, the whole report: tensor cores checked, then every precision and size beside PyTorch, into
#   benchmarks/results/ (GPU_PYTHON as above; PyTorch is used where it is installed)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(shell find cvstyle kernels models -type f -not -name '*.pyc')

GPU_PYTHON ?= $(BIN)/python

# Hopper's wgmma, which has never run: last, and in a process of its own with a time limit, so that what hangs or breaks
# the context breaks nothing else. On other GPUs the tests say that they are skipped.
WGMMA_TEST = CVSTYLE_WGMMA=1 CVSTYLE_TEST_BACKEND=cuda timeout 900 $(GPU_PYTHON) -m pytest -p no:cacheprovider -rs \
	tests/test_tensor.py -k "exact_on_integers or two_words or largest or rounds"

.PHONY: demo test wheels bench gpu-test gpu-bench lint clean

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

gpu-test: export PYTHONPATH := .
gpu-test: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(VENV)/installed-gpu)
	$(GPU_PYTHON) -m cvstyle devices
	CVSTYLE_TEST_BACKEND=cuda $(GPU_PYTHON) -m pytest -p no:cacheprovider tests/test_opencl.py
	if $(GPU_PYTHON) -c "from cvstyle.backends import cudnn; exit(cudnn.problem())"; then CVSTYLE_TEST_BACKEND=cudnn \
		$(GPU_PYTHON) -m pytest -p no:cacheprovider tests/test_opencl.py -k "objective or whole_net"; fi
	$(GPU_PYTHON) -m cvstyle run --backend cuda --content models/demo/content.jpg --style models/demo/style.jpg \
		--output out-cuda.png
	$(GPU_PYTHON) benchmarks/gpu.py --backend cuda --sizes 256,512
	$(GPU_PYTHON) -m cvstyle info --timings --backend cuda
	$(WGMMA_TEST)

gpu-bench: export PYTHONPATH := .
gpu-bench: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(VENV)/installed-gpu)
	CVSTYLE_TEST_BACKEND=cuda $(GPU_PYTHON) -m pytest -p no:cacheprovider tests/test_tensor.py -k "not compile"
	$(GPU_PYTHON) benchmarks/gpu_report.py
	$(WGMMA_TEST) && CVSTYLE_WGMMA=1 timeout 3600 $(GPU_PYTHON) benchmarks/gpu_report.py

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
