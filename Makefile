# Sluice. `make help` lists every target.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PKGS    := ./...

# NVIDIA's header marks some calls as deprecated; each first build would warn.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations

.DEFAULT_GOAL := help
.PHONY: help demo build daemons test conformance race nemesis bench fuzz mutate lint chart fmt vet module clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## everything, from nothing: local Lightning network, gateway, model, an agent that pays and streams
	@tools/preflight.sh go cc
	@echo "==> building bin/gateway and bin/agent-client (a first build takes some minutes)"
	@$(MAKE) --no-print-directory build
	@echo "==> running the demo"
	@bin/gateway demo --once

build: ## build bin/gateway and bin/agent-client
	@tools/preflight.sh go cc
	$(GO) build -ldflags "-X main.version=$(VERSION)" -o bin/ ./cmd/gateway ./cmd/agent-client

daemons: ## build the pinned lnd and btcd into the user cache (5 to 6 minutes the first time)
	@tools/preflight.sh go cc
	@$(GO) run ./internal/devnet/daemons/prepare

test: ## all tests, against real lnd, btcd and PostgreSQL
	@tools/preflight.sh go cc postgres pgbouncer
	@echo "==> finding the Lightning daemons, or building them"
	@$(MAKE) --no-print-directory daemons
	@echo "==> go test"
	$(GO) test -timeout 20m $(PKGS)
	@$(MAKE) --no-print-directory conformance

# A module of its own: the SDKs are no part of the product. What they need is
# installed once, into a folder that git ignores.
conformance: ## run the official SDKs for Go and JavaScript against a gateway (part of make test)
	@tools/preflight.sh go cc
	@conformance/install.sh
	@echo "==> the official SDKs against a gateway"
	cd conformance && $(GO) vet ./... && $(GO) test -count=1 ./...

# Without internal/chaos: it kills other processes by the clock, which the
# detector does not look into and slows down. Without SQLite itself: it is C
# translated into Go, has its own locks, and becomes some twenty times slower.
# The same flags are in internal/lab/proc, for programs that tests build.
RACE := -race '-gcflags=modernc.org/...=-race=false'
race: ## all tests again under the race detector
	@tools/preflight.sh go cc postgres pgbouncer
	@$(MAKE) --no-print-directory daemons
	$(GO) test $(RACE) -timeout 30m $$($(GO) list $(PKGS) | grep -v /internal/chaos)

nemesis: ## random faults on the ledger, one schedule a seed (SEEDS=200; SEED=123 for one again; STORE=postgres or sqlite; FAULTS=kill,clock)
	@tools/preflight.sh go postgres
	@mkdir -p bin && $(GO) build -o bin/nemesis ./internal/chaos/nemesis
	bin/nemesis -seeds $(or $(SEEDS),10) -seed $(or $(SEED),0) -store $(or $(STORE),both) -faults "$(FAULTS)"

bench: ## benchmarks of the parts, the whole beside other proxies, the ledger in trouble (BENCH=-short for a look)
	@tools/preflight.sh go cc postgres
	@$(MAKE) --no-print-directory daemons
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 0.3s ./l402 ./pricing ./metering/... ./backends/gpu/... ./internal/store/sqlite ./internal/store/postgres
	@mkdir -p bin && $(GO) build -o bin/bench ./internal/bench
	bin/bench $(BENCH)

fuzz: ## every fuzz target for FUZZTIME (default 30s) each
	@tools/preflight.sh go cc
	@tools/fuzz.sh $(or $(FUZZTIME),30s)

# Thousands of mutants, each with its tests: all of them take hours, so that by
# default only the hand-written ones are run. Results are in bin/mutate.jsonl.
MUTATE ?= -hand -postgres
mutate: ## break the money code on purpose: does a test notice? (MUTATE='-sample 100 -seed 7' for more)
	@tools/preflight.sh go cc postgres
	@mkdir -p bin && $(GO) build -o bin/mutate ./tools/mutate
	bin/mutate $(MUTATE)

lint: vet ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "run gofmt on: $$unformatted"; exit 1; fi
	@mkdir -p bin && cd tools/lint && $(GO) build -o ../../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck $(PKGS)

# A module of its own: Helm and Kubernetes are no part of the product. The first
# run compiles them, which takes about two minutes.
chart: ## render the Helm chart, decode it strictly, and start the gateway as its pod would
	@tools/preflight.sh go cc
	cd tools/chart && $(GO) vet ./... && $(GO) test -count=1 ./...

vet: ## go vet
	$(GO) vet $(PKGS)
	cd examples/agent && $(GO) vet ./...

module: ## give the module another path everywhere (MODULE=example.org/sluice)
	@tools/module.sh $(MODULE)

fmt: ## gofmt everything
	gofmt -w $$(git ls-files '*.go')

clean: ## remove what the build made
	rm -rf bin
