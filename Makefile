# Everything goes through .venv, which `make install` makes of any Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
PROTOS := protos/chatsession/v1/chat_session.proto protos/chatsession/v1/error_reason.proto
GENERATED := clients/python/src
IMAGE := service/rpc/contract.binpb
OTHERS := clients/go/gen clients/node/src/gen
RELEASED := protos/released.binpb
# Most tests wait more than they work, so three at once suit two cores as well.
PYTEST_ARGS ?= -n 3 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install run test bench bench-quick check lint format typecheck proto check-proto breaking release-contract lock clean

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## Make .venv with everything in it

.venv/installed: pyproject.toml clients/python/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e 'clients/python[cli]' -e '.[dev]'
	@touch $@

run: .venv/installed ## Start the service: gRPC on 50051, REST and Swagger UI on 8000
	@exec $(BIN)/python -m service

test: .venv/installed ## Run all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: .venv/installed ## Measure everything beside its bare parts and its rivals; 15 minutes
	@$(BIN)/python -m benchmarks

bench-quick: .venv/installed ## Measure the main comparisons; two minutes
	@$(BIN)/python -m benchmarks --quick

check: lint typecheck check-proto breaking test ## All that CI runs

lint: .venv/installed ## Look for faults and untidy code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed ## Tidy the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: .venv/installed ## Check the types
	$(BIN)/mypy

# Tool, folder: generate a client's code where its tool is there.
in_client = if command -v $(1) >/dev/null; then $(MAKE) -s -C clients/$(2) generate PYTHON=$(abspath $(BIN)/python); \
  else echo 'no $(1): clients/$(2) is not generated anew'; fi

# google/api and google/rpc come with googleapis-common-protos.
PROTOC = $(BIN)/python -m grpc_tools.protoc -Iprotos -I$$($(BIN)/python -c 'import pathlib, google.api as a; print(pathlib.Path(a.__path__[0]).parent.parent)')

proto: .venv/installed ## Generate code from protos/
	$(PROTOC) --python_out=$(GENERATED) --pyi_out=$(GENERATED) $(PROTOS)
	$(PROTOC) --grpc_python_out=$(GENERATED) protos/chatsession/v1/chat_session.proto
	$(PROTOC) --include_imports --include_source_info -o $(IMAGE) $(PROTOS)
	@$(call in_client,go,go)
	@$(call in_client,npm,node)

check-proto: proto ## Fail if generated code is not what protos/ says, or breaks the contract's rules
	@test -z "$$(git status --porcelain -- $(GENERATED)/chatsession/v1 $(IMAGE) $(OTHERS))" || \
	  { git --no-pager diff --stat -- $(GENERATED)/chatsession/v1 $(IMAGE) $(OTHERS); echo 'generated code differs: commit the result of `make proto`'; exit 1; }
	$(BIN)/buf lint $(IMAGE) --path chatsession/v1 --config protos/buf.yaml

breaking: .venv/installed ## Fail if the contract would break clients of the last release
	$(BIN)/buf breaking $(IMAGE) --against $(RELEASED) --path chatsession/v1 --config protos/buf.yaml

release-contract: .venv/installed ## Take today's contract as the one that clients rest on
	cp $(IMAGE) $(RELEASED)

lock: ## Write constraints.txt anew from what the newest allowed versions resolve to
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check -e 'clients/python[cli]' -e '.[dev]'
	.venv-lock/bin/python -m pip freeze --exclude-editable | grep -v '^-' > constraints.txt
	rm -rf .venv-lock

clean: ## Remove what was built
	rm -rf .venv build .cache .mypy_cache .pytest_cache .ruff_cache
