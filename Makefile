# `make demo` and `make test` set everything up by themselves; see README.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp
export OMP_NUM_THREADS ?= 1
# Where compiled modules may not be kept, every worker process compiles torch and Ray anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo demo-from-scratch tiny test test-nightly test-fast lint format docs bench bench-model bench-train bench-codec bench-sampling bench-serving bench-data gpu-check chaos multinode fuzz serve lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup: $(STAMP)  ## virtual environment with every locked dependency; leaves .venv/bin/audiocalm

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## speech, rain and music at once, then a small training and its report
	$(BIN)/audiocalm demo --out runs/demo

demo-from-scratch: setup  ## codec and model from nothing, to samples and report: 12 minutes on 2 cores
	$(BIN)/audiocalm demo --from-scratch --out runs/demo-from-scratch

TINY := runs/tiny-model
CONFIGS := jobs/configs
EXPORT_TINY = $(BIN)/audiocalm export --run $(TINY)/training --codec shipped-tiny --weights fp16 --card $(CONFIGS)/card_tiny.yaml \
  --sampling $(CONFIGS)/sampling_tiny.yaml --shards $(TINY)/data/train-shards \
  --voices $(CONFIGS)/voices_tiny.yaml $(if $(RECORDINGS),$(CONFIGS)/voices_tiny_recordings.yaml) \
  --default-voice james
tiny: setup  ## train the shipped model again, about 5 core-hours; SENTENCES=FILE of open sentences, RECORDINGS=DIR of real corpora; the same command goes on
	@test -n "$(SENTENCES)" || { echo "set SENTENCES=FILE: a text file with English sentences, one a line, which the corpus speaks"; exit 2; }
	$(BIN)/audiocalm starter-corpus --config $(CONFIGS)/corpus_tiny.yaml --out $(TINY)/corpus --set speech.sentences=$(abspath $(SENTENCES))
	$(BIN)/audiocalm prepare --config $(CONFIGS)/prepare_tiny_cpu.yaml --input $(TINY)/corpus $(RECORDINGS) --set describe.texts_per_clip=10 --codec shipped-tiny --output $(TINY)/data
	$(BIN)/audiocalm train --config $(CONFIGS)/train_tiny_shipped.yaml --shards $(TINY)/data/train-shards --output $(TINY)/training \
	  $(if $(RECORDINGS),--mixture $(CONFIGS)/mixture_tiny_recordings.yaml)
	$(EXPORT_TINY) --output $(TINY)/unmeasured
	$(BIN)/audiocalm evaluate --bundle $(TINY)/unmeasured --data $(TINY)/data --output $(TINY)/evaluation \
	  --set per_modality=40 --set num_digits=40 $(if $(ASR),--asr $(ASR))
	$(EXPORT_TINY) --results $(TINY)/evaluation/results.json --output $(TINY)/audiocalm-tiny

serve: setup  ## streaming endpoint over the shipped bundle; BUNDLE=DIR for another
	$(BIN)/audiocalm serve --bundle $(BUNDLE)

TEST_WORKERS ?= 2
test: setup  ## the suite: what needs no Ray in two processes, then the rest in one
	$(BIN)/python -m pytest -m "not ray and not nightly" --numprocesses $(TEST_WORKERS) --dist loadfile
	$(BIN)/python -m pytest -m "ray and not nightly"

test-nightly: setup  ## the long tests that `make test` leaves out
	$(BIN)/python -m pytest -m nightly

test-fast: setup  ## unit tests only
	$(BIN)/python -m pytest -m "not slow and not nightly and not ray and not gpu" --numprocesses $(TEST_WORKERS) --dist loadfile

lint: setup  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup  ## rewrite to the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## the pages as a site in build/site, with every link checked
	$(BIN)/python -m docs.site build/site

bench: setup  ## measure; prints a table for BENCHMARKS.md
	$(BIN)/python -m tests.bench

PRESETS ?=
bench-model: setup  ## sampler and training step; PRESETS="0.6b 1.7b 4b" on a GPU
	$(BIN)/python -m tests.bench model $(if $(PRESETS),--presets $(PRESETS))

bench-train: setup  ## training loop against plain torch, wait for data, feed of a rank, memory of an index; needs 10 GB of disk
	$(BIN)/python -m tests.bench training

bench-codec: setup  ## codec by batch and length beside diffusers' Oobleck, real-time factors
	$(BIN)/python -m tests.bench codec

BUNDLE ?= audiocalm-tiny
bench-sampling: setup  ## flow steps, guidance, temperature of a bundle; BUNDLE=DIR DATA=DIR ASR=DIR
	$(BIN)/python -m tests.bench.sampling --bundle $(BUNDLE) --data $(DATA) $(if $(ASR),--asr $(ASR))

bench-serving: setup  ## the endpoint under load: 1, 8, 32 clients, some leaving or slow, then ten times its capacity; POCKET_TTS=DIR beside it
	$(BIN)/python -m tests.bench.serving --bundle $(BUNDLE) $(if $(POCKET_TTS),--pocket-tts $(POCKET_TTS))

gpu-check: setup  ## what only a GPU tells, in ten minutes on one: gpu tests, bf16 steps, sampler; a table
	$(BIN)/python -m tests.gpu_check

MINUTES ?= 60
bench-data: setup  ## data stages on an hour of audio, against loop and DataLoader; INPUT="DIR ..." MINUTES=60 SHORT_CLIPS=100000 LONG=3 PRE_ENCODE=DIR
	$(BIN)/python -m tests.bench data
	$(BIN)/python -m tests.bench.stages --minutes $(MINUTES) $(if $(INPUT),--input $(INPUT)) $(if $(SHORT_CLIPS),--short-clips $(SHORT_CLIPS)) \
	  $(if $(LONG),--long-recordings $(LONG))
	$(if $(PRE_ENCODE),$(BIN)/python -m tests.bench.pre_encode --checkout $(PRE_ENCODE) $(if $(PACKAGES),--packages $(PACKAGES)))

SEEDS ?= 0-19
CLIPS ?= 60
chaos: setup  ## kill `prepare` and trainings at random points, compare every byte; SEEDS=0-19 CLIPS=60 DRIVERS=2 S3_FAULTS=0.05 RECIPES=1
	$(BIN)/python -m tests.chaos --seeds $(SEEDS) --clips $(CLIPS) \
	  $(if $(DRIVERS),--drivers $(DRIVERS)) $(if $(S3_FAULTS),--s3-faults $(S3_FAULTS)) \
	  $(if $(RECIPES),--changed-recipes)
	$(BIN)/python -m pytest tests/pipeline/training/test_kill.py

multinode: setup  ## jobs on a Ray of several nodes on this machine, one of which is lost in the middle of each
	$(BIN)/python -m pytest tests/cluster/test_lost_nodes.py

EXAMPLES ?= 2000
fuzz: setup  ## thousands of new requests from the OpenAPI document; EXAMPLES=2000 of each kind to each route
	FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/pipeline/serving/test_fuzz.py --log-cli-level INFO --timeout 7200

lock:  ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --upgrade --output-file requirements.lock

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
