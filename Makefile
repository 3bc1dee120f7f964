# `make` names the targets. CUDA=1 takes the GPU libraries, PYTHON=... the python that fetches them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint doc deny bench clean-runtime

PYTHON ?= python3
CARGO ?= cargo
ifdef CUDA
export CUDA
endif

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## native libraries into .runtime/ (nothing to do when they are there)
	@$(PYTHON) .ci/setup.py

build: setup ## the command, optimised: target/release/laps-zoo
	$(CARGO) build --locked --release

demo: build ## set-up, build, and the embedded entries reproduced
	$(CARGO) run --locked --release --quiet -- reproduce shapes_vit
	$(CARGO) run --locked --release --quiet -- reproduce shapes_swin

test: setup ## set-up, and every test
	$(CARGO) test --locked --workspace

lint: ## formatting, and clippy with and without libtorch
	.ci/run format clippy clippy_without_torch

doc: setup ## the API documentation: target/doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --workspace

deny: ## licences, sources, banned and vulnerable dependencies (needs cargo-deny)
	$(CARGO) deny --locked check

bench: setup ## every benchmark
	$(CARGO) bench --locked --workspace

clean-runtime: ## removes .runtime/
	rm -rf .runtime
