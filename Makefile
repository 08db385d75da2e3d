# What people type. Each target installs what it needs, builds what it needs, and does nothing twice.
#
#   make demo        train a network on generated pictures with two replicas
#   make test        the fast tier of tests        make test-all    the long ones too
#   make build       programs in build/release/bin
#   make soak        the drill matrix, a thousand kills, the long simulation
#   make bench       side by side with Keras and PyTorch
#   make lint        clang's thread-safety analysis, clang-tidy, formatting      make format   mend the formatting
#   make asan tsan   the fast tier under sanitizers
#   make setup       only install                  make clean       only delete what was built
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup build test test-all demo bench soak lint format asan tsan clean

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

setup:
	@scripts/setup build test

build:
	@scripts/setup build
	@scripts/build release

test:
	@scripts/setup build test
	@scripts/build release
	@scripts/run_tests release -LE '^long$$'

test-all:
	@scripts/setup build test
	@scripts/build release
	@scripts/run_tests release

demo:
	@scripts/setup build test
	@scripts/build release
	@scripts/demo

bench:
	@scripts/setup build test bench
	@scripts/build release
	@scripts/bench

soak:
	@scripts/setup build test
	@scripts/build release
	@scripts/soak

lint:
	@scripts/setup build lint
	@scripts/lint

format:
	@scripts/setup lint
	@scripts/format

asan tsan:
	@scripts/setup build test
	@scripts/build $@
	@scripts/run_tests $@ -LE '^long$$'

clean:
	rm -rf build
