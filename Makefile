# make run     install, then train QTRAN-alt on the paper's matrix game
# make test    install, then the tests
# make check   install, then style, types and import contracts
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check clean

run: $(VENV)/core
	$(BIN)/python src/main.py --config=qtran_alt --env-config=matrix_game

test: $(VENV)/dev
	$(BIN)/python -m pytest

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	cd src && PYTHONPATH=. ../$(BIN)/lint-imports --config ../pyproject.toml

$(VENV)/core: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

$(VENV)/dev: requirements/dev.txt $(VENV)/core
	$(BIN)/python -m pip install -r requirements/dev.txt
	touch $@

clean:
	rm -rf $(VENV)
