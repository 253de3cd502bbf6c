# `make` lists the targets. A target is named by the text behind ## on its line.
PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run test check docs links audit constraints clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

run: $(VENV)/core  ## install, then train QTRAN-alt on the 3x3 game of the paper
	$(BIN)/python src/main.py --config=qtran_alt --env-config=matrix_game

# Files of tests run on two cores at once; WORKERS=0 runs one test after another in one process.
WORKERS ?= 2

test: $(VENV)/dev  ## install, then run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: $(VENV)/dev docs  ## install, then check style, types, imports and documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	cd src && PYTHONPATH=. ../$(BIN)/lint-imports --config ../pyproject.toml

# -W: a warning is an error, such as a dead link or a page that no page leads to. -n: each reference is looked up.
# -E -a: all pages are read and written anew, or the warnings of the others would not be repeated.
SPHINX = $(BIN)/sphinx-build -W --keep-going -n -q -E -a -c docs

docs: $(VENV)/docs  ## install, then build the documentation: build/site/docs/index.html
	$(SPHINX) -b html . build/site

links: $(VENV)/docs  ## check the links of the documentation to other sites; needs a network
	$(SPHINX) -b linkcheck . build/links

audit: $(VENV)/dev  ## name the packages that are known to be vulnerable; exit status 0 all the same
	$(BIN)/python requirements/audit.py

$(VENV)/core: requirements.txt requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c requirements/constraints.txt -r requirements.txt
	touch $@

$(VENV)/dev: requirements/dev.txt $(VENV)/core
	$(BIN)/python -m pip install -c requirements/constraints.txt -r requirements/dev.txt
	touch $@

$(VENV)/docs: requirements/docs.txt $(VENV)/core
	$(BIN)/python -m pip install -c requirements/constraints.txt -r requirements/docs.txt
	touch $@

# StarCraft needs an old protobuf, so an environment with it has a file of its own. jax has nothing for Python 3.10.
# dm-env-rpc is what only the Linux wheel of pysc2 asks for; uv reads another one.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.10 --no-emit-index-url --no-annotate $(UPGRADE)
SMAX = sed 's/^[a-z]*==[0-9.]*/& ; python_version >= "3.11"/' requirements/smax.txt

# What still fits keeps its version; UPGRADE=--upgrade takes the newest of all.
constraints:  ## write requirements/constraints*.txt anew, with uv (pip install uv)
	$(SMAX) | $(COMPILE) --custom-compile-command='make constraints (requirements.txt, dev, docs, gym, smax, ray)' \
		--output-file requirements/constraints.txt requirements/dev.txt requirements/docs.txt requirements/gym.txt \
		requirements/ray.txt -
	sed '/^protobuf==/d' requirements/constraints.txt >requirements/constraints-sc2.txt
	($(SMAX); echo dm-env-rpc) | $(COMPILE) --custom-compile-command='make constraints (requirements.txt, dev, docs, gym, smax, sc2)' \
		--no-emit-package smacv2 --output-file requirements/constraints-sc2.txt \
		requirements/dev.txt requirements/docs.txt requirements/gym.txt requirements/sc2.txt -

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build
