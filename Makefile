# make lab · make test · make notebooks · make exercises · make bench; extra arguments go through ARGS="…"
PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
READY := .venv/ready
WORKERS ?= 2
AS_ROOT := $(if $(filter 0,$(shell id -u 2>/dev/null)),--allow-root)

.PHONY: lab test notebooks exercises bench
lab: $(READY)
	@echo "Starting JupyterLab on notebooks/00_start_here.ipynb (Ctrl-C stops it)"
	@$(BIN)/jupyter lab $(AS_ROOT) $(ARGS) notebooks/00_start_here.ipynb

test: $(READY)
	@echo "Running every test and every notebook, $(WORKERS) at a time"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --nbval --nbval-current-env --nbval-cell-timeout=300 --ignore=notebooks/05_exercises course_utils tests notebooks exercises $(ARGS)

notebooks: $(READY)
	@echo "Executing the notebooks in place"
	@$(BIN)/python -m course_utils.notebooks execute $(or $(ARGS),$(filter-out notebooks/05_exercises/%,$(wildcard notebooks/*.ipynb notebooks/*/*.ipynb exercises/*.ipynb)))

exercises: $(READY)
	@echo "Making the student versions of the exercises"
	@$(BIN)/course student-versions exercises notebooks/05_exercises

bench: $(READY)
	@echo "Installing the libraries that are compared with, then measuring"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	@$(BIN)/python benchmarks/run.py $(ARGS)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(None if sys.version_info >= (3, 11) else 'Python 3.11 or later is needed, this is ' + sys.version.split()[0] + ': call make with PYTHON=python3.12, say')"
	@echo "Making the virtual environment .venv"
	@$(PYTHON) -m venv .venv
	@echo "Installing the tested versions (a minute or two the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@$(BIN)/python -c "open('$(READY)', 'w').close()"
