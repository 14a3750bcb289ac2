# `make install` makes what a user needs, `make demo` shows what it does, `make test` checks
# that it does it. Each makes the virtual environment it needs from the lock file.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint unit peers lock sbom wheelhouse clean

install: $(VENV)/.installed
	@echo "$(BIN)/miadmark is there. To begin with: $(BIN)/miadmark protect STUDY --out marked"

demo: $(VENV)/.installed
	$(BIN)/miadmark demo

test: peers lint
	$(BIN)/python -m pytest -m "not alone" -n auto --dist loadfile
	$(BIN)/python -m pytest -m alone

unit: $(VENV)/.made
	$(BIN)/python -m pytest tests/unit tests/contract

lint: $(VENV)/.made
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What runs: no training, no tests.
$(VENV)/.installed: pyproject.toml requirements.lock
	@echo "Installing into $(VENV), 1.3 GB; torch is most of it. This takes minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint requirements.lock \
	  --editable '.[codecs,desk,hsm,mark,web]'
	touch $@

# And what trains and tests it.
$(VENV)/.made: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[dev]'
	touch $@

# The other makes of software that the tests talk to, where Debian has them and we may.
peers: $(VENV)/.made
	@if command -v storescp >/dev/null && command -v Orthanc >/dev/null \
	  && command -v softhsm2-util >/dev/null && command -v dciodvfy >/dev/null \
	  && command -v gdcminfo >/dev/null && command -v gcc >/dev/null \
	  && command -v chromium >/dev/null && command -v promtool >/dev/null \
	  && command -v zsh >/dev/null && command -v fish >/dev/null \
	  && command -v mandoc >/dev/null \
	  && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
	  && ls /usr/lib/orthanc/libOrthancPython.so* >/dev/null 2>&1 \
	  && ls /usr/lib/orthanc/libOrthancDicomWeb.so* >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq dcmtk orthanc orthanc-python orthanc-dicomweb \
	    softhsm2 dicom3tools libgdcm-tools gcc libc6-dev chromium \
	    prometheus postgresql zsh fish mandoc >/dev/null; \
	else echo "A peer is not installed: tests that need it are left out" \
	  "(apt-get install dcmtk orthanc orthanc-python orthanc-dicomweb softhsm2 dicom3tools" \
	  "libgdcm-tools gcc chromium prometheus postgresql zsh fish mandoc)"; fi

# Exact versions of everything, for the environment at hand.
lock: $(VENV)/.made
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

# What is in this environment, native libraries included; checked against its schema.
sbom: $(VENV)/.made
	$(BIN)/python deploy/sbom.py sbom.cdx.json

# All that an installation without a network needs; EXTRAS=codecs,desk,hsm,web,mark marks as well.
wheelhouse: $(VENV)/.made
	PYTHON=$(BIN)/python deploy/wheelhouse.sh wheelhouse $(EXTRAS)

clean:
	rm -rf $(VENV) demo-output wheelhouse sbom.cdx.json
