# coaug: the front door. Every target installs what it needs into .venv first.
#
#   make train METHOD=svaclr                      a demo set is generated, trained on and evaluated
#   make train METHOD=svaclr DATA=/videos GPUS=8  your own videos
#   make test                                     everything that needs no GPU

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
METHOD ?= svaclr
export PROFILE

.DEFAULT_GOAL := help
.PHONY: help train index pack stats eval analyse view bench bench-augment bench-source bench-packed bench-kernels bench-bank doctor test lint type-check gpu-check demo-table avid-table clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{t=$$1; sub(/^[^|]*[|]/, ""); printf "  make %-13s %s\n", t, $$0}'

train: $(VENV)/.installed ## METHOD=svaclr [DATA=folder|catalog] [GPUS=n] [SET="optim.lr=0.1 …"] [OUT=runs/x] [RESUME=1] [INIT=runs/y] [PROFILE=1] [PRINT_CONFIG=1] [PROCS=processes on a CPU]
	$(BIN)/coaug train $(METHOD) $(SET) $(if $(DATA),--data "$(DATA)") $(if $(GPUS),--gpus $(GPUS)) $(if $(PROCS),--procs $(PROCS)) $(if $(OUT),--out "$(OUT)") $(if $(INIT),--init "$(INIT)") $(if $(RESUME),--resume) $(if $(PRINT_CONFIG),--print-config)

index: $(VENV)/.installed ## DATA=folder [OUT=catalog.parquet]: probe media files once, write their catalog
	$(BIN)/coaug index $(if $(DATA),"$(DATA)",$(error index: which folder? make index DATA=/videos)) $(if $(OUT),--out "$(OUT)") $(ARGS)

pack: $(VENV)/.installed ## DATA=folder|catalog OUT=folder [ARGS="--video mjpeg --size 224"]: shards that cost a fraction to read
	$(BIN)/coaug pack $(if $(DATA),"$(DATA)",$(error pack: which catalog? make pack DATA=/videos OUT=/pack)) $(if $(OUT),"$(OUT)",$(error pack: where to? make pack DATA=/videos OUT=/pack)) $(ARGS)

stats: $(VENV)/.installed ## DATA=folder|catalog [PRESET=avid] [OUT=stats.json] [SET="data.audio.hop=0.02 …"]: mean and std of every band
	$(BIN)/coaug stats $(if $(DATA),"$(DATA)",$(error stats: which catalog? make stats DATA=catalog.parquet)) $(if $(PRESET),--preset $(PRESET)) $(if $(OUT),--out "$(OUT)") $(ARGS) $(SET)

eval: $(VENV)/.installed ## [RUN=runs/svaclr] [DATA=folder|catalog]: evaluate a trained run again
	$(BIN)/coaug eval $(or $(RUN),runs/$(METHOD)) $(if $(DATA),--data "$(DATA)")

analyse: $(VENV)/.installed ## [RUN=runs/avid] [OUT=folder] [DATA=folder|catalog]: what a memory knows, in tables and pictures
	$(BIN)/coaug analyse $(or $(RUN),runs/$(METHOD)) $(if $(OUT),--out "$(OUT)") $(if $(DATA),--data "$(DATA)") $(ARGS)

view: $(VENV)/.installed ## FILE=video.mp4 [PRESET=svaclr] [SEED=n] [OUT=sheet.png] [MP4=clips.mp4] [ARGS='--recipe "speed(2)"']: what augmentation does
	$(BIN)/coaug view $(if $(FILE),"$(FILE)",$(error view: which file? make view FILE=video.mp4)) $(if $(PRESET),--preset $(PRESET)) $(if $(SEED),--seed $(SEED)) $(if $(OUT),--out "$(OUT)") $(if $(MP4),--mp4 "$(MP4)") $(ARGS) $(SET)

bench: $(VENV)/.installed-bench ## measure the loader against peers and ceilings [ARGS="--json FILE --data FOLDER"]
	$(BIN)/coaug bench $(ARGS)

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	@touch $@ $(VENV)/.installed

bench-augment: $(VENV)/.installed-bench ## measure the augmentation against torchaudio + torch [ARGS="--presets svaclr"]
	$(BIN)/python benchmarks/augment.py $(ARGS)

bench-source: $(VENV)/.installed-bench ## measure reading from files against DALI and against decoding alone
	$(BIN)/python benchmarks/source.py $(ARGS)

bench-packed: $(VENV)/.installed-bench ## measure packed shards against AVID-CMA's own loader and against their stages
	$(BIN)/python benchmarks/packed.py $(ARGS)

bench-kernels: $(VENV)/.installed-bench ## measure the kernels against torch, AVID-CMA's ways and ceilings [ARGS="--kernel soft_infonce"]
	$(BIN)/python benchmarks/kernels.py $(ARGS)

bench-bank: $(VENV)/.installed-bench ## measure a memory bank of 1.8 million recordings: start, step, search for positives
	$(BIN)/python benchmarks/bank.py $(ARGS)

doctor: $(VENV)/.installed ## what works on this machine, and the remedy for what does not
	$(BIN)/coaug doctor

test: $(VENV)/.installed-dev ## the tests that need no GPU [ARGS="-k loader"]
	$(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

gpu-check: $(VENV)/.installed-dev ## every check that needs a GPU; writes gpu-check.json
	$(BIN)/coaug gpu-check $(ARGS)

lint: $(VENV)/.installed-dev ## ruff: style and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type-check: $(VENV)/.installed-dev ## mypy --strict
	$(BIN)/mypy

demo-table: $(VENV)/.installed ## three seeds x {SoftInfoNCE, InfoNCE, no speed} on the demo set -> docs/demo-table.md
	$(BIN)/python benchmarks/demo_table.py $(ARGS)

avid-table: $(VENV)/.installed ## three seeds x {Self-, Cross-, Joint-AVID, CMA} on the packed demo set -> docs/avid-table.md [ARGS="--lambdas 0.1 1 10"]
	$(BIN)/python benchmarks/avid_table.py $(ARGS)

clean: ## remove the environment and caches (runs/ and data/ stay)
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing coaug and what it needs into $(VENV) (about 9 GB, a few minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing coaug and its test tools into $(VENV) (about 9 GB, a few minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.installed
