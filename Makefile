GO ?= go
TESTFLAGS ?=
MATRIXFLAGS ?=

# The race detector needs cgo and a C compiler that works.
RACE = $(shell test "$$($(GO) env CGO_ENABLED)" = 1 && printf '\043include <stdlib.h>\n' \
	| $$($(GO) env CC) -xc -fsyntax-only - 2>/dev/null && echo -race)

.DEFAULT_GOAL := help
.PHONY: help build demo test test-corpus test-faults bench lint vet setup clean release-snapshot test-containers test-image test-matrix versions

help: ## print this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST)

build: ## build bin/pgshadow, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/pgshadow ./cmd/pgshadow

demo: setup ## change a table under load, on a throwaway server, and watch
	$(GO) run ./test/demo

test: setup versions ## run all tests, on throwaway servers
	$(GO) test $(RACE) -timeout 40m -p 2 $(TESTFLAGS) ./...

test-faults: setup ## break runs at every point in every way, and kill them at random
	PGSHADOW_FAULTS=all $(GO) test -C test/fault $(RACE) -count=1 -timeout 40m $(TESTFLAGS)

test-corpus: setup ## take every table of whole applications' schemas through two runs each
	PGSHADOW_CORPUS=all $(GO) test ./test/e2e -run TestCorpus $(RACE) -count=1 -timeout 40m $(TESTFLAGS)

test-matrix: setup versions ## run the whole end-to-end suite on PostgreSQL 14, 15, 16, 17 and 18
	$(GO) run ./test/matrix $(MATRIXFLAGS)

test-containers: setup ## run a part of the tests on servers in containers, and say on what
	@scripts/test-containers.sh

bench: setup ## measure
	$(GO) run ./test/bench

lint: ## check the house rules of .golangci.yml
	$(GO) tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners ./...

vet: ## run go vet
	$(GO) vet ./...

release-snapshot: ## build and check what a release holds, in dist, without releasing it
	@scripts/release-snapshot.sh

test-image: setup ## build and check the container image, with Docker
	@scripts/test-image.sh

setup: ## see to it that tests and demo find a PostgreSQL server, PgBouncer and a C compiler
	@scripts/setup.sh

versions: ## see to it that the programs of every PostgreSQL that is supported are there
	@for major in 14 15 16 17 18; do scripts/server-programs.sh $$major >/dev/null || exit 1; done

clean: ## remove what build made
	rm -rf bin dist
