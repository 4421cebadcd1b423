# Tools built from the pinned module in hack/tools, kept outside the checkout
# under a hash of its go.sum and the toolchain.
TOOLS_HASH := $(shell { cat hack/tools/go.mod hack/tools/go.sum; go version; } | sha256sum | cut -c1-16)
TOOLS_DIR := $(or $(APHEX_CACHE),$(HOME)/.cache/aphex)/dev-tools/$(TOOLS_HASH)
GOLANGCI_LINT := $(TOOLS_DIR)/golangci-lint
GOVULNCHECK := $(TOOLS_DIR)/govulncheck

.PHONY: tools
tools: $(GOLANGCI_LINT) $(GOVULNCHECK) ## Build the pinned development tools (a few minutes, once)

$(GOLANGCI_LINT):
	cd hack/tools && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(GOVULNCHECK):
	cd hack/tools && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ golang.org/x/vuln/cmd/govulncheck
