# `make demo` and `make test` need Python 3.11 or later, and nothing else installed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
# Where PyTorch's build comes from; empty: the usual index, which has the one for NVIDIA GPUs (CUDA).
TORCH_INDEX ?=
TESTS ?=
# One thread for each of the two test processes; they start many others, for which compiled modules are kept.
TEST_ENV := PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1

.PHONY: demo test test-fast coverage lint docs audit clean

demo: $(VENV)/.installed ## two synthetic participants with known truth, registered to the template
	test -e $(DEMO)/bids || $(BIN)/fcnreg phantom $(DEMO)/bids --participants 2 --seed 3
	$(BIN)/bids_fcnreg $(DEMO)/bids $(DEMO)/derivatives participant --work-dir $(DEMO)/work \
		--template MNI152NLin2009aSym
	$(BIN)/python benchmarks/phantom.py $(DEMO)/bids $(DEMO)/derivatives
	@printf '%s\n' "" \
		"What to look at:" \
		"  $(DEMO)/derivatives/sub-01.html    the visual report: brain mask, comparison with the template, verdict" \
		"  $(DEMO)/derivatives/sub-01/anat    transforms, images in template space, atlas labels and volumes" \
		"Your own data:" \
		"  source $(VENV)/bin/activate" \
		"  bids_fcnreg BIDS_DIR OUTPUT_DIR participant --dry-run    lists what would be registered" \
		"  bids_fcnreg BIDS_DIR OUTPUT_DIR participant -w WORK_DIR" \
		"  bids_fcnreg BIDS_DIR OUTPUT_DIR group                    the report of the whole study" \
		"  fcnreg register MNI152NLin2009cAsym BRAIN.nii.gz -o PREFIX --report    a single brain" \
		"Next: docs/coming_from.md, docs/usage.md and docs/notebooks/pair.md."

test: $(VENV)/.installed ## the whole suite
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(VENV)/.installed ## what takes seconds
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

coverage: $(VENV)/.installed ## lines and branches that TESTS (default: the whole suite) reach
	rm -rf build/coverage
	$(TEST_ENV) $(BIN)/python -m coverage run -m pytest -n 2 --dist loadfile $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report

lint: $(VENV)/.installed ## what CI checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell bids_fcnreg benchmarks docker docs tests README.md CHANGES setup.cfg
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed ## the documentation, from docs/ into build/docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

audit: ## known weaknesses of the libraries in constraints.txt; asks pypi.org
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet pip-audit
	build/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

# Installed again when what it is made from changes.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# compat: else a clone in the current folder hides the package from Python.
	$(BIN)/pip install --quiet --constraint constraints.txt --config-settings editable_mode=compat \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable ".[test,docs]"
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info
