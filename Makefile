# make run     install, then train QTRAN-alt on the paper's matrix game
# make test    install, then the tests
# make check   install, then style, types and import contracts
# make audit   install, then name the packages that are known to be vulnerable; its exit status is 0 all the same
# make constraints   write requirements/constraints*.txt anew, with uv (pip install uv); what still fits keeps its
#                    version, UPGRADE=--upgrade takes the newest of all
PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check audit constraints clean

run: $(VENV)/core
	$(BIN)/python src/main.py --config=qtran_alt --env-config=matrix_game

test: $(VENV)/dev
	$(BIN)/python -m pytest

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	cd src && PYTHONPATH=. ../$(BIN)/lint-imports --config ../pyproject.toml

audit: $(VENV)/dev
	$(BIN)/python requirements/audit.py

$(VENV)/core: requirements.txt requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c requirements/constraints.txt -r requirements.txt
	touch $@

$(VENV)/dev: requirements/dev.txt $(VENV)/core
	$(BIN)/python -m pip install -c requirements/constraints.txt -r requirements/dev.txt
	touch $@

# StarCraft needs an old protobuf, so an environment with it has a file of its own. jax has nothing for Python 3.10.
# dm-env-rpc is what only the Linux wheel of pysc2 asks for; uv reads another one.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.10 --no-emit-index-url --no-annotate $(UPGRADE)
SMAX = sed 's/^[a-z]*==[0-9.]*/& ; python_version >= "3.11"/' requirements/smax.txt

constraints:
	$(SMAX) | $(COMPILE) --custom-compile-command='make constraints (requirements.txt, dev, gym, smax, ray)' \
		--output-file requirements/constraints.txt requirements/dev.txt requirements/gym.txt requirements/ray.txt -
	sed '/^protobuf==/d' requirements/constraints.txt >requirements/constraints-sc2.txt
	($(SMAX); echo dm-env-rpc) | $(COMPILE) --custom-compile-command='make constraints (requirements.txt, dev, gym, smax, sc2)' \
		--no-emit-package smacv2 --output-file requirements/constraints-sc2.txt \
		requirements/dev.txt requirements/gym.txt requirements/sc2.txt -

clean:
	rm -rf $(VENV)
