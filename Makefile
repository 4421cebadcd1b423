# Targets for people and CI. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

include hack/tools.mk

GO_TEST_ARGS ?= -race -shuffle=on
BIN := bin/aphex

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the static binary bin/aphex
	CGO_ENABLED=0 go build -trimpath -tags nomsgpack -ldflags '-s -w' -o $(BIN) ./cmd/aphex

.PHONY: test
test: ## Everything: unit, property, golden and end-to-end tests on a real cluster (root on Linux, or Docker with kind)
	@hack/test.sh

.PHONY: test-unit
test-unit: ## Unit, property and golden tests; no root, no cluster, no emulator
	go test $(GO_TEST_ARGS) ./cmd/... ./internal/... ./plugin/... ./tasks/... ./manifests/... ./hack/... ./e2e/...

.PHONY: test-e2e
test-e2e: ## End-to-end tests on a real cluster with an emulated AWS
	APHEX_REQUIRE=cluster,emulator,images go test -count=1 -p 1 -parallel 3 -timeout 60m -v ./e2e/...

FUZZ_TIME ?= 60s
.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZ_TIME (60s), two at a time; FUZZ_ONLY is a pattern of their names
	@FUZZ_TIME=$(FUZZ_TIME) FUZZ_ONLY='$(FUZZ_ONLY)' hack/fuzz.sh

.PHONY: properties
properties: ## The tests of each property of the founding document, those on a real cluster included (ARGS=-unit leaves them out)
	@go run ./hack/properties $(ARGS)

.PHONY: mutants
mutants: ## Break the code once for each stored patch and see a test fail (ARGS="-only property-09")
	@go run ./hack/mutants $(ARGS)

.PHONY: demo
demo: ## Push a sample application through two AWS accounts on a local cluster
	@go run ./e2e/cmd/demo up

.PHONY: demo-down
demo-down: ## Remove everything `make demo` left running
	@go run ./e2e/cmd/demo down

.PHONY: bench
bench: ## Measure the speed claims, as ratios within one run (ARGS="-only sidecar" for a part; deploy and memory need no cluster)
	@go run ./e2e/cmd/bench $(ARGS)

SOAK ?=
.PHONY: soak
soak: ## 2,000 stages that do nothing in 100 workflows, on a stock controller; SOAK="-n 10" for less
	@go run ./e2e/cmd/soak $(SOAK)

.PHONY: conformance
conformance: ## Compare deployments with the real CDK command line (ARGS="-live -apps simple -states absent -record")
	@go run ./e2e/cmd/parity $(ARGS)

CHAOS ?=
.PHONY: chaos
chaos: ## Kill the plugin at every boundary of a run, at random and twice in a row (hours; CHAOS="-help" lists the flags)
	@go run ./e2e/cmd/chaos $(CHAOS)

.PHONY: chaos-deploy
chaos-deploy: ## Kill deployments while they make, execute and watch change sets (CHAOS="-n 10 -seed 1")
	@go run ./e2e/cmd/deploychaos $(CHAOS)

.PHONY: lint
lint: tools ## golangci-lint (with gofumpt and gci), govulncheck, generated files up to date
	$(GOLANGCI_LINT) run ./...
	hack/vuln.sh $(GOVULNCHECK)
	hack/verify.sh

.PHONY: fmt
fmt: tools ## Format the Go code
	$(GOLANGCI_LINT) fmt ./...

.PHONY: golden
golden: ## Rewrite the generated files; review the difference like code
	hack/generate.sh

.PHONY: clean
clean: ## Remove what was built in the checkout
	rm -rf bin
