PYTHON ?= python3
RUN := .venv/bin/python

# Tests whose results depend on rounding.
NUMERIC := tests/camera tests/data tests/hand tests/inference_test.py tests/losses_test.py \
	tests/metrics tests/models tests/training

# Training on a CPU allocates and frees hundreds of MB in every step. Huge pages that are kept
# spare the kernel that work; C libraries other than glibc ignore this.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000:glibc.malloc.top_pad=200000000

# Compiled programs are shared between commands.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: quickstart demo detector page-files bench test test-long lint types lock

quickstart: demo  ## Meshes of hands in minutes; then data, training, drawings and scores.
	$(RUN) main.py --config=configs/quickstart.py --mode=train
	.venv/bin/m3dhmr predict --checkpoint runs/quickstart --out runs/quickstart/predict --replace \
		--freihand data/quickstart/evaluation/rgb/0000000*.jpg
	$(RUN) main.py --config=configs/quickstart.py --mode=evaluate

demo: detector  ## Finds hands in rendered photos and draws their meshes.
	.venv/bin/m3dhmr demo --sheet

detector: .venv/ready  ## Fetches the weights of the hand detector, once.
	.venv/bin/m3dhmr detector install

page-files: .venv/ready  ## Fetches the npm files of the page, once.
	$(RUN) -m m3dhmr_jax.export.npm_files

bench: .venv/ready  ## Speed on a CPU, as tables; benchmarks/README.md.
	$(RUN) -m benchmarks cpu

# Published numbers that tests compare with are read from REFERENCE_DIR, real photos from REAL_DIR;
# without them those tests skip.
test: detector  ## All but the long tests: 4 to 5 minutes on two cores.
	$(RUN) -m pytest -n 2 --dist loadfile -m "not long"

test-long: detector  ## Whole runs, full networks, faults, several processes; another instruction set.
	$(RUN) -m pytest -n 2 --dist loadfile -m long
	XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 JAX_COMPILATION_CACHE_DIR=$(CURDIR)/.jax_cache/sse4_2 \
		$(RUN) -m pytest -n 2 --dist loadfile -m "not long" $(NUMERIC)

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/ready
	.venv/bin/pyright

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --require-hashes -r requirements.lock
	.venv/bin/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

lock:  ## Freezes the newest versions that requirements.txt and requirements-dev.txt allow.
	.venv/bin/pip install --quiet pip-tools
	.venv/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
		--no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--output-file requirements.lock requirements-dev.txt
