# Every command of the project; `make` lists them. Each target works alone on a clean clone: it makes
# the virtual environment, builds the wheel once per change of the sources and installs what it needs.

PYTHON ?= python3
VENV ?= .venv
# Processes that share the Python tests; 0: one after the other, in the process of pytest itself.
WORKERS ?= 2
# Extra arguments for pytest or a benchmark: make test ARGS="-k dict", make bench ARGS=--quick
ARGS ?=

PY := $(VENV)/bin/python
WHEELS := build/wheels
# What the wheel is made of. The list of files is kept too, so that a deleted file counts as a change.
SOURCES := $(sort $(wildcard pyproject.toml setup.py MANIFEST.in LICENSE README.md) \
  $(shell find dirtyheap native/include native/src native/lab native/python -type f -name '*.[chp]*' \
    ! -name '*.pyc' ! -name '*.so'))

# Versions are pinned where another version would say something else about the same code.
LINT_NEEDS := ruff==0.17.6 clang-format==23.1.5
TYPES_NEEDS := mypy==2.4.1 numpy

C_FILES = $(shell find native benchmarks tests -name '*.[ch]' ! -path 'native/build/*')

# Run from tests/: in the root the package's sources would shadow the installed package, which alone
# has the compiled part, in every `python -m` and `python -c`.
IN_TESTS := cd tests && $(abspath $(PY))
PYTEST := $(IN_TESTS) -m pytest -c ../pyproject.toml
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help build demo test test-native test-tsan test-python test-old-kernel bench soak lint format types docs clean FORCE

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	  awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

build: $(VENV)/installed ## build the wheel and install it into .venv

demo: $(VENV)/installed ## index Python's standard library, killed and resumed; prints one table
	$(PY) examples/stdlib_index $(ARGS)

test: test-native test-python ## all tests: the C core plain and under sanitizers, then pytest

test-native: ## tests of the C core: plain, then ASan + UBSan
	$(MAKE) -C native -j$$(nproc) test

test-tsan: ## marking beside a mutator under ThreadSanitizer (.ci/run does it too)
	$(MAKE) -C native -j$$(nproc) test-tsan

test-python: $(VENV)/installed-test ## pytest without the soak tests
	$(PYTEST) -m "not soak" -n $(WORKERS) --dist worksteal $(ARGS) .

soak: $(VENV)/installed-test ## the long tests: thousands of kills and power failures, an hour's overwriting
	$(PYTEST) -m soak $(ARGS) .

test-old-kernel: $(VENV)/installed-test ## probe and fallback on a kernel before 6.7, emulated (Debian)
	$(IN_TESTS) old_kernel/boot.py $(ARGS)

bench: $(VENV)/installed-bench ## all benchmarks, some 50 minutes; ARGS=--quick for seconds
	$(PY) benchmarks/bench_scan.py $(ARGS)
	$(PY) benchmarks/bench_watch.py $(ARGS)
	$(PY) benchmarks/bench_access.py $(ARGS)
	$(PY) benchmarks/bench_set.py $(ARGS)
	$(PY) benchmarks/bench_sorted.py $(ARGS)
	$(PY) benchmarks/bench_bulk.py $(ARGS)
	$(PY) benchmarks/bench_scalars.py $(ARGS)
	$(PY) benchmarks/bench_arrays.py $(ARGS)
	$(PY) benchmarks/bench_records.py $(ARGS)
	$(PY) benchmarks/bench_commit.py $(ARGS)
	$(PY) benchmarks/bench_memory.py $(ARGS)
	$(PY) benchmarks/bench_open.py $(ARGS)
	$(PY) benchmarks/bench_pages.py $(ARGS)
	$(PY) benchmarks/bench_history.py $(ARGS)
	$(PY) benchmarks/bench_collect.py $(ARGS)
	$(PY) benchmarks/bench_census.py $(ARGS)
	$(PY) benchmarks/bench_gc_shapes.py $(ARGS)

lint: $(VENV)/installed-lint ## ruff, clang-format, compiler warnings of the binding; check only
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	$(CC) -fsyntax-only -std=c11 -D_GNU_SOURCE -DPy_LIMITED_API=0x030B0000 -Werror -Wall -Wextra \
	    -Wconversion -Wshadow -Inative/include \
	    -I"$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))')" native/python/*.c

format: $(VENV)/installed-lint ## let ruff and clang-format rewrite the sources
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(C_FILES)

types: $(VENV)/installed-types ## mypy, the stub against the compiled module, the typing sample
	$(VENV)/bin/mypy dirtyheap
	$(IN_TESTS) -m mypy.stubtest dirtyheap._native
	$(VENV)/bin/mypy --strict tests/typing

docs: $(VENV)/installed-test ## run the examples in README, docs/ and docstrings
	$(PYTEST) $(ARGS) test_docs.py

clean: ## remove the virtual environment and everything built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	[ ! -e native/Makefile ] || $(MAKE) -C native clean

# --- how the environment is kept up to date ------------------------------------------------------

# Changes when the interpreter behind PYTHON or the place of the clone does; then all is made anew.
$(VENV)/interpreter: FORCE
	@identity=$$($(PYTHON) -c 'import os, sys; \
	  sys.version_info >= (3, 11) or sys.exit("dirtyheap needs Python 3.11 or newer, this is " + sys.version \
	  + "; choose another: make PYTHON=..."); \
	  print(os.path.realpath(sys.executable), sys.version.replace("\n", " "), os.getcwd())') || exit 1; \
	if [ "$$identity" != "$$(cat $@ 2>/dev/null)" ]; then \
	  echo "creating $(VENV): $$identity"; \
	  rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && printf '%s\n' "$$identity" >$@; \
	fi

build/sources: FORCE
	@mkdir -p build && printf '%s\n' $(SOURCES) | cmp -s - $@ || printf '%s\n' $(SOURCES) >$@

$(WHEELS)/built: $(VENV)/interpreter build/sources $(SOURCES)
	@$(PY) -c 'import os, sys, sysconfig; \
	  os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")) or sys.exit( \
	  "the headers of this Python are missing: install its -dev package (python3-dev)")'
	rm -rf $(WHEELS) build/lib* build/temp* build/bdist* && mkdir -p $(WHEELS)
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir $(WHEELS) .
	touch $@

$(VENV)/installed: $(VENV)/interpreter $(WHEELS)/built
	$(PY) -m pip install --quiet $(WHEELS)/*.whl
	$(PY) -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PY) -m pip install --quiet "$$(echo $(WHEELS)/*.whl)[test]"
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(PY) -m pip install --quiet "$$(echo $(WHEELS)/*.whl)[bench]"
	touch $@

$(VENV)/installed-lint: $(VENV)/interpreter
	$(PY) -m pip install --quiet $(LINT_NEEDS)
	touch $@

$(VENV)/installed-types: $(VENV)/installed-test
	$(PY) -m pip install --quiet $(TYPES_NEEDS)
	touch $@
