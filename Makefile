# `make` names the targets. CUDA=1 takes the GPU libraries, PYTHON=... the python that fetches them, BUNDLE=... options of
# `.ci/gpu_bundle.py`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo wheels gpu-bundle test lint doc deny bench clean-runtime

PYTHON ?= python3
CARGO ?= cargo
ifdef CUDA
export CUDA
endif

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## native libraries into .runtime/ (nothing to do when they are there)
	@$(PYTHON) .ci/setup.py

build: setup ## both programs, optimised: target/release/laps-zoo and laps-zoo-torch
	$(CARGO) build --locked --release --package laps-zoo --package laps-torch

demo: ## the program without libtorch, compiled quickly (target/demo/laps-zoo), and the embedded entries reproduced
	@$(PYTHON) .ci/setup.py cmake onnxruntime
	$(CARGO) build --locked --profile demo --package laps-zoo
	target/demo/laps-zoo reproduce shapes_vit
	target/demo/laps-zoo reproduce shapes_swin

wheels: setup ## the Python wheels, optimised: dist/ (needs nasm, and maturin: pip install maturin)
	@$(PYTHON) .ci/wheels.py laps-zoo laps-zoo-torch

gpu-bundle: ## what bench/gpu.sh needs on a machine with a GPU and no network: dist/gpu/ (CUDA=0: without CUDA, to try it)
	@$(PYTHON) .ci/gpu_bundle.py $(if $(filter 0,$(CUDA)),--cpu) $(BUNDLE)

test: setup ## set-up, and every test of both programs
	$(CARGO) test --locked --workspace

lint: ## formatting and clippy
	.ci/run format clippy

doc: setup ## the API documentation: target/doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --workspace

deny: ## licences, sources, banned and vulnerable dependencies (needs cargo-deny)
	$(CARGO) deny --locked check

bench: setup ## every benchmark
	$(CARGO) bench --locked --workspace

clean-runtime: ## removes .runtime/
	rm -rf .runtime
