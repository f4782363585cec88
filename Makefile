PYTHON ?= python3
RUN := .venv/bin/python

# Training on a CPU allocates and frees hundreds of MB in every step. Huge pages that are kept
# spare the kernel that work; other C libraries than glibc ignore this.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000:glibc.malloc.top_pad=200000000

# What one command has compiled, the next one loads.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: quickstart bench test test-long lint types lock

quickstart: .venv/ready  ## Data, training, pictures and scores: under a quarter of an hour.
	$(RUN) main.py --config=configs/quickstart.py --mode=train
	$(RUN) main.py --config=configs/quickstart.py --mode=predict --images data/quickstart/evaluation/rgb/0000000*.jpg
	$(RUN) main.py --config=configs/quickstart.py --mode=evaluate

bench: .venv/ready  ## Tables of what is fast here, CPU; benchmarks/README.md.
	$(RUN) -m benchmarks cpu

test: .venv/ready  ## All but the long tests; those that need the peers' numbers read REFERENCE_DIR.
	$(RUN) -m pytest -n 2 --dist loadfile -m "not long"

test-long: .venv/ready  ## Real faults, several processes, every system.
	$(RUN) -m pytest -n 2 --dist loadfile -m long

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

lock:  ## Freezes the newest versions that requirements.txt and requirements-dev.txt admit.
	.venv/bin/pip install --quiet pip-tools
	.venv/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
		--no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--output-file requirements.lock requirements-dev.txt
