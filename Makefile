# make demo   set everything up, then pack, train, resume and profile on generated images
# make test   set everything up, then check style and types and run the tests (no GPU, no data set needed)

PYTHON := .venv/bin/python
# where uv is not on the PATH, tools/setup.sh has put it beside the project
UV := $(or $(shell command -v uv),.venv-uv/bin/uv)

.PHONY: setup demo test test-long gpu-check lock clean

setup: .venv/.ready

# rebuilt when what it installs changes
.venv/.ready: tools/setup.sh requirements.lock requirements-dali.lock pyproject.toml
	@tools/setup.sh
	@touch $@

demo: setup
	@$(PYTHON) tools/demo.py

# tests that run commands wait for processes to import torch, so as many run at once as there are processors, up to four;
# they start hundreds, which may keep what they compile of this project
test: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	env -u PYTHONDONTWRITEBYTECODE $(PYTHON) -m pytest -m "not long" -n logical --maxprocesses 4 --dist worksteal

# hours, not minutes; passed tests are noted in docs/benchmarks/long/ and skipped until the code changes
test-long: setup
	env -u PYTHONDONTWRITEBYTECODE $(PYTHON) -m pytest -m long tests/long --durations=0

# on a machine with a GPU: 25 minutes a call, the most important parts first; all of it is some 35 minutes, so give the
# command again, which goes on with what is missing; options in ARGS. No setup: where a GPU machine reaches no network,
# what it has must do
gpu-check:
	PYTHONPATH="$(HOME)/site:.:$(PYTHONPATH)" env -u PYTHONDONTWRITEBYTECODE python3 tools/gpu_check.py $(ARGS)

# renew both locks after a change of dependencies in pyproject.toml. DALI's holds what the extra `dali` adds, at the
# versions of the other where they share a package
COMPILE := pip compile --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --upgrade \
	--python-version 3.11
DALI := import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	print(*extras["dali"], sep="\n")
lock: setup
	$(UV) $(COMPILE) --extra dev --extra ffcv pyproject.toml -o requirements.lock
	$(PYTHON) -c '$(DALI)' | $(UV) $(COMPILE) --constraints requirements.lock - -o requirements-dali.lock

clean:
	rm -rf .venv .venv-uv .venv-setup.log build runs/demo-torchvision runs/demo-turbo runs/demo.png data/demo data/demo-images
