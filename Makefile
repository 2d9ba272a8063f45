# Everything sets itself up in .venv on first use, from the pinned and hashed packages of requirements.lock.
#
#     make validate                   a humanoid walks through a warehouse and is judged
#     make validate ARGS="--frames 100 --open"
#     make test ARGS="-k lidar"
#     make PYTHON=python3.12 test     another Python

VENV := .venv
STAMP := $(VENV)/.ready
BIN := $(VENV)/bin
ARGS ?=
WORKERS ?= 2
SUITABLE := import sys, venv, ensurepip; sys.exit(not ((3, 10) <= sys.version_info[:2] < (3, 14)))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.10 python3.13 python3; do \
	if "$$name" -c '$(SUITABLE)' >/dev/null 2>&1; then echo "$$name"; break; fi; done)
CHROMIUM := $(firstword $(foreach name,chromium chromium-browser google-chrome google-chrome-stable,$(shell command -v $(name))))

.DEFAULT_GOAL := help
.PHONY: help setup validate test test-all test-interop bench lint format lock clean

help:
	@echo "make validate   simulate, sense, infer, act, judge: the warehouse, with its verdict and report"
	@echo "make test       the tests (those for browsers where there is Chromium; slow ones: make test-all)"
	@echo "make test-interop   the ROS 2 bridge against a real rclpy; downloads one (133 MB, NVIDIA's licence) into .ros-peer/"
	@echo "make bench      what the loop costs beside the bare engines, as ratios"
	@echo "make lint       ruff and mypy"
	@echo "make format     ruff's formatter and its safe fixes"
	@echo "make setup      only the set-up in $(VENV)"
	@echo "make lock       pins the newest packages again: requirements.lock"
	@echo "make clean      removes $(VENV) and what was built; runs/ stays"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "No CPython 3.10 to 3.13 with venv was found. Install one (Debian, Ubuntu: apt install python3 python3-venv)" >&2; \
		echo "or name yours: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; fi
	@"$(PYTHON)" -c '$(SUITABLE)' || { \
		echo "$(PYTHON) is no CPython 3.10 to 3.13 with venv: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Set-up, once: $(VENV) with $$("$(PYTHON)" --version), packages of requirements.lock (about 400 MB to download)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Set-up done: $(BIN)/saccade"

validate: $(STAMP)
	@$(BIN)/saccade validate config/warehouse.yaml $(ARGS)

test: $(STAMP)
	@$(if $(CHROMIUM),,echo "No Chromium here: the browser tests are left out (Debian: apt install chromium)")
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --ignore tests/interop \
		-m "not slow and not gpu $(if $(CHROMIUM),,and not browser)" $(ARGS)

test-all: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --ignore tests/interop -m "not gpu $(if $(CHROMIUM),,and not browser)" $(ARGS)

# Our side without ROS 2 against both middlewares, then the core of it on the peer's own rclpy.
test-interop: $(STAMP)
	@$(BIN)/python scripts/fetch_ros_peer.py || echo "The interop tests are left out: see above"
	@$(BIN)/python -m pytest tests/interop -p no:xdist -m "not slow" $(ARGS)
	@if ls .ros-peer/ready-* >/dev/null 2>&1; then for middleware in rmw_fastrtps_cpp rmw_cyclonedds_cpp; do \
		range=LOCALHOST; test $$middleware = rmw_cyclonedds_cpp || range=SYSTEM_DEFAULT; \
		env ROS_DISTRO=jazzy AMENT_PREFIX_PATH=$(CURDIR)/.ros-peer/jazzy LD_LIBRARY_PATH=$(CURDIR)/.ros-peer/jazzy/lib \
		PYTHONPATH=$(CURDIR)/.ros-peer/jazzy/rclpy:$(CURDIR)/exts/saccade ROS_AUTOMATIC_DISCOVERY_RANGE=$$range \
		FASTRTPS_DEFAULT_PROFILES_FILE=$(CURDIR)/docs/fastdds.xml RMW_IMPLEMENTATION=$$middleware \
		SACCADE_INTEROP_TRANSPORT=rclpy PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 .ros-peer/venv/bin/python -m pytest tests/interop -m "not slow" \
		$(ARGS) || exit 1; done; fi

bench: $(STAMP)
	@$(BIN)/saccade bench $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# One lock for CPython 3.10 to 3.13 and every platform, with hashes; needs uv (https://docs.astral.sh/uv).
# The extras stay in it (--no-strip-extras): pip 23.0 of Python 3.10 refuses hashed requirements otherwise.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.10 --extra sim --extra ros --extra dev --upgrade \
		--generate-hashes --no-header --no-annotate --no-strip-extras --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find exts tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
