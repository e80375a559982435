# make demo   set everything up, then pack, train, resume and profile on generated images
# make test   set everything up, then check style and types and run the tests (no GPU, no data set needed)

PYTHON := .venv/bin/python

.PHONY: setup demo test test-long lock clean

setup: .venv/.ready

# rebuilt when what it installs changes
.venv/.ready: tools/setup.sh requirements.lock pyproject.toml
	@tools/setup.sh
	@touch $@

demo: setup
	@$(PYTHON) tools/demo.py

test: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -m "not long"

# hours, not minutes; passed tests are noted in docs/benchmarks/long/ and skipped until the code changes
test-long: setup
	$(PYTHON) -m pytest -m long tests/long --durations=0

# renew requirements.lock after a change of dependencies in pyproject.toml
lock: setup
	uv pip compile --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --upgrade \
		--extra dev --extra ffcv --python-version 3.11 pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .venv-uv .venv-setup.log build runs/demo* data/demo
